import numpy as np
import pytest

from cellabel.drift import InstrumentWatch, OnlineMMD, PlateObservation, leave_plate_out_margin
from cellabel.errors import InputError

RUN_TIME, WELLS = 120, 12


def plates(effect, n_plates, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(WELLS, 8)) + effect * rng.normal(size=8) for _ in range(n_plates)]


def names(n_plates):
    return np.repeat([f"P{number}" for number in range(n_plates)], WELLS)


def test_plates_that_differ_raise_the_margin_and_plates_alike_hardly_do():
    alike, apart = (
        leave_plate_out_margin(np.concatenate(plates(effect, 4, 0)), names(4), expected_run_time=RUN_TIME)
        for effect in (0.0, 1.0)
    )
    assert 1.0 <= alike < 1.5 < apart


def test_one_plate_says_nothing_about_plates():
    assert leave_plate_out_margin(plates(0.0, 1, 0)[0], names(1), expected_run_time=RUN_TIME) == 1.0


def test_a_margin_silences_a_clean_plate_that_only_its_plate_effect_would_alarm():
    alarms = {"with": 0, "without": 0}
    for seed in range(3):
        *reference, new = plates(0.6, 5, seed)
        rows = np.concatenate(reference)
        detector = OnlineMMD(RUN_TIME, seed=0)
        detector.fit(rows)
        factor = leave_plate_out_margin(rows, names(4), expected_run_time=RUN_TIME)
        for which, margin in (("with", factor), ("without", 1.0)):
            watch = InstrumentWatch("scope")
            watch.start_epoch("nuclei", detector, "first", "v1", margin=margin)
            alarms[which] += watch.tick(_observation(new)).drift
    assert alarms["with"] < alarms["without"]


def test_a_margin_survives_the_commit_and_a_strong_drift():
    rows = np.concatenate(plates(0.0, 4, 1))
    detector = OnlineMMD(RUN_TIME, seed=0)
    detector.fit(rows)
    watch = InstrumentWatch("scope")
    watch.start_epoch("nuclei", detector, "first", "v1", margin=1.7)
    again = InstrumentWatch.from_bytes(watch.to_bytes(), {detector.fingerprint: detector})
    assert again.epochs["nuclei"].margin == 1.7
    verdict = again.tick(_observation(plates(0.0, 1, 2)[0] + 4.0))
    assert verdict.drift
    found = verdict.streams["nuclei"]
    assert found.statistic > found.threshold


def test_a_margin_below_one_is_refused():
    with pytest.raises(InputError, match="factor of 1 or more"):
        InstrumentWatch("scope").start_epoch("nuclei", None, "none", None, margin=0.5)


def _observation(rows):
    from datetime import UTC, datetime

    wells = [f"A{number:02d}" for number in range(1, len(rows) + 1)]
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return PlateObservation("P9", moment, moment, {"nuclei": (wells, rows)})
