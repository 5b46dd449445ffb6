"""What is remembered of files, and that nothing replaced is overlooked."""

from __future__ import annotations

import json
import os

import pytest
from upath import UPath

from cellabel.errors import InputError
from cellabel.stores import ArtefactStore, FileMemory, PlateStore, write_json

OLD_NS = 1_700_000_000 * 10**9


@pytest.fixture
def parsed():
    """A memory, and what it has parsed."""
    seen = []

    def parse(content):
        seen.append(content)
        return content["n"]

    return FileMemory(parse), seen


def put(path, number, *, old=True):
    write_json(path, {"n": number})
    if old:
        os.utime(path, ns=(OLD_NS, OLD_NS))


@pytest.fixture
def long_ago(monkeypatch):
    """Files count as settled however young they are."""
    monkeypatch.setattr("cellabel.stores._memory.SETTLED_NS", -1)


def test_a_file_is_read_once_until_it_is_replaced(tmp_path, parsed, long_ago):
    memory, seen = parsed
    put(UPath(tmp_path) / "a.json", 1)
    put(UPath(tmp_path) / "b.json", 2)
    assert memory.of_folder(UPath(tmp_path)) == memory.of_folder(UPath(tmp_path)) == [1, 2]
    assert len(seen) == 2
    put(UPath(tmp_path) / "a.json", 3)  # of the same size, and said to be of the same time
    assert memory.of_folder(UPath(tmp_path)) == [3, 2]
    assert len(seen) == 3


def test_a_young_file_is_read_every_time(tmp_path, parsed):
    memory, seen = parsed
    put(UPath(tmp_path) / "a.json", 1, old=False)
    assert memory.of_folder(UPath(tmp_path)) == memory.of_folder(UPath(tmp_path)) == [1]
    assert len(seen) == 2


def test_what_is_missing_half_written_or_gone_is_not_there(tmp_path, parsed, long_ago):
    memory, _ = parsed
    folder = UPath(tmp_path) / "folder"
    assert memory.of_folder(folder) == []
    put(folder / "a.json", 1)
    (folder / ".b.json.123.part").write_text("{")
    assert memory.of_folder(folder) == [1]
    (folder / "a.json").unlink()
    assert memory.of_folder(folder) == []
    assert memory.of_files(folder, ["a.json", "none/a.json"]) == {}


def test_a_damaged_file_is_named(tmp_path, parsed):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json is not valid JSON"):
        parsed[0].of_folder(UPath(tmp_path))


def test_an_object_store_is_read_every_time(parsed):
    memory, seen = parsed
    folder = UPath("memory://remembered")
    (folder / "a.json").write_text(json.dumps({"n": 1}))
    for _ in range(2):
        assert memory.of_folder(folder) == [1]
        assert memory.of_files(folder, ["a.json", "b.json"]) == {"a.json": 1}
    assert len(seen) == 4


@pytest.mark.parametrize("remote", [False, True])
def test_records_are_those_that_are_read_one_by_one(tmp_path, remote):
    store = ArtefactStore("memory://records" if remote else tmp_path)
    names = ["P1/nuclei", "P1/er", "P2/nuclei"]
    for number, name in enumerate(names[:2]):
        store.update_record(name, number=number)
    for number in range(3):
        store.update_record("P1/nuclei", number=number)
        assert store.records(names) == {name: store.record(name) for name in names[:2]}


@pytest.mark.parametrize("remote", [False, True])
def test_accepted_records_are_of_the_accepted_plates(tmp_path, remote):
    store = PlateStore("memory://accepted" if remote else tmp_path)
    assert store.accepted_records() == {}
    for name, status in (("P2", "accepted"), ("P1", "accepted"), ("P3", "quarantined")):
        store.update_record(name, status=status)
    (store.root / "note.txt").write_text("not a plate")
    assert list(store.accepted_records()) == store.accepted() == ["P1", "P2"]
    store.update_record("P1", status="retired")
    assert store.accepted() == ["P2"]
