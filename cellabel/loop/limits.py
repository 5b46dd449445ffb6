"""How wrong a model may be, by its recipe."""

from __future__ import annotations

import pandas as pd

from cellabel.organelles import Organelle

__all__ = ["LARGEST_MEDIAN_ERROR", "beyond_limits"]

LARGEST_MEDIAN_ERROR = 0.69
"""Median |log error| above which they contradict the stain, unless a recipe says otherwise: a factor of 2."""


def beyond_limits(errors: pd.DataFrame, organelle: Organelle) -> str:
    """Why the recipe's limits refuse a version, by its errors on held-out wells; empty if they do not."""
    medians = errors["log_error"].abs().groupby(errors["metric"]).median()
    told = [
        f"{metric} is off by {medians[metric]:.2f} (median |log error|), the recipe allows {limit:g}"
        for metric, limit in organelle.largest_errors.items()
        if metric in medians and medians[metric] > limit
    ]
    return "; ".join(told)
