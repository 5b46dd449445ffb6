import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from cellabel.errors import InputError
from cellabel.evaluation import downstream_metrics
from cellabel.evaluation._resampling import hierarchical_weights, weighted_pearson, weighted_ranks


def tables(plates=4, wells=24, clones=8, seed=0, noise=5.0):
    rng = np.random.default_rng(seed)
    true = pd.DataFrame(
        [(f"P{p}", f"W{w:02}", f"c{w % clones}") for p in range(plates) for w in range(wells)],
        columns=["Metadata_Plate", "Metadata_Well", "Metadata_Clone"],
    )
    true["Nuclei_Count"] = rng.poisson(rng.uniform(40, 160, len(true)))
    predicted = true.assign(Nuclei_Count=true["Nuclei_Count"] + 2 + rng.normal(0, noise, len(true)))
    return true, predicted


def lin(x, y):
    return 2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_the_numbers_are_those_of_scipy_lin_and_bland_and_altman():
    true, predicted = tables()
    row = downstream_metrics(true, predicted.sample(frac=1, random_state=3)).iloc[0]
    x, y = true["Nuclei_Count"].to_numpy(float), predicted["Nuclei_Count"].to_numpy(float)
    assert row["feature"] == "Nuclei_Count" and row["n"] == 96 and row["reason"] == ""
    assert row["pearson"] == pytest.approx(pearsonr(x, y).statistic, abs=1e-12)
    assert row["spearman"] == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert row["concordance"] == pytest.approx(lin(x, y), abs=1e-12)
    assert row["bias"] == pytest.approx((y - x).mean())
    spread = 1.96 * (y - x).std(ddof=1)
    assert (row["loa_lower"], row["loa_upper"]) == pytest.approx((row["bias"] - spread, row["bias"] + spread))
    assert row["pearson_ci_lower"] <= row["pearson"] <= row["pearson_ci_upper"] <= 1
    assert row["spearman_ci_lower"] <= row["spearman"] <= row["spearman_ci_upper"] <= 1


def test_the_same_seed_gives_the_same_intervals_and_none_where_none_is_asked():
    true, predicted = tables()
    pd.testing.assert_frame_equal(downstream_metrics(true, predicted), downstream_metrics(true, predicted))
    assert downstream_metrics(true, predicted, n_bootstrap=0)["pearson_ci_lower"].isna().all()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_weighted_ranks_and_correlations_equal_those_of_the_drawn_units(data):
    values = np.array(data.draw(st.lists(st.integers(0, 5), min_size=3, max_size=12)), float)
    weights = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=values.size, max_size=values.size)), float
    )
    drawn = np.repeat(values, weights.astype(int))
    if np.unique(drawn).size > 1:
        other = np.repeat(np.arange(values.size) ** 2.0, weights.astype(int))
        ranks = weighted_ranks(values, weights[None])
        second = weighted_ranks(np.arange(values.size) ** 2.0, weights[None])
        expected = spearmanr(drawn, other).statistic
        np.testing.assert_allclose(weighted_pearson(ranks, second, weights[None])[0], expected, atol=1e-9)


def test_the_bootstrap_draws_plates_then_clones_then_wells():
    plate, clone = np.repeat([0, 1], 6), np.tile(np.repeat([0, 1, 2], 2), 2)
    weights, independent = hierarchical_weights([plate, clone], 4000, np.random.default_rng(0))
    assert independent == 2
    assert (weights.sum(axis=1) == 12).all()
    assert weights.mean() == pytest.approx(1, abs=0.02)
    # A plate is drawn 0, 1 or 2 times, and brings all of its weight along.
    assert set(weights[:, :6].sum(axis=1)) == {0, 6, 12}
    assert set(weights[:, :2].sum(axis=1)) <= {0, 2, 4, 6, 8, 10, 12}


def test_one_plate_resamples_its_clones_and_without_clones_its_wells():
    true, predicted = tables(plates=1)
    with_clones = downstream_metrics(true, predicted).iloc[0]
    sides = [table.drop(columns="Metadata_Clone") for table in (true, predicted)]
    without = downstream_metrics(*sides).iloc[0]
    assert np.isfinite([with_clones["pearson_ci_lower"], without["pearson_ci_lower"]]).all()
    assert with_clones["pearson_ci_lower"] != without["pearson_ci_lower"]


def test_intervals_of_few_wells_cover_what_they_promise():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(150):
        x, noise = rng.normal(size=(2, 8))
        true = pd.DataFrame({"Metadata_Well": [f"A{i:02}" for i in range(8)], "F": x})
        predicted = true.assign(F=0.8 * x + 0.6 * noise)
        row = downstream_metrics(true, predicted, by="Metadata_Well", n_bootstrap=400, level=0.9).iloc[0]
        covered.append(row["pearson_ci_lower"] <= 0.8 <= row["pearson_ci_upper"])
    assert np.mean(covered) >= 0.85


def test_constant_values_give_no_correlation_and_say_why():
    true, predicted = tables()
    rising = true.index * 1.0
    constant_true = true.assign(F=1.0), predicted.assign(F=rising)
    constant_predicted = true.assign(F=rising), predicted.assign(F=5.0)
    for side, pair in (("true", constant_true), ("predicted", constant_predicted)):
        row = downstream_metrics(*pair).set_index("feature").loc["F"]
        assert np.isnan([row["pearson"], row["spearman"], row["concordance"], row["pearson_ci_lower"]]).all()
        assert f"{side} values are constant" in row["reason"]
        assert np.isfinite(row["bias"])


def test_missing_values_are_left_out_in_pairs_and_too_few_say_so():
    true, predicted = tables()
    true.loc[:3, "Nuclei_Count"] = np.nan
    assert downstream_metrics(true, predicted).iloc[0]["n"] == 92
    few = downstream_metrics(true.iloc[4:6], predicted.iloc[4:6]).iloc[0]
    assert np.isnan(few["pearson"]) and "fewer than 3" in few["reason"]
    none = downstream_metrics(true.iloc[:3], predicted.iloc[:3]).iloc[0]
    assert none["n"] == 0 and "no unit" in none["reason"]


def test_a_feature_on_one_side_only_is_told_and_not_computed():
    true, predicted = tables()
    table = downstream_metrics(true.assign(Er_TotalArea=1.5), predicted).set_index("feature")
    assert table.loc["Er_TotalArea", "reason"] == "not measured on the predicted side"


def test_units_on_one_side_only_are_named():
    true, predicted = tables()
    with pytest.raises(InputError, match=r"only in the true table \(\('P0', 'W00'\)"):
        downstream_metrics(true, predicted.iloc[1:])
    with pytest.raises(InputError, match="only in the predicted table"):
        downstream_metrics(true.iloc[1:], predicted)


def test_doubled_units_and_missing_columns_are_refused():
    true, predicted = tables()
    with pytest.raises(InputError, match="several rows"):
        downstream_metrics(pd.concat([true, true.iloc[:1]]), predicted)
    with pytest.raises(InputError, match="Metadata_Plate"):
        downstream_metrics(true.drop(columns="Metadata_Plate"), predicted)


def test_the_order_of_rows_on_either_side_changes_nothing():
    true, predicted = tables(wells=6)
    expected = downstream_metrics(true, predicted, n_bootstrap=50)
    for seed in range(3):
        shuffled = (side.sample(frac=1, random_state=seed + i) for i, side in enumerate((true, predicted)))
        pd.testing.assert_frame_equal(
            downstream_metrics(*shuffled, n_bootstrap=50), expected, check_exact=True
        )


def test_empty_tables_have_no_units_and_say_so():
    true, predicted = tables()
    row = downstream_metrics(true.iloc[:0], predicted.iloc[:0]).iloc[0]
    assert row["feature"] == "Nuclei_Count" and row["n"] == 0 and "no unit" in row["reason"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"by": []}, "`by`"),
        ({"by": 3}, "`by`"),
        ({"n_bootstrap": -1}, "n_bootstrap"),
        ({"n_bootstrap": 2.5}, "n_bootstrap"),
        ({"level": 0.0}, "level"),
        ({"level": 1.0}, "level"),
        ({"level": "x"}, "level"),
        ({"predicted": [1, 2]}, "predicted side is a list"),
        ({"true": None}, "true side is a NoneType"),
    ],
)
def test_arguments_without_a_meaning_are_refused(options, named):
    true, predicted = tables()
    with pytest.raises(InputError, match=named):
        downstream_metrics(**{"true": true, "predicted": predicted} | options)
