"""The error of a measured feature, well by well, in log units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cellabel.errors import InputError

COUNT_FLOOR = 0.5
"""A well without objects counts as half an object: its logarithm stays finite."""

SHARE_FLOOR = 0.01
"""Areas and intensities are floored at this share of their median over the true wells."""

TRUTH_NOISE = 1e-3
"""Log units by which two measurements of one stain may differ: rounding stays below, another segmentation
does not."""

_WELL = ["Metadata_Plate", "Metadata_Well"]


def well_errors(true: pd.DataFrame, predicted: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The log error of each metric in each well: log of what was predicted − log of what was stained.

    Zeros: a count is floored at half an object; areas and intensities, which may also be negative after
    background subtraction, at one hundredth of the median of their positive true values, so that units do
    not matter. A metric that a *predicted* well lacks (no object was found) is the floor; one that the
    *true* well lacks cannot be judged, and the row is left out.

    Args:
        true: one row a well, with Metadata_Plate, Metadata_Well, the metrics and, where known, Metadata_Clone
            (or `clone`).
        predicted: the same wells and metrics, measured on predicted images.
        metrics: feature columns.

    Returns:
        One row a well and metric: plate, well, clone (NA where unknown), metric, log_error, log_true.

    Raises:
        InputError: a column is missing, a well appears twice, or on one side only.
    """
    left, right = _by_well(true, metrics, "true"), _by_well(predicted, metrics, "predicted")
    if alone := sorted(set(left.index) ^ set(right.index)):
        plate, well = alone[0]
        side = "true" if alone[0] in left.index else "predicted"
        raise InputError(
            f"Well {well} of plate {plate} is in the {side} table only ({len(alone)} such wells): "
            "measure both images of every well."
        )
    right = right.loc[left.index]
    clone = next((left[name] for name in ("Metadata_Clone", "clone") if name in left), None)
    parts = []
    for metric in metrics:
        stained = left[metric].to_numpy(dtype=float)
        floor = _floor(metric, stained)
        log_true = np.log(np.maximum(stained, floor))
        log_predicted = np.log(
            np.maximum(np.nan_to_num(right[metric].to_numpy(dtype=float), nan=0.0, posinf=np.inf), floor)
        )
        part = pd.DataFrame(
            {
                "plate": left.index.get_level_values(0),
                "well": left.index.get_level_values(1),
                "clone": pd.Series(pd.NA, index=left.index) if clone is None else clone,
                "metric": metric,
                "log_error": log_predicted - log_true,
                "log_true": log_true,
            }
        )
        parts.append(part[np.isfinite(stained)])
    return pd.concat(parts, ignore_index=True)


def differing_truth(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Where two models' errors were taken against different truth of the same well.

    Args:
        first: from `well_errors`; where both sides have a column `condition`, conditions are told apart.
        second: the other model's.

    Returns:
        One row a well and metric that differs, or that one side lacks: plate, well, metric, log_true_first,
        log_true_second.
    """
    key = [name for name in ("plate", "well", "metric", "condition") if name in first and name in second]
    sides = first[[*key, "log_true"]], second[[*key, "log_true"]]
    both = sides[0].merge(sides[1], on=key, how="outer", suffixes=("_first", "_second"))
    same = np.isclose(
        both["log_true_first"], both["log_true_second"], rtol=0, atol=TRUTH_NOISE, equal_nan=True
    )
    return both[~same]


def replicate_spread(rows: pd.DataFrame) -> float:
    """Pooled standard deviation of the log truth over wells of one clone on one plate.

    Args:
        rows: one metric's rows of `well_errors`.

    Returns:
        In log units; NaN with fewer than five degrees of freedom.
    """
    known = rows[rows["clone"].notna() & (rows["clone"].astype(str) != "")]
    groups = known.groupby(["plate", "clone"])["log_true"]
    freedom = int((groups.size() - 1).sum()) if len(known) else 0
    if freedom < 5:
        return float("nan")
    squares = float(((known["log_true"] - groups.transform("mean")) ** 2).sum())
    return float(np.sqrt(squares / freedom))


def _by_well(table: pd.DataFrame, metrics: Sequence[str], side: str) -> pd.DataFrame:
    if missing := [name for name in (*_WELL, *metrics) if name not in table]:
        raise InputError(
            f"The {side} table has no column {missing[0]}: measure it for both images of a well."
        )
    indexed = table.set_index(_WELL).sort_index()
    twice = indexed.index[indexed.index.duplicated()]
    if len(twice):
        raise InputError(
            f"Well {twice[0][1]} of plate {twice[0][0]} has several rows in the {side} table: "
            "aggregate to one row a well first."
        )
    return indexed


def _floor(metric: str, stained: np.ndarray) -> float:
    if metric.endswith("_Count"):
        return COUNT_FLOOR
    positive = stained[np.isfinite(stained) & (stained > 0)]
    return SHARE_FLOOR * float(np.median(positive)) if len(positive) else 1.0
