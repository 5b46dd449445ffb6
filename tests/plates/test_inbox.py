import os

import pytest

from cellabel.plates.inbox import scan_inbox


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
