"""The promotion gate: what it promotes, what it refuses and how often it errs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel import InputError
from cellabel.evaluation import GateSettings, decide, well_errors
from cellabel.evaluation._bounds import (
    group_means,
    plate_lower_bounds,
    stratified_bounds,
    t_bound,
    upper_bounds,
)

METRICS = ("Nuclei_Count", "Nuclei_TotalArea", "Nuclei_TotalIntensity", "Nuclei_MeanIntensity")
FAST = GateSettings(n_resamples=400)


def errors(rng, *, plates=6, wells=8, size=0.05, extra=0.0, seed_truth=0, plate_sd=0.01, condition=None):
    """Errors of a model whose typical log error is `size`, systematically larger by `extra`."""
    truth = np.random.default_rng(seed_truth)
    rows = []
    for plate in range(plates):
        levels = truth.normal(0, 0.3, wells // 2)
        shift = rng.normal(0, plate_sd, len(METRICS))
        for well in range(wells):
            for metric, moved in zip(METRICS, shift, strict=True):
                magnitude = abs(rng.normal(0, size)) + extra + moved
                rows.append(
                    {
                        "plate": f"P{plate:02d}",
                        "well": f"A{well + 1:02d}",
                        "clone": f"C{well // 2}",
                        "metric": metric,
                        "log_error": magnitude * rng.choice([-1, 1]),
                        "log_true": levels[well // 2] + truth.normal(0, 0.1),
                    }
                )
    table = pd.DataFrame(rows)
    return table if condition is None else table.assign(condition=condition)


def table(counts, plate="P1", **columns):
    wells = [f"A{index + 1:02d}" for index in range(len(counts))]
    return pd.DataFrame({"Metadata_Plate": plate, "Metadata_Well": wells, "Nuclei_Count": counts, **columns})


def test_the_log_error_is_the_log_of_the_ratio():
    found = well_errors(table([100, 50]), table([110, 25]), ["Nuclei_Count"])
    np.testing.assert_allclose(found["log_error"], [np.log(1.1), -np.log(2)])
    assert list(found.columns) == ["plate", "well", "clone", "metric", "log_error", "log_true"]


def test_a_well_without_objects_has_a_finite_error_and_two_such_wells_agree():
    found = well_errors(table([0, 0, 10]), table([0, 10, 0]), ["Nuclei_Count"])
    np.testing.assert_allclose(found["log_error"], [0, np.log(20), -np.log(20)])


def test_negative_and_missing_predicted_intensities_are_floored_and_missing_truth_is_left_out():
    true = table([1, 1, 1, 1], Nuclei_MeanIntensity=[2.0, 2.0, 2.0, np.nan])
    predicted = table([1, 1, 1, 1], Nuclei_MeanIntensity=[-3.0, np.nan, 2.0, 5.0])
    found = well_errors(true, predicted, ["Nuclei_MeanIntensity"])
    np.testing.assert_allclose(found["log_error"], [np.log(0.01), np.log(0.01), 0])


def test_an_infinite_prediction_stays_infinite_and_is_refused():
    true = pd.concat([table([10] * 8, plate=f"P{index}") for index in range(4)])
    good = well_errors(true, true.assign(Nuclei_Count=11.0), ["Nuclei_Count"])
    predicted = true.assign(Nuclei_Count=10.0)
    predicted.iloc[3, 2] = np.inf
    bad = well_errors(true, predicted, ["Nuclei_Count"])
    decision = decide(good, bad)
    assert not decision.promote and "finite" in decision.reason
    assert not decide(None, bad).promote


def test_wells_on_one_side_only_are_named():
    with pytest.raises(InputError, match=r"Well A03 of plate P1 is in the predicted table only"):
        well_errors(table([1, 2]), table([1, 2, 3]), ["Nuclei_Count"])


def test_a_well_with_two_rows_is_refused():
    twice = pd.concat([table([1]), table([2])])
    with pytest.raises(InputError, match="several rows"):
        well_errors(twice, table([1]), ["Nuclei_Count"])


def test_a_missing_metric_is_named():
    with pytest.raises(InputError, match="no column Nuclei_TotalArea"):
        well_errors(table([1]), table([1]), ["Nuclei_TotalArea"])


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=8), st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_units_of_an_intensity_do_not_matter(values, unit):
    true = table([1] * len(values), Nuclei_TotalIntensity=values)
    predicted = table([1] * len(values), Nuclei_TotalIntensity=values[::-1])
    scaled = [
        frame.assign(Nuclei_TotalIntensity=frame["Nuclei_TotalIntensity"] * unit)
        for frame in (true, predicted)
    ]
    plain = well_errors(true, predicted, ["Nuclei_TotalIntensity"])["log_error"]
    np.testing.assert_allclose(well_errors(*scaled, ["Nuclei_TotalIntensity"])["log_error"], plain, atol=1e-9)


def test_a_model_that_is_better_is_promoted_with_a_sentence_and_a_table():
    rng = np.random.default_rng(0)
    decision = decide(errors(rng, size=0.10), errors(rng, size=0.04))
    assert decision.promote
    assert decision.reason.startswith("Promoted: ") and decision.reason.endswith(".")
    assert set(decision.table["metric"]) == {*METRICS, "all"}
    assert set(decision.table["verdict"]) == {"not worse", "better"}
    assert (decision.table["n_plates"] == 6).all() and (decision.table["n_wells"] == 48).all()


def test_the_same_model_never_replaces_itself():
    same = errors(np.random.default_rng(0))
    decision = decide(same, same)
    assert not decision.promote and "fall of at least 10%" in decision.reason


def test_a_model_that_is_robust_and_not_worse_on_clean_wells_is_promoted():
    rng = np.random.default_rng(1)
    clean = errors(rng, size=0.05, plate_sd=0.002)
    same = clean.assign(log_error=clean["log_error"] * 1.02)
    blurred = [errors(rng, size=size, condition="defocus 4 µm") for size in (0.3, 0.1)]
    decision = decide(clean, same, champion_corrupted=blurred[0], challenger_corrupted=blurred[1])
    assert decision.promote, decision.reason
    assert "defocus 4 µm" in decision.reason


def test_robustness_bought_with_clean_accuracy_is_refused():
    rng = np.random.default_rng(1)
    clean, worse = errors(rng, size=0.05), errors(rng, size=0.05, extra=0.05)
    blurred = [errors(rng, size=size, condition="defocus") for size in (0.3, 0.1)]
    decision = decide(clean, worse, champion_corrupted=blurred[0], challenger_corrupted=blurred[1])
    assert not decision.promote and "on clean wells Nuclei_Count may be worse" in decision.reason


def test_a_mean_loss_below_delta_is_refused_while_its_bound_lies_above():
    rows = [(f"P{plate}", f"A{well:02d}") for plate in range(4) for well in range(1, 9)]
    old = pd.DataFrame(rows, columns=["plate", "well"]).assign(
        clone=pd.NA, metric="Nuclei_Count", log_error=0.1, log_true=5.0
    )
    uneven = old.assign(log_error=np.where(old["plate"].isin(["P0", "P1"]), 0.1, 0.13))  # 0.015 in the mean
    even = old.assign(log_error=0.115)
    blurred = [old.assign(log_error=size, condition="defocus") for size in (0.5, 0.1)]
    verdicts = [
        decide(old, new, champion_corrupted=blurred[0], challenger_corrupted=blurred[1])
        for new in (uneven, even)
    ]
    assert [verdict.promote for verdict in verdicts] == [False, True]
    assert "clean wells Nuclei_Count may be worse by 0.035 (allowed 0.020)" in verdicts[0].reason


def test_harm_under_another_condition_is_refused():
    rng = np.random.default_rng(2)
    clean = errors(rng, plate_sd=0.002)
    old = pd.concat([errors(rng, size=0.3, condition="defocus"), errors(rng, size=0.05, condition="lamp")])
    new = pd.concat([errors(rng, size=0.1, condition="defocus"), errors(rng, size=0.3, condition="lamp")])
    decision = decide(clean, clean, champion_corrupted=old, challenger_corrupted=new, improve=["defocus"])
    assert not decision.promote and "on lamp" in decision.reason and "on defocus" not in decision.reason


def test_one_plate_that_gets_much_worse_is_refused():
    rng = np.random.default_rng(3)
    old, new = errors(rng, plates=12, size=0.2), errors(rng, plates=12, size=0.02)
    spoilt = new["plate"] == "P05"
    new.loc[spoilt, "log_error"] = old.loc[spoilt, "log_error"].abs() + 0.1
    decision = decide(old, new, settings=FAST)
    assert not decision.promote and "on plate P05" in decision.reason


def robust(seed, *, plates=6, wells=8, other=0.1):
    """Errors of two models that differ under defocus only, where the second is better."""
    rng = np.random.default_rng(seed)
    clean = errors(rng, plates=plates, wells=wells, plate_sd=0.002)
    sides = [
        pd.concat(
            errors(rng, plates=plates, wells=wells, size=size, condition=condition)
            for condition, size in (("defocus", defocus), ("lamp", other))
        )
        for defocus in (0.3, 0.1)
    ]
    return clean, clean, *sides


def judge_robust(clean, same, old, new):
    return decide(
        clean, same, champion_corrupted=old, challenger_corrupted=new, improve=["defocus"], settings=FAST
    )


@pytest.mark.parametrize("condition", ["defocus", "lamp"])
def test_one_plate_that_gets_much_worse_under_a_corruption_is_refused(condition):
    clean, same, old, new = robust(3, plates=12)
    spoilt = ((new["plate"] == "P05") & (new["condition"] == condition)).to_numpy()
    new.loc[spoilt, "log_error"] = old.loc[spoilt, "log_error"].abs() + 0.4
    decision = judge_robust(clean, same, old, new)
    assert not decision.promote
    assert f"on plate P05 under {condition} Nuclei_Count is worse by at least" in decision.reason
    verdicts = decision.table.set_index(["condition", "metric"])["verdict"]
    assert verdicts[condition, "Nuclei_Count"] == "worse on a plate"


def test_the_noise_of_small_plates_under_a_corruption_does_not_refuse_a_better_model():
    decisions = [judge_robust(*robust(seed)) for seed in range(12)]
    assert all(decision.promote for decision in decisions)
    beyond = [
        (table["worst_plate_difference"] > 3 * table["delta"])[table["condition"] == "lamp"].any()
        for table in (decision.table for decision in decisions)
    ]
    assert any(beyond), "estimates beyond the limit occur by noise alone"


def test_three_plates_are_too_few_for_an_automatic_promotion():
    rng = np.random.default_rng(4)
    decision = decide(errors(rng, plates=3, wells=12, size=0.2), errors(rng, plates=3, wells=12, size=0.02))
    assert not decision.promote and "3 plate(s) and 36 wells are too few" in decision.reason


def test_with_one_plate_and_lowered_settings_wells_are_the_units_and_a_warning_says_so():
    rng = np.random.default_rng(5)
    low = GateSettings(min_plates=1, min_wells=8)
    decision = decide(
        errors(rng, plates=1, wells=16, size=0.2), errors(rng, plates=1, wells=16, size=0.02), settings=low
    )
    assert decision.promote
    assert any("within this plate" in warning for warning in decision.warnings)


def test_wells_may_be_made_the_units_of_several_plates_visibly():
    rng = np.random.default_rng(5)
    low = GateSettings(min_plates=1, min_wells=8, units="wells")
    decision = decide(
        errors(rng, plates=2, wells=8, size=0.2), errors(rng, plates=2, wells=8, size=0.02), settings=low
    )
    assert decision.promote and any("within these plates" in warning for warning in decision.warnings)


def test_a_first_model_is_promoted_when_it_is_plausible_and_refused_when_it_is_not():
    rng = np.random.default_rng(6)
    assert decide(None, errors(rng, plates=1)).promote
    hopeless = decide(None, errors(rng, plates=1, extra=2.0))
    assert not hopeless.promote and "off by a factor of 7" in hopeless.reason


def without(table, metric, *, but=()):
    """The table with a metric on some plates only."""
    return table[(table["metric"] != metric) | table["plate"].isin(but)]


def test_a_first_model_on_a_single_well_is_promoted_with_a_warning_that_counts_wells():
    one = errors(np.random.default_rng(6), plates=1, wells=2)
    decision = decide(None, one[one["well"] == "A01"], metrics=METRICS)
    assert decision.promote
    (said,) = decision.warnings
    assert "1 plate(s) and 1 well(s), fewer than the 4 plates and 24 wells" in said
    (few_wells,) = decide(None, errors(np.random.default_rng(6), plates=4, wells=2)).warnings
    assert "4 plate(s) and 8 well(s)" in few_wells
    assert decide(None, errors(np.random.default_rng(6), plates=4, wells=6)).warnings == ()


def test_a_first_model_with_a_primary_metric_that_no_well_has_is_refused():
    new = without(errors(np.random.default_rng(6)), METRICS[2])
    decision = decide(None, new, metrics=METRICS)
    assert not decision.promote and f"{METRICS[2]} could be measured in no held-out well" in decision.reason
    silent = errors(np.random.default_rng(6)).assign(log_error=np.nan)
    assert not decide(None, silent, metrics=METRICS).promote


def test_a_metric_of_a_first_model_on_too_few_wells_is_named_in_a_warning():
    new = without(errors(np.random.default_rng(6)), METRICS[1], but=["P02"])
    (said,) = decide(None, new, metrics=METRICS).warnings
    assert said.startswith(f"{METRICS[1]} of the first model was judged on 1 plate(s) and 8 well(s)")


@pytest.mark.parametrize("but", [(), ("P00",), ("P00", "P01", "P02")])
def test_a_primary_metric_on_too_few_plates_is_no_automatic_promotion_and_named(but):
    rng = np.random.default_rng(10)
    old, new = (without(errors(rng, size=size), METRICS[0], but=but) for size in (0.2, 0.02))
    decision = decide(old, new, metrics=METRICS)
    counted = f"{METRICS[0]} was measured on {len(but)} plate(s) and {8 * len(but)} well(s)"
    assert not decision.promote and f"no automatic promotion, because {counted}" in decision.reason
    assert METRICS[1] not in decision.reason


def test_a_primary_metric_that_is_nan_on_most_plates_is_no_automatic_promotion():
    rng = np.random.default_rng(10)
    old, new = errors(rng, size=0.2), errors(rng, size=0.02)
    lost = (old["metric"] == METRICS[0]) & (old["plate"] != "P00")
    old.loc[lost, "log_error"] = np.nan
    decision = decide(old, new)
    assert not decision.promote
    assert f"{METRICS[0]} was measured on 1 plate(s) and 8 well(s)" in decision.reason


def test_a_primary_metric_on_too_few_wells_of_a_condition_to_improve_is_no_automatic_promotion():
    rng = np.random.default_rng(10)
    clean = errors(rng, plate_sd=0.002)
    old, new = (
        without(errors(rng, size=size, condition="defocus"), METRICS[3], but=["P01"]) for size in (0.3, 0.05)
    )
    decision = decide(clean, clean, champion_corrupted=old, challenger_corrupted=new)
    assert not decision.promote and f"{METRICS[3]} was measured on 1 plate(s)" in decision.reason
    assert "(defocus;" in decision.reason


def test_a_metric_on_a_single_plate_under_lowered_settings_is_told():
    rng = np.random.default_rng(10)
    low = GateSettings(min_plates=1, min_wells=8)
    old, new = (without(errors(rng, size=size), METRICS[0], but=["P00"]) for size in (0.2, 0.02))
    decision = decide(old, new, settings=low)
    assert decision.promote
    assert any(f"Wells were the units of {METRICS[0]}" in warning for warning in decision.warnings)


def test_each_use_of_the_test_wells_halves_alpha_and_five_uses_exhaust_them():
    rng = np.random.default_rng(7)
    old, new = errors(rng, size=0.2), errors(rng, size=0.02)
    first, second, last = (decide(old, new, reuse=reuse) for reuse in (0, 1, 5))
    assert (first.alpha, second.alpha) == (0.05, 0.025)
    bounds = [decision.table["bound"].iloc[-1] for decision in (first, second)]
    assert bounds[0] < bounds[1] < 0
    assert first.promote and second.promote and not last.promote
    assert "fresh stained plate" in last.reason


def test_the_margin_is_a_quarter_of_the_replicate_spread_and_capped():
    rng = np.random.default_rng(8)
    old, new = errors(rng, plates=20), errors(rng, plates=20)
    margins = decide(old, new, settings=FAST).table.set_index("metric")["delta"]
    assert margins["Nuclei_Count"] == 0.02
    assert margins["Nuclei_TotalIntensity"] == pytest.approx(0.25 * 0.1, rel=0.15)
    alone = decide(old.assign(clone=pd.NA), new.assign(clone=pd.NA), settings=FAST)
    assert alone.table.set_index("metric")["delta"]["Nuclei_TotalIntensity"] == 0.05
    assert any("margin is its cap" in warning for warning in alone.warnings)
    given_margin = FAST.model_copy(update={"deltas": {"Nuclei_Count": 0.007}})
    assert decide(old, new, settings=given_margin).table.set_index("metric")["delta"]["Nuclei_Count"] == 0.007


def test_different_wells_on_the_two_sides_are_refused_by_name():
    rng = np.random.default_rng(9)
    old, new = errors(rng), errors(rng)
    with pytest.raises(
        InputError, match=r"plate P00, well A01 \(clean\) was measured for the challenger only"
    ):
        decide(old.iloc[4:], new)


def test_errors_against_different_truth_are_not_compared():
    rng = np.random.default_rng(9)
    old, new = errors(rng, size=0.2), errors(rng, size=0.02)
    moved = old.copy()
    moved.loc[(old["plate"] == "P03") & (old["well"] == "A02"), "log_true"] += 0.01
    with pytest.raises(InputError, match=r"plate P03, well A02 .*Measure the champion again"):
        decide(moved, new)
    assert decide(old.assign(log_true=old["log_true"] + 1e-7), new).promote, "rounding is no other truth"


def test_corrupted_wells_against_different_truth_are_not_compared():
    rng = np.random.default_rng(9)
    clean = errors(rng, plate_sd=0.002)
    old, new = (errors(rng, size=size, condition="defocus") for size in (0.3, 0.05))
    other = old.assign(log_true=old["log_true"] + 3)
    with pytest.raises(InputError, match="different truth"):
        decide(clean, clean, champion_corrupted=other, challenger_corrupted=new)


def test_an_unknown_condition_to_improve_is_refused():
    rng = np.random.default_rng(9)
    with pytest.raises(InputError, match="'snow'"):
        decide(errors(rng), errors(rng), improve=["snow"])


def test_corrupted_wells_of_one_model_only_are_refused():
    rng = np.random.default_rng(9)
    with pytest.raises(InputError, match="Only one of the two models"):
        decide(errors(rng), errors(rng), champion_corrupted=errors(rng, condition="defocus"))


def test_no_well_at_all_is_refused():
    rng = np.random.default_rng(9)
    with pytest.raises(InputError, match="no held-out well"):
        decide(None, errors(rng).iloc[:0])


@given(st.integers(0, 2**16))
@settings(max_examples=8, deadline=None)
def test_the_order_of_rows_and_the_sign_of_errors_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    old, new = errors(rng, plates=11, wells=4), errors(rng, plates=11, wells=4, size=0.03)
    plain = decide(old, new, settings=FAST)
    turned = decide(
        old.sample(frac=1, random_state=seed),
        new.sample(frac=1, random_state=seed + 1).assign(log_error=lambda rows: -rows["log_error"]),
        settings=FAST,
    )
    assert plain.promote == turned.promote
    pd.testing.assert_frame_equal(plain.table, turned.table)


@given(st.integers(0, 2**16), st.floats(0.0, 0.2))
@settings(max_examples=15, deadline=None)
def test_a_smaller_error_everywhere_is_never_judged_worse(seed, gain):
    rng = np.random.default_rng(seed)
    old, new = errors(rng, size=0.1), errors(rng, size=0.08)
    closer = new.assign(log_error=np.sign(new["log_error"]) * np.maximum(new["log_error"].abs() - gain, 0))
    before, after = decide(old, new).table, decide(old, closer).table
    assert (after["mean_difference"] <= before["mean_difference"] + 1e-12).all()


def share_promoted(make, runs, **keywords):
    return np.mean([decide(*make(np.random.default_rng(run)), **keywords).promote for run in range(runs)])


@pytest.mark.parametrize(("plates", "wells", "plate_sd"), [(4, 8, 0.02), (12, 4, 0.01)])
def test_an_equal_model_is_promoted_at_most_once_in_twenty(plates, wells, plate_sd):
    def equal(rng):
        return tuple(errors(rng, plates=plates, wells=wells, size=0.05, plate_sd=plate_sd) for _ in range(2))

    runs = 60
    limit = 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    assert share_promoted(equal, runs, settings=FAST) <= limit


def test_a_halved_error_is_found_nine_times_in_ten():
    def halved(rng):
        return errors(rng, plates=6, size=0.12, plate_sd=0.01), errors(
            rng, plates=6, size=0.06, plate_sd=0.01
        )

    assert share_promoted(halved, 30, settings=FAST) >= 0.9


def test_a_loss_of_delta_on_clean_wells_passes_at_most_once_in_twenty():
    margins = GateSettings(n_resamples=400, deltas=dict.fromkeys(METRICS, 0.02))

    def worse_by_delta(rng):
        return errors(rng, size=0.05, plate_sd=0.02), errors(rng, size=0.05, extra=0.02, plate_sd=0.02)

    def promoted(run):
        rng = np.random.default_rng(run)
        blurred = [errors(rng, size=size, condition="defocus") for size in (0.4, 0.1)]
        old, new = worse_by_delta(rng)
        return decide(
            old, new, settings=margins, champion_corrupted=blurred[0], challenger_corrupted=blurred[1]
        ).promote

    assert np.mean([promoted(run) for run in range(30)]) <= 0.05


@pytest.mark.parametrize(("plates", "spread"), [(5, 0.5), (10, 0.0), (10, 0.5), (20, 0.5)])
def test_the_bound_lies_below_the_true_mean_once_in_twenty(plates, spread):
    rng = np.random.default_rng(plates)
    labels = np.repeat(np.arange(plates), 8).astype(str)
    clones = np.tile(np.repeat(np.arange(4), 2), plates).astype(str)
    columns = 800  # replicates side by side: one bootstrap for all of them
    values = rng.normal(0, 1, (len(labels), columns)) + spread * np.repeat(
        rng.normal(0, 1, (plates, columns)), 8, axis=0
    )
    bounds = upper_bounds(values, labels, clones, 0.05, n_resamples=400)
    assert 0.03 <= np.mean(bounds < 0) <= 0.075


def test_the_bound_of_a_few_plates_is_students_t_on_plate_means():
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(12, 1)), np.repeat(["a", "b", "c"], 4)
    means = group_means(values, labels)[:, 0]
    np.testing.assert_allclose(means, [values[labels == name].mean() for name in "abc"])
    expected = means.mean() + 2.919985580353726 * means.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(upper_bounds(values, labels, labels, 0.05), expected)


def test_without_spread_units_there_is_no_bound():
    assert t_bound(np.array([1.0, np.nan]), 0.05) == np.inf
    assert upper_bounds(np.ones((3, 1)), np.array(["a"] * 3), np.array(["c"] * 3), 0.05)[0] == np.inf
    assert stratified_bounds(np.ones((2, 1)), np.array(["a", "b"]), 0.05)[0] == np.inf


def test_plates_weigh_the_same_whatever_their_number_of_wells():
    values = np.array([[0.0]] * 90 + [[1.0]] * 10)
    labels = np.array(["big"] * 90 + ["small"] * 10)
    assert group_means(values, labels).mean() == 0.5
    assert stratified_bounds(values, labels, 0.05)[0] == 0.5


def test_the_lower_bound_of_a_plate_lies_above_its_mean_once_in_twenty():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 8).astype(str)
    effects = np.repeat(rng.normal(size=6), 8)
    bounds = [plate_lower_bounds(effects + rng.normal(size=48), labels, 0.05) for _ in range(1000)]
    assert np.mean(bounds > effects[::8]) == pytest.approx(0.05, abs=0.01)


def test_plates_of_a_single_well_have_no_noise_to_allow_for():
    values, labels = np.array([0.1, 0.4, np.nan]), np.array(["a", "b", "b"])
    np.testing.assert_allclose(plate_lower_bounds(values, labels, 0.05), [0.1, 0.4])
