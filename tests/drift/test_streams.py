import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel.drift import HarmModel, InstrumentWatch, OnlineMMD, PlateObservation
from cellabel.errors import InputError

WELLS = [f"{row}{column:02d}" for row in "ABCD" for column in range(1, 7)]
DAY = datetime(2026, 3, 1, 8, tzinfo=UTC)


@pytest.fixture(scope="module")
def detector():
    fitted = OnlineMMD(2000, 6)
    fitted.fit(np.random.default_rng(0).normal(size=(200, 4)))
    return fitted


def plate(number, shift=0.0, *, streams=("er",), seed=None, day=None, columns=4, name=None):
    rng = np.random.default_rng(100 + number if seed is None else seed)
    rows = rng.normal(size=(len(WELLS), columns)) * 0.9 + np.asarray(shift).reshape(-1, 1)
    moment = DAY + timedelta(days=number if day is None else day)
    return PlateObservation(
        name or f"P{number}",
        moment,
        moment + timedelta(hours=2),
        {stream: (WELLS, rows) for stream in streams},
    )


@pytest.fixture
def watch(detector):
    fresh = InstrumentWatch("scope", keep=5)
    fresh.start_epoch("er", detector, "first champion", "1")
    return fresh


def plain(verdict):
    return {**verdict.to_dict(), "replayed": ()}


def test_a_clean_plate_says_no_and_a_shifted_one_names_where_it_began(watch):
    assert watch.tick(plate(1)).streams["er"].status == "no"
    shift = np.where(np.arange(24) < 9, 0.0, 3.0)
    verdict = watch.tick(plate(2, shift))
    stream = verdict.streams["er"]
    assert verdict.drift and stream.status == "drift"
    assert WELLS.index(stream.first_well) in (9, 10, 11, 12)
    assert stream.change_id in [f"P2/{well}" for well in WELLS[7:12]]
    assert stream.statistic > stream.threshold and stream.n_alarms > 8


def test_a_change_that_began_in_an_earlier_plate_is_dated_there(watch):
    gentle = np.where(np.arange(24) < 23, 0.0, 1.2)
    assert not watch.tick(plate(1, gentle)).drift
    stream = watch.tick(plate(2, 1.2)).streams["er"]
    assert stream.status == "drift" and stream.change_id.startswith(("P1/D", "P2/A"))


def test_a_plate_seen_twice_ticks_the_detector_once(watch):
    first = watch.tick(plate(1, 2.5))
    before = watch.to_bytes()
    again = watch.tick(plate(1, 2.5, seed=9))
    assert again.repeated and plain(again) == {**plain(first), "repeated": True}
    assert watch.to_bytes() == before


def test_windows_are_emptied_after_a_plate_that_alarmed_so_that_the_next_answers_for_itself(watch):
    assert watch.tick(plate(1, 4.0)).drift
    assert not watch.tick(plate(2)).drift
    assert watch.tick(plate(3, 4.0)).drift
    assert watch.tick(plate(4, 4.0)).streams["er"].change_id.startswith("P4/")


def test_a_re_prediction_never_ticks_also_across_epochs(watch, detector):
    watch.tick(plate(1))
    epoch = watch.start_epoch("er", detector, "promotion of 2", "2")
    assert epoch.number == 2 and watch.epochs["er"].model_version == "2"
    assert watch.tick(plate(1, 5.0)).repeated
    assert epoch.detector.time == 0
    fresh = watch.tick(plate(2)).streams["er"]
    assert (fresh.epoch, fresh.model_version) == (2, "2") and epoch.detector.time == 24


def verdicts_in_order(detector, plates):
    ordered = InstrumentWatch("scope", keep=50)
    ordered.start_epoch("er", detector, "first champion", "1")
    said = {}
    for one in sorted(plates, key=lambda p: p.key):
        said[one.plate_id] = ordered.tick(one)
    return said


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(7)), st.sets(st.integers(0, 6), max_size=3))
def test_any_order_of_arrival_ends_in_the_verdicts_of_the_order_of_acquisition(detector, order, drifted):
    plates = [plate(n, 1.1 if n in drifted else 0.0) for n in range(7)]
    expected = verdicts_in_order(detector, plates)
    watch = InstrumentWatch("scope", keep=10)
    watch.start_epoch("er", detector, "first champion", "1")
    told = {}
    for number in order:
        verdict = watch.tick(plates[number])
        for one in (verdict, *verdict.replayed):
            told[one.plate] = plain(one)
    for name, verdict in expected.items():
        assert told[name]["event_id"] == verdict.event_id
        final = watch.tick(plates[int(name[1:])])
        assert final.repeated and final.streams == verdict.streams
    assert watch.plates == sorted(expected, key=lambda name: int(name[1:]))


def test_a_late_plate_replays_and_only_changed_verdicts_get_a_new_event(watch):
    gentle = np.where(np.arange(24) < 20, 0.0, 1.6)
    watch.tick(plate(1))
    early = watch.tick(plate(3, np.where(np.arange(24) < 2, 1.6, 0.0)))
    later = watch.tick(plate(4))
    assert not early.drift and not later.drift
    verdict = watch.tick(plate(2, gentle))
    changed = {one.plate: one for one in verdict.replayed}
    assert set(changed) <= {"P3"} and not verdict.repeated
    for one in changed.values():
        assert one.event_id != early.event_id and one.drift


def test_a_plate_older_than_everything_kept_is_put_before_the_oldest(watch):
    for number in range(10, 20):
        watch.tick(plate(number))
    verdict = watch.tick(plate(1, 3.0))
    assert verdict.drift and verdict.streams["er"].n_wells == 24
    assert watch.tick(plate(1)).repeated and watch.plates[0] == "P1"


def test_without_acquisition_time_the_first_sight_orders(watch):
    one = PlateObservation("X", None, DAY + timedelta(days=2), plate(2).rows)
    watch.tick(plate(3))
    watch.tick(one)
    assert watch.plates == ["X", "P3"]
    with pytest.raises(InputError, match="time zone"):
        watch.tick(PlateObservation("Y", datetime(2026, 3, 1), DAY, one.rows))


def test_not_calibrated_is_a_verdict_with_a_reason(watch, detector):
    watch.start_epoch("golgi", None, "Only 6 reference wells; 19 are needed.", None)
    both = watch.tick(plate(1, streams=("er", "golgi", "unheard")))
    assert (
        both.streams["golgi"].status == "not_calibrated"
        and "6 reference wells" in both.streams["golgi"].reason
    )
    assert both.streams["unheard"].status == "not_calibrated" and not both.drift
    shorter = watch.tick(plate(2, columns=3)).streams["er"]
    assert shorter.status == "not_calibrated" and "columns" in shorter.reason
    holes = plate(3)
    holes.rows["er"][1][2, 1] = np.nan
    assert "NaN" in watch.tick(holes).streams["er"].reason
    doubled = PlateObservation("P4", DAY, DAY, {"er": (["A01"] * 24, plate(4).rows["er"][1])})
    assert watch.tick(doubled).streams["er"].status == "not_calibrated"
    assert watch.tick(PlateObservation("P5", DAY, DAY, {})).streams["er"].reason
    assert watch.epochs["er"].detector.time == 24


def test_a_stream_that_comes_later_for_a_plate_is_judged_then(watch, detector):
    watch.start_epoch("golgi", detector, "first champion", "1")
    first = watch.tick(plate(1))
    assert first.streams["golgi"].status == "not_calibrated"
    second = watch.tick(plate(1, streams=("er", "golgi")))
    assert second.streams["golgi"].status == "no" and second.streams["er"] == first.streams["er"]
    assert second.event_id != first.event_id and not second.repeated
    assert watch.epochs["er"].detector.time == 24


def test_streams_that_share_a_detector_do_not_share_a_window(detector):
    watch = InstrumentWatch("scope")
    watch.start_epoch("er", detector, "one", "1")
    watch.start_epoch("golgi", detector, "one", "1")
    watch.tick(
        PlateObservation("P1", DAY, DAY, {"er": plate(1, 4.0).rows["er"], "golgi": plate(1).rows["er"]})
    )
    assert detector.time == 0
    verdict = watch.tick(plate(2, streams=("er", "golgi")))
    assert not verdict.drift


@pytest.mark.parametrize("cut", range(0, 8, 2))
def test_a_watch_cut_at_any_plate_and_read_back_goes_on_bit_by_bit(detector, cut):
    plates = [plate(n, 1.5 * (n == 3)) for n in (0, 1, 3, 2, 5, 6, 4, 7)]
    whole, parts = (InstrumentWatch("scope", keep=4) for _ in range(2))
    for one in (whole, parts):
        one.start_epoch("er", detector, "first", "1")
        one.start_epoch("golgi", None, "no champion", None)
    expected = [whole.tick(one) for one in plates]
    found = [parts.tick(one) for one in plates[:cut]]
    data = parts.to_bytes()
    assert InstrumentWatch.needed(data) == ({detector.fingerprint}, set())
    parts = InstrumentWatch.from_bytes(data, {detector.fingerprint: detector})
    assert parts.to_bytes() == data
    found += [parts.tick(one) for one in plates[cut:]]
    assert [plain(one) for one in found] == [plain(one) for one in expected]
    assert parts.to_bytes() == whole.to_bytes()


def test_an_uncommitted_tick_is_told_again_with_the_same_event(watch, detector):
    watch.tick(plate(1))
    committed = watch.to_bytes()
    lost = watch.tick(plate(2, 3.0))
    again = InstrumentWatch.from_bytes(committed, {detector.fingerprint: detector}).tick(plate(2, 3.0))
    assert plain(again) == plain(lost)


def test_damaged_bytes_and_missing_detectors_are_refused(watch, detector):
    watch.tick(plate(1))
    data = watch.to_bytes()
    with pytest.raises(InputError, match="was not given"):
        InstrumentWatch.from_bytes(data, {})
    for broken in (b"", data[:-40], data[:300] + b"y" + data[301:]):
        with pytest.raises(InputError):
            InstrumentWatch.from_bytes(broken, {detector.fingerprint: detector})


def test_harm_is_estimated_beside_difference(detector):
    rng = np.random.default_rng(4)
    shifts = np.repeat([0.0, 1.0, 2.0, 4.0], 30)
    corrupted = rng.normal(size=(120, 4)) + shifts[:, None]
    harm = HarmModel.fit(rng.normal(size=(100, 4)), corrupted, 0.05 * shifts + rng.uniform(0, 0.01, 120))
    watch = InstrumentWatch("scope")
    watch.start_epoch("er", detector, "first", "1", harm=harm)
    harmful = watch.tick(plate(1, 3.5)).streams["er"]
    assert harmful.status == "drift" and harmful.harm.verdict == "harmful" and harmful.harm.n == 24
    assert watch.tick(plate(2)).streams["er"].harm.verdict == "harmless"
    data = watch.to_bytes()
    with pytest.raises(InputError, match="harm model"):
        InstrumentWatch.from_bytes(data, {detector.fingerprint: detector})
    loaded = InstrumentWatch.from_bytes(data, {detector.fingerprint: detector}, {harm.fingerprint: harm})
    assert plain(loaded.tick(plate(3, 2.0))) == plain(watch.tick(plate(3, 2.0)))


def test_verdicts_are_provisional_below_nineteen_reference_plates(detector):
    watch = InstrumentWatch("scope")
    assert watch.start_epoch("er", detector, "one", "1").provisional
    rng = np.random.default_rng(0)
    grouped = OnlineMMD(500, 6)
    grouped.fit(rng.normal(size=(19 * 8, 4)), groups=np.repeat(np.arange(19), 8))
    assert not watch.start_epoch("er", grouped, "two", "2").provisional
    assert watch.start_epoch("er", grouped, "three", "2", provisional=True).provisional


def test_ten_thousand_plates_of_history_cost_little(detector):
    watch = InstrumentWatch("scope")
    watch.start_epoch("er", detector, "first", "1")
    rows = {"er": (WELLS[:2], np.zeros((2, 4)))}
    for number in range(10_000):
        moment = DAY + timedelta(minutes=number)
        watch.tick(PlateObservation(f"Plate-{number:06d}", moment, moment, rows))
    data = watch.to_bytes()
    assert len(data) < 5e6
    started = time.process_time()
    loaded = InstrumentWatch.from_bytes(data, {detector.fingerprint: detector})
    assert loaded.tick(plate(99, 3.0)).drift
    loaded.to_bytes()
    assert time.process_time() - started < 2.0
