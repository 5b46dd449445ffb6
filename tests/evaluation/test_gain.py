"""What one model gains over another, paired by well."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cellabel.errors import InputError
from cellabel.evaluation import gain_table


def errors(size, *, plates=6, wells=8, seed=0, shared=0.0):
    """Log errors of two metrics; `shared` is what makes a well hard for every model."""
    random, hard = np.random.default_rng(seed), np.random.default_rng(99)
    rows = []
    for plate in range(plates):
        for well in range(wells):
            common = shared * abs(hard.normal())
            for metric in ("Nuclei_Count", "Nuclei_TotalArea"):
                rows.append(
                    {
                        "plate": f"P{plate}",
                        "well": f"A{well:02d}",
                        "clone": f"c{plate}{well // 2}",
                        "metric": metric,
                        "log_error": -(common + size * abs(random.normal())),
                    }
                )
    return pd.DataFrame(rows)


def test_the_gain_is_the_mean_of_what_each_well_gains():
    before, after = errors(0.4, seed=1), errors(0.1, seed=2)
    table = gain_table(before, after.sample(frac=1.0, random_state=0))
    assert table["metric"].tolist() == ["Nuclei_Count", "Nuclei_TotalArea"]
    assert (table["n_wells"] == 48).all() and (table["n_plates"] == 6).all()
    for _, row in table.iterrows():
        mine = [one.loc[one["metric"] == row["metric"], "log_error"].abs().mean() for one in (before, after)]
        assert (row["before"], row["after"]) == pytest.approx(mine)
        assert row["gain"] == pytest.approx(mine[0] - mine[1])
        assert 0 < row["gain_ci_lower"] < row["gain"] < row["gain_ci_upper"]
        assert row["before_ci_lower"] < row["before"] < row["before_ci_upper"]


def test_what_makes_wells_hard_for_both_does_not_blur_the_gain():
    row = gain_table(errors(0.2, seed=1, shared=1.0), errors(0.05, seed=2, shared=1.0)).iloc[0]
    width = {name: row[f"{name}_ci_upper"] - row[f"{name}_ci_lower"] for name in ("before", "after", "gain")}
    assert width["gain"] < 0.4 * min(width["before"], width["after"])
    assert row["gain_ci_lower"] > 0


def test_the_same_model_gains_nothing():
    row = gain_table(errors(0.3), errors(0.3)).iloc[0]
    assert row["gain"] == row["gain_ci_lower"] == row["gain_ci_upper"] == 0


def test_without_resamples_or_with_few_wells_there_are_no_intervals():
    for table in (
        gain_table(errors(0.3), errors(0.2), n_bootstrap=0),
        gain_table(errors(0.3, plates=1, wells=2), errors(0.2, plates=1, wells=2)),
    ):
        assert table["gain"].notna().all() and table["gain_ci_lower"].isna().all()


def test_a_well_that_one_model_lacks_is_named():
    with pytest.raises(InputError, match="Nuclei_Count of well A00 of plate P0 was measured by one"):
        gain_table(errors(0.3), errors(0.2).iloc[1:])
