"""The mixed model behind the ranking: plates fixed, clones random, variances by restricted likelihood."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pooled", "pooled_draws"]

RATIOS = np.concatenate([[0.0], np.geomspace(1e-3, 1e3, 61)])
"""Grid of the ratio of the clones' variance to the wells'."""


class Pooled(NamedTuple):
    """Effects of clones against their mean.

    Attributes:
        raw: (n,) means after the plates' levels, not pooled.
        mean: (n,) pooled.
        effects: (draws, n) from their distribution; None where no clone has two wells.
    """

    raw: NDArray[np.float64]
    mean: NDArray[np.float64]
    effects: NDArray[np.float64] | None


def pooled_draws(
    values: NDArray[np.float64],
    clone: NDArray[Any],
    plate: NDArray[Any],
    draws: int,
    rng: np.random.Generator,
) -> Pooled:
    """Fit value = plate + clone + well by REML over a grid of variance ratios, and draw clone effects.

    Args:
        values: (w,) scores.
        clone: (w,) codes from 0.
        plate: (w,) codes from 0.
        draws: number of draws.
        rng: source of chance.
    """
    fixed = np.eye(int(plate.max()) + 1)[plate]
    random = np.eye(int(clone.max()) + 1)[clone]
    raw = _raw(values, fixed, random)
    spare = values.size - np.linalg.matrix_rank(np.hstack([fixed, random]))
    if spare < 1 or random.shape[1] < 2:
        return Pooled(raw, raw, None)
    fits = [_fit(values, fixed, random, ratio) for ratio in RATIOS]
    likelihood = np.array([fit[0] for fit in fits])
    weight = np.exp(likelihood - likelihood.max())
    weight /= weight.sum()
    mean = np.sum([share * fit[1] for share, fit in zip(weight, fits, strict=True)], axis=0)
    effects = np.empty((draws, random.shape[1]))
    picked = rng.choice(RATIOS.size, draws, p=weight)
    freedom = values.size - fixed.shape[1]
    for number in np.unique(picked):
        rows = np.flatnonzero(picked == number)
        _, centre, covariance, squares = fits[number]
        variance = squares / rng.chisquare(freedom, rows.size)
        root = _root(covariance)
        noise = rng.standard_normal((rows.size, random.shape[1])) @ root.T
        effects[rows] = centre + np.sqrt(variance)[:, None] * noise
    return Pooled(raw, mean - mean.mean(), effects - effects.mean(axis=1, keepdims=True))


def _raw(values: NDArray[np.float64], fixed: NDArray[Any], random: NDArray[Any]) -> NDArray[np.float64]:
    """Clone means by least squares beside the plates' levels; the shortest solution where confounded."""
    solution = np.linalg.lstsq(np.hstack([fixed, random]), values, rcond=None)[0][fixed.shape[1] :]
    return np.asarray(solution - solution.mean())


def _fit(
    values: NDArray[np.float64], fixed: NDArray[Any], random: NDArray[Any], ratio: float
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], float]:
    """Restricted log-likelihood; effects; their covariance over the wells' variance; residual squares."""
    size = random.sum(axis=0)
    shrink = ratio / (1 + ratio * size)

    def whiten(block: NDArray[Any]) -> NDArray[Any]:
        # The inverse of 1 + ratio · Z Zᵀ, written out: clones do not overlap.
        return block - random @ (shrink * (random.T @ block).T).T

    white = whiten(fixed)
    information = fixed.T @ white
    level = np.linalg.solve(information, white.T @ values)
    remainder = whiten(values - fixed @ level)
    squares = float(values @ remainder)
    freedom = values.size - fixed.shape[1]
    logarithms = np.log1p(ratio * size).sum() + np.linalg.slogdet(information)[1]
    likelihood = -0.5 * (logarithms + freedom * np.log(max(squares, 1e-300)))
    effects = ratio * random.T @ remainder
    across = random.T @ white
    covariance = np.diag(shrink) + ratio**2 * across @ np.linalg.solve(information, across.T)
    return float(likelihood), effects, covariance, squares


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix whose product with its own transpose is the covariance, also where that is singular."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
