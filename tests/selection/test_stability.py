import numpy as np
import pandas as pd
import pytest

from cellabel.errors import InputError
from cellabel.selection import stability


def study(losses=(0.0, 0.6), wells=4, days=(0, 30, 60, 90), noise=0.03, seed=0, per_plate=False):
    rng = np.random.default_rng(seed)
    rows = []
    for number, loss in enumerate(losses):
        slope = np.log(1 - loss) / 90
        for day in days:
            for well in range(wells):
                gfp = 100 * np.exp(slope * day + noise * rng.normal())
                plate = f"D{day}" if per_plate else "P1"
                rows.append((plate, f"W{well}", f"c{number}", day, 200, 200 * gfp))
    names = ["Metadata_Plate", "Metadata_Well", "Metadata_Clone", "Metadata_Day", "Nuclei_Count"]
    return pd.DataFrame(rows, columns=[*names, "Gfp_TotalIntensity"])


def test_a_clone_that_keeps_producing_is_stable_and_one_that_loses_is_not():
    found = stability(study()).set_index("Metadata_Clone")
    assert found.loc["c0", "loss"] == pytest.approx(0, abs=0.1) and found.loc["c0", "stable"]
    assert found.loc["c1", "loss"] == pytest.approx(0.6, abs=0.06) and not found.loc["c1", "stable"]
    assert (found["loss_upper"] > found["loss"]).all() and set(found["unit"]) == {"well"}


def test_a_clone_that_loses_too_much_is_seldom_called_stable_however_noisy():
    called = [
        stability(study(losses=(0.35,), wells=2, noise=0.4, seed=seed)).iloc[0]["stable"]
        for seed in range(60)
    ]
    assert np.mean(called) <= 0.1


def test_the_bound_covers_the_true_loss_as_often_as_it_promises():
    covered = []
    for seed in range(200):
        found = stability(study(losses=(0.2,) * 4, wells=3, noise=0.2, seed=seed), level=0.9)
        covered += list(found["loss_upper"] >= 0.2)
    assert 0.87 <= np.mean(covered) <= 0.93


def test_plates_of_one_day_each_make_days_the_units():
    found = stability(study(per_plate=True))
    assert set(found["unit"]) == {"day"} and found["n_wells"].tolist() == [16, 16]


def test_one_day_gives_no_slope_and_two_points_no_bound():
    one = stability(study(days=(30,))).iloc[0]
    assert np.isnan(one["loss_upper"]) and "one day" in one["reason"] and one["stable"] is None
    two = stability(study(losses=(0.1,), wells=1, days=(0, 90))).iloc[0]
    assert np.isnan(two["loss_upper"]) and "nothing is left" in two["reason"]
    with pytest.raises(InputError, match="Metadata_Day"):
        stability(study().drop(columns="Metadata_Day"))
