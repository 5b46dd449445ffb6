"""Each plate ticks once, in the order of acquisition, whatever lands, is killed or comes late."""

from __future__ import annotations

import os
import random
import shutil
import signal
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cellabel.alerts import AlertLedger
from cellabel.drift import InstrumentWatch
from cellabel.loop.incidents import acknowledge_incident, advance_incidents, incidents
from cellabel.loop.streams import ACQUISITION, open_epoch
from cellabel.loop.watch import forget_pending, pending_verdicts, stored_verdict, tick_drift
from cellabel.stores import open_home, write_json

DRIFT = 5.0
KILLS = int(os.environ.get("CELLABEL_KILLS", "10"))


def watch_of(lab, slug="scope"):
    data = (lab.home.detectors / "watch" / f"{slug}.npz").read_bytes()
    names, _ = InstrumentWatch.needed(data)
    return InstrumentWatch.from_bytes(data, {name: lab.detector for name in names})


def same_state(one, other):
    """Whether the streams stand alike: arrays and plain values."""
    left, right = one.state_dict(), other.state_dict()
    names = [name for name in left if name.startswith("stream")]
    return all(np.array_equal(left[name], right[name]) for name in names) if names else False


def test_a_plate_ticks_once(lab):
    lab.plate("P1", 0)
    assert lab.tick() == {"P1": "acquisition=no nuclei=no"}
    before = lab.snapshot()
    assert lab.tick() == {}
    assert lab.snapshot() == before


def test_ten_plates_that_land_together_tick_in_the_order_of_acquisition(lab, make_lab):
    names = [f"P{k}" for k in range(10)]
    hours = dict(zip(names, random.Random(1).sample(range(50), 10), strict=True))
    for name in names:
        lab.plate(name, hours[name])
    in_order = sorted(names, key=hours.__getitem__)
    assert list(lab.tick()) == in_order
    one_by_one = make_lab("other")
    one_by_one.follow()
    one_by_one.follow(ACQUISITION)
    for name in in_order:
        one_by_one.plate(name, hours[name])
        assert list(one_by_one.tick()) == [name]
    assert same_state(watch_of(lab), watch_of(one_by_one))


def test_plates_without_a_time_tick_in_the_order_in_which_the_inbox_saw_them(lab):
    lab.plate("A", 2, acquired_at=None)
    lab.plate("B", 1)
    assert list(lab.tick()) == ["B", "A"]


def test_a_drifted_plate_is_told_with_its_first_well(lab):
    lab.plate("P1", 0)
    lab.plate("P2", 1, drift=[0.0] * 4 + [DRIFT] * 4)
    assert lab.tick() == {"P1": "acquisition=no nuclei=no", "P2": "acquisition=drift nuclei=drift"}
    said = stored_verdict(lab.home, "P2")
    assert said["drift"] and said["streams"]["nuclei"]["change_id"] == "P2/B01"
    assert said["streams"]["nuclei"]["first_well"] in ("B02", "B03", "B04")
    assert [alert.plate for alert in lab.ledger.alerts("drift")] == ["P2"]


def test_a_plate_in_flight_holds_back_later_ones_until_it_is_late(lab):
    lab.plate("P1", 0, embedded=False)
    lab.plate("P2", 0.2)
    assert lab.tick(0.9) == {}
    assert lab.tick(1.1) == {"P1": "acquisition=no nuclei=not_calibrated", "P2": "acquisition=no nuclei=no"}
    assert "no embeddings" in stored_verdict(lab.home, "P1")["streams"]["nuclei"]["reason"]


def test_a_plate_in_flight_does_not_hold_back_earlier_ones(lab):
    lab.plate("P1", 0)
    lab.plate("P2", 0.1, embedded=False)
    assert list(lab.tick(0.5)) == ["P1"]


def test_embeddings_that_come_after_the_plate_was_late_are_judged_once(lab):
    lab.plate("P1", 0, embedded=False, drift=DRIFT)
    assert lab.tick(2) == {"P1": "acquisition=drift nuclei=not_calibrated"}
    lab.embed("P1", drift=DRIFT)
    assert lab.tick(3) == {"P1": "acquisition=drift nuclei=drift"}
    assert lab.tick(4) == {}
    assert stored_verdict(lab.home, "P1")["streams"]["nuclei"]["status"] == "drift"
    assert len(incidents(lab.home)) == 1


def test_a_late_arrival_is_replayed_into_its_place(lab, make_lab):
    half = [0.0] * 6 + [DRIFT] * 2
    on_time = make_lab("on_time")
    on_time.follow()
    on_time.follow(ACQUISITION)
    for made, order in ((on_time, "ABC"), (lab, "ACB")):
        for name in order:
            made.plate(name, {"A": 0, "B": 1, "C": 2}[name], drift=half if name == "C" else 0.0)
            made.tick()
    assert watch_of(lab).plates == watch_of(on_time).plates == ["A", "B", "C"]
    assert same_state(watch_of(lab), watch_of(on_time))


def test_a_late_arrival_changes_the_verdicts_after_it_and_what_was_told_stays_told(lab):
    lab.plate("A", 0)
    lab.plate("C", 2, drift=DRIFT)
    assert lab.tick()["C"] == "acquisition=drift nuclei=drift"
    first = stored_verdict(lab.home, "C")["event_id"]
    lab.plate("B", 1, drift=DRIFT)
    changed = lab.tick()
    assert list(changed) == ["B", "C"]
    again = stored_verdict(lab.home, "C")
    assert again["event_id"] != first
    (incident,) = incidents(lab.home)
    assert incident.plates == ("C", "B") and first in incident.events
    assert {one.event_id for one in pending_verdicts(lab.home)} == {
        stored_verdict(lab.home, name)["event_id"] for name in "ABC"
    }


def test_a_prediction_by_another_version_never_ticks(lab):
    lab.plate("P1", 0)
    lab.tick()
    before = lab.snapshot()
    lab.embed("P1", version=2, drift=DRIFT)
    lab.embed("P1", drift=DRIFT)
    assert lab.tick() == {} and lab.snapshot() == before
    lab.follow(version=2)
    assert lab.tick() == {}
    assert watch_of(lab).epochs["nuclei"].number == 2 and watch_of(lab).plates == ["P1"]


def test_a_promotion_starts_a_new_epoch_that_judges_by_the_new_embeddings(lab):
    lab.plate("P1", 0)
    lab.tick()
    lab.follow(version=2)
    lab.plate("P2", 1, drift=DRIFT)
    assert lab.tick(1.5) == {}, "P2 is not predicted by the new champion yet"
    lab.embed("P2", version=2)
    assert lab.tick(1.6) == {"P2": "acquisition=drift nuclei=no"}
    said = stored_verdict(lab.home, "P2")
    assert (said["streams"]["nuclei"]["epoch"], said["streams"]["acquisition"]["epoch"]) == (2, 1)
    assert said["epochs"]["nuclei"] == "nuclei-v2-1"
    lab.tick(1.7)
    assert watch_of(lab).epochs["nuclei"].number == 2


def test_two_instruments_do_not_hear_of_each_other(lab, make_lab):
    alone = make_lab("alone")
    for made in (lab, alone):
        made.follow(instrument="scope")
        made.follow(ACQUISITION, instrument="scope")
    lab.follow(instrument="other")
    lab.follow(ACQUISITION, instrument="other")
    for hour in range(3):
        for made in (lab, alone):
            made.plate(f"S{hour}", hour)
        lab.plate(f"O{hour}", hour + 0.5, instrument="other", drift=DRIFT)
        lab.tick()
    alone.tick()
    assert watch_of(lab).plates == ["S0", "S1", "S2"] and watch_of(lab, "other").plates == ["O0", "O1", "O2"]
    assert same_state(watch_of(lab), watch_of(alone))
    assert {one.instrument for one in incidents(lab.home)} == {"other"}


def test_a_plate_of_an_instrument_without_a_reference_waits_for_one(lab):
    lab.plate("P1", 0, instrument="new scope")
    assert lab.tick() == {}
    lab.follow(instrument="new-scope")
    assert lab.tick() == {"P1": "nuclei=no"}


def test_plates_of_the_reference_never_tick(lab):
    for name in ("R1", "R2"):
        lab.plate(name, 0, drift=DRIFT)
    lab.plate("P1", 1)
    assert list(lab.tick()) == ["P1"]
    assert watch_of(lab).plates == ["P1"]


@pytest.mark.parametrize("status", ["quarantined", "retired", "arriving"])
def test_a_plate_that_is_not_accepted_never_ticks_until_it_is_released(lab, status):
    lab.plate("P1", 0, status=status, drift=DRIFT)
    lab.plate("P2", 1)
    assert list(lab.tick()) == ["P2"], "nor does it hold back others"
    lab.home.plates.update_record("P1", status="accepted")
    assert list(lab.tick()) == ["P1"]


def test_a_plate_whose_import_is_under_way_waits(lab):
    lab.plate("P1", 0)
    record = lab.home.plates.record("P1")
    seen = record.pop("first_seen")  # the import replaces the record, then says when the plate was seen
    write_json(lab.home.plates.root / "P1" / "record.json", record)
    assert lab.tick() == {}
    lab.home.plates.update_record("P1", first_seen=seen)
    assert list(lab.tick()) == ["P1"]


@pytest.mark.parametrize("width", [3, 7])
def test_embeddings_of_another_length_are_not_calibrated_and_crash_nothing(lab, width):
    lab.plate("P1", 0, embedded=False)
    lab.embed("P1", width=width)
    lab.plate("P2", 1)
    assert lab.tick() == {"P1": "acquisition=no nuclei=not_calibrated", "P2": "acquisition=no nuclei=no"}
    reason = stored_verdict(lab.home, "P1")["streams"]["nuclei"]["reason"]
    assert f"{width} columns" in reason and "the reference has 4" in reason
    before = lab.snapshot()
    assert lab.tick() == {} and lab.snapshot() == before


def test_embeddings_that_are_not_finite_are_not_calibrated(lab):
    lab.plate("P1", 0, embedded=False)
    lab.embed("P1", drift=[0.0] * 7 + [float("nan")])
    assert lab.tick() == {"P1": "acquisition=no nuclei=not_calibrated"}
    assert "NaN" in stored_verdict(lab.home, "P1")["streams"]["nuclei"]["reason"]
    assert lab.tick() == {}


def test_a_stream_without_a_detector_says_why(lab):
    lab.follow(detector=None, reason="8 reference wells are too few (at least 19)", version=2)
    lab.plate("P1", 0, embedded=False)
    lab.embed("P1", version=2)
    assert lab.tick() == {"P1": "acquisition=no nuclei=not_calibrated"}
    assert stored_verdict(lab.home, "P1")["streams"]["nuclei"]["reason"].startswith("8 reference wells")
    assert incidents(lab.home) == []


def test_a_champion_without_a_reference_is_told_on_every_plate_and_the_frozen_streams_go_on(lab):
    reason = "version 2 of nuclei came without embeddings of held-out wells"
    nothing = np.zeros(0)
    lab.follow(detector=None, reason=reason, version=2, plates=(), centre=nothing, spread=nothing)
    for name, hour in (("P1", 0), ("P2", 1)):
        lab.plate(name, hour, embedded=False, drift=DRIFT * hour)
        lab.embed(name, version=2, drift=DRIFT * hour)
    assert lab.tick() == {
        "P1": "acquisition=no nuclei=not_calibrated",
        "P2": "acquisition=drift nuclei=not_calibrated",
    }
    assert stored_verdict(lab.home, "P2")["streams"]["nuclei"]["reason"] == reason
    assert [one.streams for one in incidents(lab.home)] == [("acquisition",)]
    before = lab.snapshot()
    assert lab.tick() == {} and lab.snapshot() == before


def one_well(lab, plate, hour, drift=0.0):
    lab.plate(plate, hour, embedded=False)
    rows = lab.rows(plate, drift).iloc[:1]
    lab.home.tables.write(rows, ACQUISITION, plate)
    lab.home.tables.write(rows, "embeddings", "nuclei", "v1", plate)


@pytest.mark.parametrize(("drift", "said"), [(0.0, "no"), (4 * DRIFT, "drift")])
def test_a_plate_with_one_well_is_judged_by_it(lab, drift, said):
    one_well(lab, "P1", 0, drift)
    assert lab.tick() == {"P1": f"acquisition={said} nuclei={said}"}
    nuclei = stored_verdict(lab.home, "P1")["streams"]["nuclei"]
    assert (nuclei["n_wells"], nuclei["n_alarms"]) == (1, int(said == "drift"))
    assert nuclei["first_well"] == ("A01" if drift else None)
    assert [one.wells for one in incidents(lab.home)] == [("P1/A01",)] * int(said == "drift")
    lab.plate("P2", 1)
    assert lab.tick() == {"P2": "acquisition=no nuclei=no"}


def test_a_plate_whose_only_well_has_no_embedding_is_not_calibrated(lab):
    one_well(lab, "P1", 0)
    lab.home.tables.write(lab.rows("P1").iloc[:0], "embeddings", "nuclei", "v1", "P1")
    assert lab.tick() == {"P1": "acquisition=no nuclei=not_calibrated"}
    assert "no well" in stored_verdict(lab.home, "P1")["streams"]["nuclei"]["reason"]


def test_rows_are_standardised_by_the_epoch_and_taken_in_the_order_of_imaging(lab):
    centre, spread = np.full(4, 40.0), np.full(4, 10.0)
    lab.follow(version=2, centre=centre, spread=spread)
    lab.plate("P1", 0, embedded=False, drift=[DRIFT] * 4 + [0.0] * 4)
    rows = lab.rows("P1", [DRIFT] * 4 + [0.0] * 4)
    columns = [f"e{k:03d}" for k in range(4)]
    rows[columns] = rows[columns] * spread + centre
    lab.home.tables.write(rows.iloc[::-1], "embeddings", "nuclei", "v2", "P1")
    assert lab.tick() == {"P1": "acquisition=drift nuclei=drift"}
    nuclei, acquisition = (
        stored_verdict(lab.home, "P1")["streams"][one] for one in ("nuclei", "acquisition")
    )
    assert nuclei["first_well"] == acquisition["first_well"]
    assert nuclei["statistic"] == pytest.approx(acquisition["statistic"], rel=1e-9)


def test_a_verdict_is_pending_until_it_is_forgotten(lab):
    lab.plate("P1", 0)
    lab.plate("P2", 1)
    lab.tick()
    first, second = pending_verdicts(lab.home)
    assert (first.plate, second.plate) == ("P1", "P2")
    forget_pending(lab.home, first)
    forget_pending(lab.home, first)
    assert [one.plate for one in pending_verdicts(lab.home)] == ["P2"]


def test_a_saved_epoch_comes_back_as_it_was(lab):
    epoch = lab.follow(version=3, centre=np.arange(4.0), margin=1.25)
    back = open_epoch(lab.home, "scope", "nuclei")
    assert (back.epoch, back.plates, back.margin, back.model_version) == (
        "nuclei-v3-1",
        ("R1", "R2"),
        1.25,
        3,
    )
    assert np.array_equal(back.centre, epoch.centre) and back.detector.fingerprint == lab.detector.fingerprint
    assert open_epoch(lab.home, "scope", "er") is None


@pytest.fixture
def eventful(lab):
    """A tick that ends one incident, opens another that persists, and begins an epoch."""
    lab.plate("A1", 0, drift=DRIFT)
    lab.tick(1)
    acknowledge_incident(lab.home, incidents(lab.home)[0].id, "ada")
    advance_incidents(lab.home, lab.ledger, now=stamp(1))
    lab.follow(version=2)
    for name, hour, drift in (
        ("B1", 2, 0),
        ("B2", 3, 0),
        ("C1", 4, DRIFT),
        ("C2", 5, DRIFT),
        ("C3", 6, DRIFT),
    ):
        lab.plate(name, hour, drift=drift, embedded=False)
        lab.embed(name, version=2, drift=drift)
    return lab


def stamp(hour):
    return datetime(2025, 3, 3, 8, tzinfo=UTC) + timedelta(hours=hour)


def die_at(home, step, after):
    """In a fork of this process: tick, and be killed at the given replacement of a file."""
    pid = os.fork()
    if pid:
        return os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    replace, steps = os.replace, [0]

    def counted(*places):
        mine = steps[0] == step
        steps[0] += 1
        if mine and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*places)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted
    try:
        tick_drift(home, AlertLedger(home.alerts), now=stamp(50))
    finally:
        os._exit(0)


def steps_of(copy, monkeypatch):
    """How many files an undisturbed tick replaces."""
    counted = []
    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *places: (counted.append(places), replace(*places))[1])
        copy.tick(50)
    return len(counted)


def test_a_tick_that_is_killed_anywhere_and_run_again_leaves_what_an_undisturbed_one_leaves(
    eventful, make_lab, tmp_path, monkeypatch
):
    def copy(name):
        shutil.copytree(tmp_path / "home", tmp_path / name)
        return make_lab(name)

    undisturbed = copy("undisturbed")
    steps = steps_of(undisturbed, monkeypatch)
    expected = undisturbed.snapshot()
    assert steps > 15 and len(incidents(undisturbed.home)) == 2
    points = [(step, after) for step in range(steps) for after in (False, True)]
    for turn, (step, after) in enumerate(random.Random(KILLS).sample(points, min(KILLS, len(points)))):
        victim = copy(f"victim{turn}")
        assert die_at(victim.home, step, after), f"the tick ended before its step {step}"
        if turn % 2:
            die_at(victim.home, random.Random(turn).randrange(steps), after)
        victim.tick(50)
        left = victim.snapshot()
        assert left.keys() == expected.keys(), (step, after)
        assert [name for name in left if left[name] != expected[name]] == [], (step, after)
        assert victim.tick(51) == {}
        shutil.rmtree(tmp_path / f"victim{turn}")


def test_the_watch_outlives_the_process(lab, tmp_path):
    lab.plate("P1", 0)
    lab.tick()
    reopened = open_home(lab.home.settings)
    assert [one.plate for one in pending_verdicts(reopened)] == ["P1"]
    assert tick_drift(reopened, lab.ledger, now=stamp(101)) == []
