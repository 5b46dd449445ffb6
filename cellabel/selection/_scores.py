"""What a well is worth: logarithmic scores from its features."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cellabel.errors import InputError

__all__ = ["SCORES", "score_wells"]

SCORES: dict[str, tuple[str, str | None]] = {
    "gfp_per_cell": ("Gfp_TotalIntensity", "Nuclei_Count"),
    "gfp_area_per_cell": ("Gfp_TotalArea", "Nuclei_Count"),
    "gfp_expected_area_per_cell": ("Gfp_ExpectedArea", "Nuclei_Count"),
    "gfp_per_er": ("Gfp_TotalIntensity", "Er_TotalIntensity"),
    "gfp_positive_share": ("Gfp_Count", "Nuclei_Count"),
    "er_per_cell": ("Er_TotalIntensity", "Nuclei_Count"),
    "count": ("Nuclei_Count", None),
    "gfp_of_usable_cells": ("Cells_Median_GfpPerCell", None),
    "gfp_per_er_of_usable_cells": ("Cells_Median_GfpPerEr", None),
    "live_count": ("Cells_LiveCount", None),
    "viability": ("Cells_Viability", None),
}
"""Scores that have a name: the feature above the line and the one below it, if any."""


def score_wells(wells: pd.DataFrame, score: str | Mapping[str, float]) -> pd.Series:
    """The logarithm of a score for every well, so that a clone's effect is a factor.

    Args:
        wells: one row a well, features of the organelles side by side.
        score: a name of `SCORES`, a feature column, or several of them with weights (their logarithms are
            added, each in units of its own standard deviation over the wells).

    Returns:
        (wells,) natural logarithm, or weighted standard units for several; NaN where a feature is missing or
        the denominator is 0. A numerator of 0 counts as half the smallest positive value.

    Raises:
        InputError: a column is missing, or no score is named.
    """
    if isinstance(score, str):
        return _logarithm(wells, score)
    if not score:
        raise InputError(
            f"No score is given to rank by; name one of {', '.join(SCORES)} or a feature column."
        )
    total = pd.Series(0.0, index=wells.index)
    for name, weight in score.items():
        values = _logarithm(wells, name)
        spread = float(values.std())
        total += weight * (values - values.mean()) / (spread if spread > 0 else 1.0)
    return total


def _logarithm(wells: pd.DataFrame, name: str) -> pd.Series:
    above, below = SCORES.get(name, (name, None))
    missing = [column for column in (above, below) if column is not None and column not in wells.columns]
    if missing:
        raise InputError(
            f"Ranking by {name!r} needs the column {' and '.join(missing)}; measure that organelle first."
        )
    values = wells[above].astype(float)
    if below is not None:
        values = values / wells[below].astype(float).where(wells[below] > 0)
    positive = values[values > 0]
    floor = float(positive.min()) / 2 if len(positive) else np.nan
    return values.where((values > 0) | values.isna(), floor).map(np.log)
