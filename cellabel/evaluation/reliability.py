"""How far each number of a well table may be from the truth, written beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cellabel.errors import InputError
from cellabel.evaluation._well_errors import COUNT_FLOOR
from cellabel.evaluation.conformal import ConformalInterval, conformal_interval

__all__ = ["INTERVAL_NOTE", "NOT_VALID", "calibrate_intervals", "with_intervals"]

INTERVAL_NOTE = "Metadata_IntervalNote"
NOT_VALID = "not valid: the plate has drifted"
NOT_CALIBRATED = "not calibrated"
ENDS = ("IntervalLower", "IntervalUpper")
WELL = ["Metadata_Plate", "Metadata_Well"]


def calibrate_intervals(
    true: pd.DataFrame, predicted: pd.DataFrame, *, level: float = 0.9, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """A prediction interval for every feature that both sides measured.

    Args:
        true: one row a well that no training saw, with Metadata_Plate, Metadata_Well and features.
        predicted: the same wells, measured on predictions.
        level: nominal coverage.
        seed: of the calibration's draws.

    Returns:
        Feature → the `ConformalInterval` as plain data, or {"reason": why it could not be calibrated}.
    """
    both = true.merge(predicted, on=WELL, suffixes=("_true", "_predicted"))
    intervals: dict[str, dict[str, Any]] = {}
    for feature in (str(name) for name in true if not str(name).startswith("Metadata_")):
        if feature not in predicted or not pd.api.types.is_numeric_dtype(true[feature]):
            continue
        floor = COUNT_FLOOR if "_Count" in feature else None
        try:
            found = conformal_interval(
                both[f"{feature}_true"],
                both[f"{feature}_predicted"],
                both["Metadata_Plate"],
                level=level,
                floor=floor,
                seed=seed,
            )
            intervals[feature] = found.to_dict()
        except InputError as error:
            intervals[feature] = {"reason": str(error)}
    return intervals


def with_intervals(
    wells: pd.DataFrame, intervals: Mapping[str, Mapping[str, Any]], *, drifted: bool = False
) -> pd.DataFrame:
    """A well table with the ends of each feature's interval beside it, and what they may claim.

    Args:
        wells: one row a well; ends and notes that it has already are replaced.
        intervals: of `calibrate_intervals`; empty for a model that was never calibrated.
        drifted: the plate's drift verdict is yes: no interval is valid.

    Returns:
        The table, with <feature>_IntervalLower and _IntervalUpper after each calibrated feature and
        Metadata_IntervalNote: the level and what it was calibrated over, or why there is no interval.
    """
    bare = wells[[c for c in wells if not str(c).endswith(ENDS) and c != INTERVAL_NOTE]]
    columns: dict[str, Any] = {}
    notes: dict[str, None] = {}
    for name in map(str, bare):
        columns[name] = bare[name]
        known = intervals.get(name, {})
        if "reach" not in known:
            continue
        interval = ConformalInterval.from_dict(known)
        values = bare[name].to_numpy(float, na_value=np.nan)
        lower, upper = interval.interval(values, drifted=drifted)
        missing = ~np.isfinite(values)
        columns[f"{name}_{ENDS[0]}"] = np.where(missing, np.nan, lower)
        columns[f"{name}_{ENDS[1]}"] = np.where(missing, np.nan, upper)
        notes[interval.note] = None
    note = "; ".join(notes) or _why_not(intervals)
    keys = {name: columns.pop(name) for name in list(columns) if name.startswith("Metadata_")}
    keys[INTERVAL_NOTE] = NOT_VALID if drifted and notes else note
    return pd.DataFrame(keys | columns, index=bare.index)


def _why_not(intervals: Mapping[str, Mapping[str, Any]]) -> str:
    reasons = {str(one["reason"]) for one in intervals.values() if "reason" in one}
    return f"{NOT_CALIBRATED}: {sorted(reasons)[0]}" if reasons else NOT_CALIBRATED
