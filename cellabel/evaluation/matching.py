"""Which predicted object is which true one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError

__all__ = ["match_objects", "matched_cells"]

LEAST_OVERLAP = 0.5
"""Intersection over union above which two objects are one: then no object has two partners."""


def match_objects(
    true: ArrayLike, predicted: ArrayLike, *, least_overlap: float = LEAST_OVERLAP
) -> pd.DataFrame:
    """Pairs of objects that are the same, by intersection over union.

    Args:
        true: (H, W) integers, 0 is background; gaps are allowed.
        predicted: the same for the other side.
        least_overlap: intersection over union that a pair must exceed, at least 0.5.

    Returns:
        One row a pair, ascending by `true`: true, predicted (labels), iou.

    Raises:
        InputError: the shapes differ, labels are no whole numbers from 0, or less than 0.5 is asked for.
    """
    left, right = _labels(true, "true"), _labels(predicted, "predicted")
    if left.shape != right.shape:
        raise InputError(
            f"True labels are {left.shape}, predicted ones {right.shape}: match objects of one field."
        )
    if least_overlap < LEAST_OVERLAP:
        raise InputError(
            f"An overlap of {least_overlap} lets one object have two partners: ask for 0.5 or more."
        )
    names, own = np.unique(left, return_inverse=True)
    others, other = np.unique(right, return_inverse=True)
    pair, joint = np.unique(own.ravel().astype(np.int64) * others.size + other.ravel(), return_counts=True)
    first, second = np.divmod(pair, others.size)
    size, other_size = np.bincount(own.ravel()), np.bincount(other.ravel())
    union = size[first] + other_size[second] - joint
    overlap = joint / union
    kept = (names[first] > 0) & (others[second] > 0) & (overlap > least_overlap)
    pairs = {"true": names[first][kept], "predicted": others[second][kept], "iou": overlap[kept]}
    return pd.DataFrame(pairs)


def matched_cells(
    true: pd.DataFrame, predicted: pd.DataFrame, pairs: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The objects of one field that both sides have, row beside row.

    Args:
        true: rows of `cellabel.measurement.measure_objects`.
        predicted: the same for the prediction.
        pairs: of `match_objects`.

    Returns:
        Both tables with a row a pair, Metadata_ObjectNumber replaced by the true object's in both.
    """
    number = "Metadata_ObjectNumber"
    left = true.set_index(number).loc[pairs["true"]]
    right = predicted.set_index(number).loc[pairs["predicted"]]
    right.index = left.index
    return left.reset_index(), right.reset_index()


def _labels(values: ArrayLike, side: str) -> NDArray[Any]:
    labels = np.asarray(values)
    if labels.dtype.kind not in "iub" or (labels.size and labels.min() < 0):
        raise InputError(f"The {side} labels are no whole numbers from 0: give a label image.")
    return labels
