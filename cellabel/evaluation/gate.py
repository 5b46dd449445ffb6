"""The gate between challenger and champion: which of two models measures unseen wells better.

What is compared is, well by well, the absolute error of the logarithm of a measured feature (0.02 is about
two percent), never a difference of two correlations. Plates are the units, because wells of one plate share
its errors. The rules, in the order in which they are tried:

1. *Enough to judge by*: at least `min_plates` plates and `min_wells` wells, for every primary metric, and a
   test set that was not used too often. alpha is halved with each earlier use.
2. *Not worse on clean wells*: for every metric the upper bound of the mean difference lies below delta, a
   quarter of the standard deviation of replicate wells (at most 0.02 for counts and areas, 0.05 for
   intensities), and on no plate is the mean difference above three delta.
3. *Better where it was meant to be*: over the conditions that the challenger was trained for, the error over
   all metrics falls by at least a tenth and its bound lies below zero. Without such conditions this is asked
   of the clean wells: a challenger that is only as good as the champion changes nothing.
4. *No harm elsewhere*: in no condition is a metric worse by more than two delta, nor on one plate of it,
   beyond the noise of its wells, by more than three.

A first model, without a champion, is promoted when every primary metric was measured and its errors are
finite and within a factor of two at the median: see `GateSettings.first_max_error`. Too few plates or wells
do not hold it back, because without it nothing runs, but a warning names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.errors import InputError
from cellabel.evaluation._bounds import group_means, plate_lower_bounds, stratified_bounds, upper_bounds
from cellabel.evaluation._enough import Findings, check_enough, check_metrics, check_reuse, tell_few
from cellabel.evaluation._gate_settings import GateSettings
from cellabel.evaluation._well_errors import differing_truth, replicate_spread, well_errors

__all__ = ["CLEAN", "COMPARISON", "Decision", "GateSettings", "decide", "well_errors"]

CLEAN = "clean"
"""The condition of wells as they were imaged."""

ALL = "all"
"""The metric of the row that judges the improvement: the mean over the primary metrics."""

_KEY = ["plate", "well", "metric", "condition"]


COMPARISON = (
    "metric",
    "condition",
    "n_wells",
    "champion_error",
    "challenger_error",
    "bound",
    "delta",
    "verdict",
)
"""The columns of a decision's table that fit on a line."""


@dataclass(frozen=True)
class Decision:
    """What the gate says.

    Attributes:
        promote: whether the challenger takes the champion's place.
        reason: one sentence.
        table: one row a metric and condition: metric, condition, n_plates, n_wells, champion_error,
            challenger_error, mean_difference (challenger − champion, below zero is better), relative, bound,
            delta, worst_plate, worst_plate_difference, verdict. Errors are mean |log error|.
        warnings: what limits the claim, a sentence each.
        alpha: one-sided error that the bounds were computed at.
    """

    promote: bool
    reason: str
    table: pd.DataFrame
    warnings: tuple[str, ...] = ()
    alpha: float = 0.05


def decide(
    champion: pd.DataFrame | None,
    challenger: pd.DataFrame,
    *,
    settings: GateSettings | None = None,
    champion_corrupted: pd.DataFrame | None = None,
    challenger_corrupted: pd.DataFrame | None = None,
    improve: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    reuse: int = 0,
) -> Decision:
    """Judge whether the challenger takes the champion's place.

    Args:
        champion: its errors on clean held-out wells, from `well_errors`; None where there is no champion yet.
        challenger: its errors on the same wells.
        settings: the gate's settings.
        champion_corrupted: its errors on corrupted images of those wells, made by another implementation than
            the training's augmentation, with a further column `condition`.
        challenger_corrupted: the challenger's errors on the same images.
        improve: conditions that the challenger was trained for; None means all of the corrupted ones.
        metrics: the primary metrics, none of which may be missing; None means those that were measured.
        reuse: how often this test set has decided before.

    Raises:
        InputError: the two sides hold different wells or metrics, were measured against different truth, or
            an unknown condition is to be improved.
    """
    settings = settings or GateSettings()
    if challenger.empty:
        raise InputError(
            "The challenger was measured on no held-out well, so the gate cannot judge it: label a plate."
        )
    if champion is None:
        return _first(challenger, metrics or [], settings)
    pairs = _pairs(champion, challenger, champion_corrupted, challenger_corrupted)
    conditions = [name for name in pairs["condition"].unique() if name != CLEAN]
    meant = list(conditions if improve is None else improve) or [CLEAN]
    if unknown := sorted(set(meant) - {*conditions, CLEAN}):
        raise InputError(
            f"The gate has no wells of the condition {unknown[0]!r}: measure both there or leave it out."
        )
    alpha = settings.alpha * 0.5**reuse
    found = Findings()
    check_enough(pairs[pairs["condition"] == CLEAN], settings, found)
    if not np.isfinite(pairs["challenger"]).all():
        found.objections.append("the challenger's errors are not all finite")
    check_metrics(pairs, metrics or [], [CLEAN, *meant], settings, found)
    check_reuse(reuse, settings, found)
    _judge(pairs, meant, alpha, settings, found)
    if found.objections:
        reason = f"Not promoted: {'; '.join(found.objections)}."
    else:
        where = "clean wells" if meant == [CLEAN] else ", ".join(meant)
        relative = -found.rows[-1]["relative"]
        reason = f"Promoted: the error on {where} falls by {relative:.0%} and clean wells are not worse."
    return Decision(not found.objections, reason, pd.DataFrame(found.rows), tuple(found.warnings), alpha)


def _first(challenger: pd.DataFrame, metrics: Sequence[str], settings: GateSettings) -> Decision:
    """The rule of a first model: measured, finite and plausible."""
    found = Findings()
    tell_few(challenger, settings, found)
    for missing in sorted(set(metrics) - set(challenger["metric"])):
        found.objections.append(f"{missing} could be measured in no held-out well")
    for metric, rows in challenger.groupby("metric", sort=False):
        error = rows["log_error"].abs()
        finite = bool(np.isfinite(error).all())
        plausible = finite and float(error.median()) <= settings.first_max_error
        if not finite:
            found.objections.append(f"{metric} is not finite in {int((~np.isfinite(error)).sum())} wells")
        elif not plausible:
            found.objections.append(
                f"{metric} is off by a factor of {np.exp(error.median()):.1f} at the median "
                f"(allowed {np.exp(settings.first_max_error):.1f})"
            )
        found.rows.append(
            _row(str(metric), CLEAN, rows, challenger_error=float(error.mean()))
            | {"verdict": "plausible" if plausible else "implausible"}
        )
    promote = not found.objections
    reason = (
        "Promoted: there was no champion, and the errors are finite and plausible."
        if promote
        else f"Not promoted: there is no champion yet, but {'; '.join(found.objections)}."
    )
    return Decision(promote, reason, pd.DataFrame(found.rows), tuple(found.warnings), settings.alpha)


def _pairs(
    champion: pd.DataFrame,
    challenger: pd.DataFrame,
    champion_corrupted: pd.DataFrame | None,
    challenger_corrupted: pd.DataFrame | None,
) -> pd.DataFrame:
    """Both models side by side, one row a plate, well, metric and condition, sorted."""
    if (champion_corrupted is None) != (challenger_corrupted is None):
        raise InputError("Only one of the two models was measured on corrupted wells: measure both there.")
    sides = []
    for clean, corrupted in ((champion, champion_corrupted), (challenger, challenger_corrupted)):
        parts = [clean.assign(condition=CLEAN)]
        if corrupted is not None:
            parts.append(corrupted)
        sides.append(pd.concat(parts, ignore_index=True))
    pairs = sides[0].merge(
        sides[1][[*_KEY, "log_error"]],
        on=_KEY,
        how="outer",
        suffixes=("_champion", "_challenger"),
        indicator=True,
    )
    alone = pairs[pairs["_merge"] != "both"]
    if len(alone):
        one, side = alone.iloc[0], "champion" if alone["_merge"].iloc[0] == "left_only" else "challenger"
        raise InputError(
            f"{one['metric']} of plate {one['plate']}, well {one['well']} ({one['condition']}) was measured "
            f"for the {side} only: measure both models on the same wells."
        )
    _check_truth(*sides)
    pairs["champion"] = pairs["log_error_champion"].abs()
    pairs["challenger"] = pairs["log_error_challenger"].abs()
    pairs["difference"] = pairs["challenger"] - pairs["champion"]
    return pairs.sort_values(_KEY, ignore_index=True)


def _check_truth(champion: pd.DataFrame, challenger: pd.DataFrame) -> None:
    """Errors against different truth are not comparable: a difference may be the truth's, not the model's."""
    differing = differing_truth(champion, challenger)
    if len(differing):
        one = differing.iloc[0]
        raise InputError(
            f"The two models were measured against different truth: the true {one['metric']} of plate "
            f"{one['plate']}, well {one['well']} is {np.exp(one['log_true_first']):.4g} for the champion and "
            f"{np.exp(one['log_true_second']):.4g} for the challenger. Measure the champion again."
        )


def _judge(
    pairs: pd.DataFrame, meant: list[str], alpha: float, settings: GateSettings, found: Findings
) -> None:
    """Fill the table, and object where a rule is broken."""
    deltas, capped = _deltas(pairs[pairs["condition"] == CLEAN], settings)
    if capped:
        found.warnings.append(
            f"Too few replicate wells of a clone on a plate for {', '.join(capped)}: the margin is its cap."
        )
    looks = len(pairs.loc[pairs["condition"] != CLEAN, ["plate", "metric", "condition"]].drop_duplicates())
    for (condition, metric), rows in pairs.groupby(["condition", "metric"], sort=False):
        row = _compare(str(metric), str(condition), rows, alpha, settings)
        row["delta"] = delta = deltas[str(metric)]
        if condition == CLEAN:
            row["verdict"] = _verdict_on_clean(row, delta, settings, found)
        else:
            harm = _harm_on_a_plate(rows, settings.alpha / looks)
            row["verdict"] = _verdict_on_corrupted(row, harm, settings, found)
        found.rows.append(row)
    gain = pairs[pairs["condition"].isin(meant)]
    combined = gain.groupby(["plate", "clone", "well"], as_index=False, dropna=False)[
        ["champion", "challenger", "difference"]
    ].mean()
    row = _compare(ALL, " + ".join(meant), combined, alpha, settings)
    better = row["bound"] < 0 and row["relative"] <= -settings.min_improvement
    row |= {"delta": 0.0, "verdict": "better" if better else "not better"}
    if not better:
        found.objections.append(
            f"on {row['condition']} the error changes by {float(row['relative']):+.1%} "
            f"(bound of the difference {float(row['bound']):+.4f}), and a fall of at least "
            f"{settings.min_improvement:.0%} with a bound below 0 is asked for"
        )
    found.rows.append(row)
    _tell_wells(pairs, settings, found)


def _tell_wells(pairs: pd.DataFrame, settings: GateSettings, found: Findings) -> None:
    """Warn where wells were the units: of the whole comparison, or of a metric on a single plate."""
    if _units(pairs, settings) == "wells":
        found.warnings.append(
            "Wells were the units, so the comparison holds within "
            f"{'this plate' if pairs['plate'].nunique() == 1 else 'these plates'} only."
        )
        return
    groups = pairs.groupby(["metric", "condition"], sort=False)
    alone = dict.fromkeys(str(key[0]) for key, rows in groups if _units(rows, settings) == "wells")
    if alone:
        found.warnings.append(
            f"Wells were the units of {', '.join(alone)}: the comparison holds within one plate only."
        )


def _harm_on_a_plate(rows: pd.DataFrame, alpha: float) -> tuple[str, float]:
    """The plate that a challenger harms most surely, and the lower bound of its mean difference.

    Corruption makes errors large: at an error of 0.1 the mean of 8 wells scatters by 0.03, half of what a
    plate may be worse by. Among many plates and metrics an estimate beyond that is bound to occur.
    """
    plates = rows["plate"].to_numpy(dtype=str)
    bounds = plate_lower_bounds(rows["difference"].to_numpy(dtype=float), plates, alpha)
    worst = int(np.where(np.isfinite(bounds), bounds, -np.inf).argmax())
    return str(np.unique(plates)[worst]), float(bounds[worst])


def _verdict_on_corrupted(
    row: dict[str, Any], harm: tuple[str, float], settings: GateSettings, found: Findings
) -> str:
    """The verdict of one metric under a corruption, with its objections."""
    metric, condition = row["metric"], row["condition"]
    verdict = "not worse"
    most = settings.max_plate_deltas * row["delta"]
    plate, bound = harm
    if row["n_plates"] > 1 and bound > most:
        verdict = "worse on a plate"
        found.objections.append(
            f"on plate {plate} under {condition} {metric} is worse by at least {bound:.3f} "
            f"(allowed {most:.3f})"
        )
    most = settings.max_other_deltas * row["delta"]
    if not row["mean_difference"] <= most:
        verdict = "worse"
        found.objections.append(
            f"on {condition} {metric} is worse by {row['mean_difference']:.3f} (allowed {most:.3f})"
        )
    return verdict


def _verdict_on_clean(row: dict[str, Any], delta: float, settings: GateSettings, found: Findings) -> str:
    """The verdict of one metric on clean wells, with its objections."""
    metric = row["metric"]
    verdict = "not worse"
    if not row["bound"] < delta:
        verdict = "may be worse"
        found.objections.append(
            f"on clean wells {metric} may be worse by {row['bound']:.3f} (allowed {delta:.3f})"
        )
    most = settings.max_plate_deltas * delta
    if row["n_plates"] > 1 and row["worst_plate_difference"] > most:
        verdict = "worse on a plate" if verdict == "not worse" else verdict
        found.objections.append(
            f"on plate {row['worst_plate']} {metric} is worse by {row['worst_plate_difference']:.3f} "
            f"(allowed {most:.3f})"
        )
    return verdict


def _compare(
    metric: str, condition: str, rows: pd.DataFrame, alpha: float, settings: GateSettings
) -> dict[str, Any]:
    """One row of the table, without the verdict."""
    plates = rows["plate"].to_numpy(dtype=str)
    clones = _clones(rows)
    values = rows[["champion", "challenger", "difference"]].to_numpy(dtype=float)
    means = group_means(values, plates)
    difference: NDArray[np.float64] = values[:, 2:]
    if _units(rows, settings) == "wells":
        bound = stratified_bounds(difference, plates, alpha)[0]
    else:
        bound = upper_bounds(
            difference, plates, clones, alpha, n_resamples=settings.n_resamples, seed=settings.seed
        )[0]
    old, new, mean = means.mean(axis=0)
    worst = int(np.where(np.isfinite(means[:, 2]), means[:, 2], -np.inf).argmax())
    return _row(metric, condition, rows, challenger_error=float(new)) | {
        "champion_error": float(old),
        "mean_difference": float(mean),
        "relative": float(mean / old) if old > 0 else (float("inf") if mean > 0 else 0.0),
        "bound": float(bound),
        "worst_plate": str(np.unique(plates)[worst]),
        "worst_plate_difference": float(means[worst, 2]),
    }


def _row(metric: str, condition: str, rows: pd.DataFrame, *, challenger_error: float) -> dict[str, Any]:
    missing = float("nan")
    return {
        "metric": metric,
        "condition": condition,
        "n_plates": int(rows["plate"].nunique()),
        "n_wells": len(rows[["plate", "well"]].drop_duplicates()),
        "champion_error": missing,
        "challenger_error": challenger_error,
        "mean_difference": missing,
        "relative": missing,
        "bound": missing,
        "delta": missing,
        "worst_plate": "",
        "worst_plate_difference": missing,
        "verdict": "",
    }


def _units(rows: pd.DataFrame, settings: GateSettings) -> str:
    if settings.units == "auto":
        return "plates" if rows["plate"].nunique() > 1 else "wells"
    return settings.units


def _clones(rows: pd.DataFrame) -> NDArray[np.str_]:
    """Clone labels; a well of unknown clone stands alone."""
    clone = rows["clone"].astype("string").fillna("")
    return np.where(clone == "", "well " + rows["well"].astype(str), clone).astype(str)


def _deltas(clean: pd.DataFrame, settings: GateSettings) -> tuple[dict[str, float], list[str]]:
    """The margin of each metric, and the metrics that fell back on the cap for want of replicates."""
    deltas, capped = {}, []
    for key, rows in clean.groupby("metric", sort=False):
        metric = str(key)
        most = settings.max_delta_intensity if "Intensity" in metric else settings.max_delta_shape
        spread = replicate_spread(rows)
        if metric in settings.deltas:
            deltas[metric] = settings.deltas[metric]
        elif np.isfinite(spread):
            deltas[metric] = min(settings.replicate_share * spread, most)
        else:
            deltas[metric] = most
            capped.append(metric)
    return deltas, capped
