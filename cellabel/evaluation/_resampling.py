"""The hierarchical bootstrap as weights: how often every unit is drawn in every resample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["expanded_interval", "hierarchical_weights", "weighted_pearson", "weighted_ranks"]

Floats = NDArray[np.float64]


def hierarchical_weights(
    levels: Sequence[NDArray[np.intp]], draws: int, rng: np.random.Generator
) -> tuple[Floats, int]:
    """Resample groups, then groups within them, then units, each with replacement.

    Args:
        levels: group codes of all units, (n,) each, the widest level first; narrower ones are read within
            wider.
        draws: number of resamples.
        rng: source of chance.

    Returns:
        Weights (draws, n), whole numbers; and the number of independent draws at the widest level that has
        more than one group (of units, where none has).
    """
    count = levels[0].size
    weights = np.zeros((draws, count))
    if count == 0:
        return weights, 0
    members = [np.arange(count)]
    times = [np.ones(draws, np.int64)]
    independent = count
    for level in [*levels, np.arange(count)]:
        parts = [[block[level[block] == code] for code in np.unique(level[block])] for block in members]
        if independent == count and len(members) == 1 and len(parts[0]) > 1:
            independent = len(parts[0])
        new_times = []
        for pieces, drawn in zip(parts, times, strict=True):
            share = np.full(len(pieces), 1 / len(pieces))
            new_times += list(rng.multinomial(drawn * len(pieces), share).T)
        members, times = [piece for pieces in parts for piece in pieces], new_times
    for piece, drawn in zip(members, times, strict=True):
        weights[:, piece[0]] = drawn
    return weights, independent


def weighted_pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's correlation of every resample.

    Args:
        x: (n,), or (draws, n) where the values differ between resamples.
        y: like `x`.
        weights: (draws, n).

    Returns:
        (draws,); NaN where a resample is constant.
    """
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = (weights * x).sum(axis=1) / total, (weights * y).sum(axis=1) / total
        dx, dy = x - mean_x[:, None], y - mean_y[:, None]
        xx, yy = (weights * dx * dx).sum(axis=1), (weights * dy * dy).sum(axis=1)
        correlation = (weights * dx * dy).sum(axis=1) / np.sqrt(xx * yy)
    vague = (xx <= 1e-20 * (weights * x**2).sum(axis=1)) | (yy <= 1e-20 * (weights * y**2).sum(axis=1))
    return np.where(vague, np.nan, np.clip(correlation, -1.0, 1.0))


def weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """Mid-ranks of the values in every resample, (draws, n); equal values share their mean rank."""
    _, code = np.unique(values, return_inverse=True)
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    size = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(size, axis=1) - size / 2 + 0.5
    return np.asarray(ranks[:, code])


def expanded_interval(values: Floats, independent: int, level: float) -> tuple[float, float]:
    """Percentile interval, its percentiles moved outwards as by Student's t for few independent units.

    Args:
        values: (draws,) with NaN where a resample has none.
        independent: number of units that were drawn at the widest level.
        level: nominal share.

    Returns:
        Lower and upper bound; NaN where fewer than half of the resamples have a value, or nothing was
        resampled.
    """
    from scipy.stats import norm, t

    usable = values[np.isfinite(values)]
    if independent < 2 or usable.size < max(2, values.size / 2):
        return np.nan, np.nan
    reach = np.sqrt(independent / (independent - 1)) * t.ppf(0.5 + level / 2, independent - 1)
    tail = float(norm.sf(reach))
    lower, upper = np.quantile(usable, [tail, 1 - tail])
    return float(lower), float(upper)
