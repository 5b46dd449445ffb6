"""Intervals beside the numbers of a well table."""

import json

import numpy as np
import pandas as pd

from cellabel.evaluation import INTERVAL_NOTE, NOT_VALID, calibrate_intervals, with_intervals


def wells(plates=3, seed=0, per_plate=8):
    rng = np.random.default_rng(seed)
    keys = [(f"P{p}", f"A{w:02d}") for p in range(plates) for w in range(1, per_plate + 1)]
    table = pd.DataFrame(keys, columns=["Metadata_Plate", "Metadata_Well"])
    table["Nuclei_Count"] = rng.poisson(80, len(table)).astype(float)
    table["Nuclei_TotalArea"] = table["Nuclei_Count"] * 200
    return table


def predicted(table, seed=1):
    rng = np.random.default_rng(seed)
    factor = np.exp(rng.normal(0, 0.1, len(table)))
    return table.assign(
        Nuclei_Count=table["Nuclei_Count"] * factor, Nuclei_TotalArea=table["Nuclei_TotalArea"] * factor
    )


def test_each_number_has_its_ends_and_the_table_says_what_they_claim():
    intervals = json.loads(json.dumps(calibrate_intervals(wells(), predicted(wells()))))
    table = with_intervals(predicted(wells(1)), intervals)
    inside = (table["Nuclei_Count_IntervalLower"] < table["Nuclei_Count"]) & (
        table["Nuclei_Count"] < table["Nuclei_Count_IntervalUpper"]
    )
    assert inside.all() and "within these plates" in table[INTERVAL_NOTE].iloc[0]
    order = list(table)
    assert order.index("Nuclei_Count_IntervalLower") == order.index("Nuclei_Count") + 1
    many = calibrate_intervals(wells(9), predicted(wells(9)))
    assert with_intervals(wells(1), many)[INTERVAL_NOTE].iloc[0] == "90%, calibrated over 9 plates"


def test_on_a_drifted_plate_no_interval_is_valid_and_a_reversed_verdict_brings_it_back():
    intervals = calibrate_intervals(wells(), predicted(wells()))
    table = with_intervals(predicted(wells(1)), intervals)
    drifted = with_intervals(table, intervals, drifted=True)
    assert (drifted[INTERVAL_NOTE] == NOT_VALID).all()
    assert drifted[["Nuclei_Count_IntervalLower", "Nuclei_TotalArea_IntervalUpper"]].isna().all(axis=None)
    assert list(drifted) == list(table)
    pd.testing.assert_frame_equal(with_intervals(drifted, intervals), table)


def test_without_calibration_the_table_says_why_and_shows_no_ends():
    few = calibrate_intervals(wells(1, per_plate=4), predicted(wells(1, per_plate=4)))
    assert "4 wells" in few["Nuclei_Count"]["reason"]
    table = with_intervals(wells(1), few)
    assert "not calibrated: 4 wells" in table[INTERVAL_NOTE].iloc[0]
    assert not [name for name in table if "Interval" in name and name != INTERVAL_NOTE]
    assert (with_intervals(wells(1), {})[INTERVAL_NOTE] == "not calibrated").all()


def test_a_missing_number_has_no_interval():
    table = predicted(wells(1))
    table.loc[0, "Nuclei_TotalArea"] = np.nan
    found = with_intervals(table, calibrate_intervals(wells(), predicted(wells())))
    assert np.isnan(found.loc[0, "Nuclei_TotalArea_IntervalLower"])
    assert np.isfinite(found.loc[1:, "Nuclei_TotalArea_IntervalLower"]).all()
