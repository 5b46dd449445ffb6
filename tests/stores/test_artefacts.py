import json
import os
import shutil
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellabel.errors import InputError
from cellabel.stores import ArtefactStore, PlateStore, check_plate_id, plate_store


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    url = tmp_path / "store" if request.param == "local" else f"memory://{tmp_path.name}/store"
    return ArtefactStore(url)


def put(store, name, version, text, **record):
    with store.write(name, version, record) as folder:
        (folder / "content.txt").write_text(text)


def test_the_record_points_to_the_version_written_last(store):
    put(store, "P1", "v1", "old", colour="red")
    put(store, "P1", "v2", "new", colour="blue")
    assert store.record("P1") == {"name": "P1", "version": "v2", "colour": "blue"}
    assert (store.path("P1") / "content.txt").read_text() == "new"
    assert (store.path("P1", "v1") / "content.txt").read_text() == "old"
    assert store.names() == ["P1"]
    assert store.has("P1", "v1") and not store.has("P1", "v3")


def test_a_failed_write_leaves_the_old_version(store):
    put(store, "P1", "v1", "old")
    with pytest.raises(RuntimeError), store.write("P1", "v2") as folder:
        (folder / "content.txt").write_text("half")
        raise RuntimeError
    assert store.record("P1")["version"] == "v1"
    assert (store.path("P1") / "content.txt").read_text() == "old"
    assert not store.has("P1", "v2")


def test_a_killed_write_is_never_read_and_is_swept_by_the_next(tmp_path):
    store = ArtefactStore(tmp_path)
    put(store, "P1", "v1", "old")
    child = os.fork()
    if child == 0:
        with store.write("P1", "v2") as folder:
            (folder / "content.txt").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert any(path.name.endswith(".part") for path in (tmp_path / "P1").iterdir())
    assert store.record("P1")["version"] == "v1"
    put(store, "P1", "v2", "whole")
    assert (store.path("P1") / "content.txt").read_text() == "whole"
    assert not any(path.name.endswith(".part") for path in (tmp_path / "P1").iterdir())


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    store = ArtefactStore(tmp_path)
    told = pytest.raises(InputError, match=r"'P1' could not be written .*No space left.*make room")
    with told, store.write("P1", "v1"):
        raise OSError(28, "No space left on device")
    assert store.record("P1") is None
    assert list((tmp_path / "P1").iterdir()) == []


def test_a_missing_artefact_is_named(store):
    with pytest.raises(InputError, match="no artefact 'P9'"):
        store.path("P9")


def test_a_damaged_record_is_named(tmp_path):
    store = PlateStore(tmp_path)
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1" / "record.json").write_text('{"version"')
    with pytest.raises(InputError, match=r"record\.json is not valid JSON"):
        store.record("P1")


def test_a_record_can_be_amended(store):
    put(store, "P1", "v1", "x", status="accepted")
    assert store.update_record("P1", status="retired")["version"] == "v1"
    assert store.record("P1")["status"] == "retired"


def test_accepted_plates_leave_out_the_quarantined(tmp_path):
    plates = plate_store(tmp_path)
    put(plates, "P1", "v1", "x", status="accepted")
    put(plates, "P2", "v1", "x", status="quarantined")
    assert plates.accepted() == ["P1"]
    assert plate_store(plates) is plates


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "-a", "a b", "x\n", "a" * 101, ".hidden"])
def test_a_plate_id_that_could_leave_the_store_is_refused(name, tmp_path):
    with pytest.raises(InputError, match="cannot be used"):
        check_plate_id(name)
    with pytest.raises(InputError):
        PlateStore(tmp_path).path(name)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True))
def test_every_plate_id_of_the_documented_form_is_taken(name):
    assert check_plate_id(name) == name


def test_records_are_json_that_a_person_can_read(tmp_path):
    store = ArtefactStore(tmp_path)
    put(store, "P1", "v1", "x", b=1, a=2)
    text = (tmp_path / "P1" / "record.json").read_text()
    assert json.loads(text) == {"a": 2, "b": 1, "name": "P1", "version": "v1"}
    assert text.index('"a"') < text.index('"b"')


@pytest.mark.parametrize("url", ["nosuch://place/x", "gs://bucket/x"])
def test_a_url_that_nothing_here_opens_is_one_sentence(url: str) -> None:
    with pytest.raises(InputError, match=r"cannot be opened .*: give a folder, or install") as caught:
        PlateStore(url)
    assert "\n" not in str(caught.value)


def test_two_who_finish_the_same_version_in_the_same_moment_both_end_well(tmp_path, monkeypatch):
    replace = os.replace

    def beaten(scratch: str, final: str) -> None:
        if scratch.endswith(".part") and os.path.isdir(scratch):
            shutil.copytree(scratch, final)
        replace(scratch, final)

    monkeypatch.setattr(os, "replace", beaten)
    store = PlateStore(tmp_path)
    with store.write("P1", "v1") as scratch:
        (scratch / "pixels").write_text("same")
    assert (store.path("P1") / "pixels").read_text() == "same"
    assert not list(tmp_path.rglob("*.part"))
