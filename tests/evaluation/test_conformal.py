"""Intervals cover what they say, and say what they do not cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel import InputError
from cellabel.evaluation import conformal_interval


def plates_of_wells(rng, plates, wells=24, share=0.3, spread=0.1):
    """Truth, prediction and plate of wells whose log error is partly the plate's."""
    names = np.repeat(np.arange(plates), wells)
    shift = rng.normal(0, spread * np.sqrt(share), plates)[names]
    truth = np.exp(rng.normal(5, 0.3, len(names)))
    return truth, truth * np.exp(shift + rng.normal(0, spread * np.sqrt(1 - share), len(names))), names


@pytest.mark.parametrize(
    ("level", "plates", "share"), [(0.9, 9, 0.0), (0.9, 9, 0.6), (0.9, 16, 0.3), (0.95, 19, 0.3)]
)
def test_wells_of_a_fresh_plate_are_covered_as_often_as_promised(level, plates, share):
    rng = np.random.default_rng(0)
    covered, widths, marginal = [], [], []
    for _ in range(150):
        interval = conformal_interval(*plates_of_wells(rng, plates, share=share), level=level)
        truth, predicted, _ = plates_of_wells(rng, 1, share=share)
        lower, upper = interval.interval(predicted)
        covered.append(np.mean((lower <= truth) & (truth <= upper)))
        widths.append(np.mean(upper - lower))
        marginal.append(np.subtract(*np.quantile(truth, [(1 + level) / 2, (1 - level) / 2])))
    assert interval.scope == "new plates"
    assert level - 0.02 <= np.mean(covered) <= level + 0.05
    assert np.mean(widths) <= 0.6 * np.mean(marginal)


def test_with_few_plates_the_interval_speaks_of_these_plates_only():
    rng = np.random.default_rng(1)
    interval = conformal_interval(*plates_of_wells(rng, 3))
    assert interval.scope == "these plates" and "within these plates" in interval.note
    assert conformal_interval(*plates_of_wells(rng, 9)).note == "90%, calibrated over 9 plates"
    assert conformal_interval(*plates_of_wells(rng, 9), level=0.95).scope == "these plates"


def test_on_a_drifted_plate_there_is_no_interval():
    interval = conformal_interval(*plates_of_wells(np.random.default_rng(2), 9))
    assert np.isnan(interval.interval([10.0, 20.0], drifted=True)).all()


def test_too_few_wells_are_refused():
    with pytest.raises(InputError, match=r"8 wells with a known truth .* at least 9"):
        conformal_interval(np.ones(8), np.ones(8), ["P1"] * 8)


def test_a_count_of_zero_has_an_interval_that_begins_at_zero():
    true, predicted = np.array([0, 10, 12] * 6), np.array([0, 11, 10] * 6)
    lower, upper = conformal_interval(true, predicted, ["P1"] * 18, floor=0.5).interval([0, 10])
    assert lower[0] == 0 and 0 < upper[0] < 1 and lower[1] < 10 < upper[1]


@given(st.integers(0, 2**16), st.floats(0.5, 0.87), st.floats(1e-3, 1e3))
@settings(max_examples=25, deadline=None)
def test_over_plates_a_higher_level_reaches_further_and_units_do_not_matter(seed, level, unit):
    true, predicted, names = plates_of_wells(np.random.default_rng(seed), 9, wells=4)
    narrow = conformal_interval(true, predicted, names, level=level)
    assert narrow.reach <= conformal_interval(true, predicted, names, level=level + 0.02).reach
    assert conformal_interval(true * unit, predicted * unit, names, level=level).reach == pytest.approx(
        narrow.reach
    )
