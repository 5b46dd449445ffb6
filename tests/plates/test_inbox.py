import os

import pytest

import cellabel.plates.inbox as inbox_module
from cellabel.plates.inbox import scan_inbox, vendor_state


@pytest.fixture
def inbox(tmp_path):
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1" / "a.tif").write_bytes(b"1")
    return tmp_path


def names(arrivals):
    return [arrival.folder.name for arrival in arrivals]


def test_a_folder_is_taken_once_it_has_settled(inbox):
    arrivals, memory = scan_inbox(inbox, {}, now=0, settle_seconds=60)
    assert arrivals == []
    arrivals, memory = scan_inbox(inbox, memory, now=59, settle_seconds=60)
    assert arrivals == []
    arrivals, memory = scan_inbox(inbox, memory, now=60, settle_seconds=60)
    assert names(arrivals) == ["P1"]


def test_a_folder_that_grows_waits_anew(inbox):
    _, memory = scan_inbox(inbox, {}, now=0, settle_seconds=60)
    (inbox / "P1" / "b.tif").write_bytes(b"2")
    _, memory = scan_inbox(inbox, memory, now=50, settle_seconds=60)
    arrivals, memory = scan_inbox(inbox, memory, now=70, settle_seconds=60)
    assert arrivals == []
    arrivals, _ = scan_inbox(inbox, memory, now=110, settle_seconds=60)
    assert names(arrivals) == ["P1"]


def test_a_marker_ends_the_wait(inbox):
    (inbox / "P1" / "transfer.complete").touch()
    assert names(scan_inbox(inbox, {}, now=0, settle_seconds=60)[0]) == ["P1"]


def test_an_export_with_changes_has_another_fingerprint(inbox):
    (before,), _ = scan_inbox(inbox, {}, now=0, settle_seconds=0)
    os.utime(inbox / "P1" / "a.tif", ns=(1, 1))
    (after,), _ = scan_inbox(inbox, {}, now=0, settle_seconds=0)
    assert before.fingerprint != after.fingerprint


def test_clutter_is_not_an_acquisition(inbox):
    (inbox / ".hidden").mkdir()
    (inbox / "empty").mkdir()
    (inbox / "note.txt").write_text("x")
    (inbox / "link").symlink_to(inbox / "P1")
    (inbox / "clutter").mkdir()
    (inbox / "clutter" / "Thumbs.db").write_bytes(b"x")
    (inbox / "clutter" / ".DS_Store").write_bytes(b"x")
    assert names(scan_inbox(inbox, {}, now=0, settle_seconds=0)[0]) == ["P1"]


def test_no_inbox_is_no_arrival(tmp_path):
    assert scan_inbox(tmp_path / "none", {}, now=0, settle_seconds=0) == ([], {})


CELLVOYAGER = """<bts:MeasurementData><bts:MeasurementRecord bts:Type="IMG">a.tif</bts:MeasurementRecord>
<bts:MeasurementRecord bts:Type="IMG">..\\x\\b.tif</bts:MeasurementRecord>
<bts:MeasurementRecord bts:Type="ERR">failed</bts:MeasurementRecord></bts:MeasurementData>"""
PHENIX = "<E><Image><URL>a.tif</URL></Image><Image><URL>b.tif</URL></Image></E>"


@pytest.mark.parametrize("order", [("list", "b"), ("b", "list")])
@pytest.mark.parametrize(
    "lists", [{"x.mlf": CELLVOYAGER, "x.mrf": '<M EndTime="2021"/>'}, {"Index.idx.xml": PHENIX}]
)
def test_a_vendors_list_ends_the_wait_once_all_it_names_is_there_in_any_order(inbox, lists, order):
    memory, clock = {}, 0.0
    for step in order:
        clock += 100
        if step == "b":
            (inbox / "P1" / "b.tif").write_bytes(b"2")
        else:
            for name, text in lists.items():
                (inbox / "P1" / name).write_text(text)
        arrivals, memory = scan_inbox(inbox, memory, now=clock, settle_seconds=60, incomplete_seconds=900)
        assert arrivals == []
    arrivals, memory = scan_inbox(inbox, memory, now=clock + 1, settle_seconds=60, incomplete_seconds=900)
    assert names(arrivals) == ["P1"]


def test_a_pause_in_copying_does_not_end_the_wait_while_a_listed_image_is_missing(inbox):
    (inbox / "P1" / "Index.xml").write_text(PHENIX)
    _, memory = scan_inbox(inbox, {}, now=0, settle_seconds=60, incomplete_seconds=900)
    for now, complete in ((1, []), (500, []), (899, []), (900, ["P1"])):
        arrivals, memory = scan_inbox(inbox, memory, now=now, settle_seconds=60, incomplete_seconds=900)
        assert names(arrivals) == complete


@pytest.mark.parametrize("spoilt", [PHENIX[:-9], PHENIX.replace("b.tif", "c.tif")])
def test_half_a_list_or_an_empty_image_is_not_whole(inbox, spoilt):
    (inbox / "P1" / "Index.xml").write_text(spoilt)
    (inbox / "P1" / "b.tif").write_bytes(b"")
    assert vendor_state(inbox / "P1") == "missing"
    (inbox / "P1" / "Index.xml").write_text(PHENIX)
    assert vendor_state(inbox / "P1") == "missing"
    (inbox / "P1" / "b.tif").write_bytes(b"1")
    assert vendor_state(inbox / "P1") == "whole"
    (inbox / "P1" / "Index.xml").unlink()
    assert vendor_state(inbox / "P1") == ""


def test_plates_come_in_the_order_in_which_they_were_first_seen(inbox):
    _, memory = scan_inbox(inbox, {}, now=0, settle_seconds=60)
    (inbox / "A0").mkdir()
    (inbox / "A0" / "a.tif").write_bytes(b"1")
    _, memory = scan_inbox(inbox, memory, now=10, settle_seconds=60)
    arrivals, _ = scan_inbox(inbox, memory, now=100, settle_seconds=60)
    assert names(arrivals) == ["P1", "A0"]


def test_a_name_that_is_no_text_does_not_stop_the_others(inbox):
    with open(os.fsencode(inbox / "P1") + b"/\xff\xfe.tif", "wb") as file:
        file.write(b"x")
    assert names(scan_inbox(inbox, {}, now=0, settle_seconds=0)[0]) == ["P1"]


@pytest.fixture
def many(tmp_path):
    """Twenty folders that were taken in, as they are remembered."""
    for number in range(20):
        (tmp_path / f"P{number:02d}").mkdir()
        (tmp_path / f"P{number:02d}" / "a.tif").write_bytes(b"1")
    _, memory = scan_inbox(tmp_path, {}, now=0, settle_seconds=0)
    return tmp_path, memory


def looked_into(monkeypatch, inbox, memory, **options):
    seen = []
    look = inbox_module._fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(
            inbox_module, "_fingerprint", lambda folder: (seen.append(folder.name), look(folder))[1]
        )
        arrivals, after = scan_inbox(inbox, memory, settle_seconds=0, **options)
    assert names(arrivals) == sorted(memory) and after.keys() == memory.keys()
    return set(seen), after


def test_only_a_few_of_the_folders_taken_in_are_looked_into_again(many, monkeypatch):
    inbox, memory = many
    assert looked_into(monkeypatch, inbox, memory, now=1)[0] == set(memory), "none of them is taken in"
    found, after = looked_into(monkeypatch, inbox, memory, now=1, taken=set(memory), looks=3)
    assert len(found) == 3
    assert [one["fingerprint"] for one in after.values()] == [one["fingerprint"] for one in memory.values()]
    turns = [looked_into(monkeypatch, inbox, memory, now=t, taken=set(memory), looks=3)[0] for t in range(60)]
    assert set().union(*turns) == set(memory), "each has its turn"


def test_a_file_that_comes_into_a_folder_taken_in_is_seen_at_once(many, monkeypatch):
    inbox, memory = many
    (inbox / "P07" / "b.tif").write_bytes(b"2")
    found, after = looked_into(monkeypatch, inbox, memory, now=1, taken=set(memory), looks=0)
    assert found == {"P07"}
    assert after["P07"]["fingerprint"] != memory["P07"]["fingerprint"]


def test_a_folder_that_is_gone_is_forgotten(many):
    inbox, memory = many
    (inbox / "P07" / "a.tif").unlink()
    (inbox / "P07").rmdir()
    _, after = scan_inbox(inbox, memory, now=1, settle_seconds=0, taken=set(memory), looks=0)
    assert memory.keys() - after.keys() == {"P07"}
