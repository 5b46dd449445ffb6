"""How much a well's predictions have probably lost, judged from where its embedding lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.drift._kernel import Floats, as_rows, row_blocks
from cellabel.drift._packing import checksum
from cellabel.errors import InputError

__all__ = ["Harm", "HarmModel", "HarmVerdict"]

HarmVerdict = Literal["harmless", "harmful", "unknown"]

NEIGHBOURS = 5
RESAMPLES = 200
GRID = 64
SUPPORT = 0.99
COMPONENTS = 20


@dataclass(frozen=True)
class Harm:
    """The expected loss of one embedding, or of several together.

    Attributes:
        expected_loss: mean |log error| of the downstream metrics.
        lower, upper: 95 % bootstrap interval of that mean.
        verdict: "harmless" if `upper` is at most δ, "harmful" if `lower` is above δ; else, and wherever the
            embedding resembles nothing that was tried, "unknown".
        n_harmful, n: embeddings that are harmful by themselves, and all of them.
    """

    expected_loss: float
    lower: float
    upper: float
    verdict: HarmVerdict
    n_harmful: int
    n: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        return asdict(self)


class HarmModel:
    """A rising curve: distance to the reference → the loss that corrupted images showed at that distance.

    Distances are taken in the reference's leading principal components, each scaled to its spread, to the
    nearest reference rows. The curve is monotone: farther is never less harmful. Distance alone is not harm,
    so an embedding far from everything that was tried, reference and corrupted alike, is "unknown".
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = dict(state)
        self._axes: Floats = self._state["axes"]
        self._reference: Floats = self._state["reference"]
        self._tried: Floats = self._state["tried"]

    @classmethod
    def fit(
        cls,
        reference_embeddings: ArrayLike,
        corrupted_embeddings: ArrayLike,
        losses: ArrayLike,
        *,
        delta: float = 0.05,
        seed: int = 0,
    ) -> HarmModel:
        """Learn the curve.

        Args:
            reference_embeddings: (N, d) clean wells.
            corrupted_embeddings: (M, d) wells under known corruptions, mild ones included.
            losses: (M,) |log error| of the downstream metrics of each corrupted well.
            delta: the loss above which a prediction counts as harmed.
            seed: of the bootstrap.

        Raises:
            InputError: fewer than 10 rows on a side, lengths that differ, losses that are negative or not
                finite.
        """
        reference = as_rows(reference_embeddings, "reference embeddings")
        corrupted = as_rows(corrupted_embeddings, "corrupted embeddings", columns=reference.shape[1])
        loss = np.asarray(losses, dtype=np.float64)
        if min(len(reference), len(corrupted)) < 10:
            raise InputError("Harm needs at least 10 reference and 10 corrupted wells; add wells.")
        if loss.shape != (len(corrupted),) or not (np.isfinite(loss).all() and (loss >= 0).all()):
            raise InputError(
                "The losses are not one finite number ≥ 0 for each corrupted well; correct them."
            )
        centre, axes = _scaled_components(reference)
        clean, bad = (reference - centre) @ axes, (corrupted - centre) @ axes
        distances = _nearest(bad, clean, NEIGHBOURS)
        grid = np.quantile(distances, np.linspace(0, 1, GRID))
        curve, lower, upper = _curves(distances, loss, grid, np.random.default_rng(seed))
        tried = np.concatenate([clean, bad])
        support = float(np.quantile(_nearest(tried, tried, 1, itself=True), SUPPORT))
        state: dict[str, Any] = {
            "centre": centre,
            "axes": axes,
            "reference": clean,
            "tried": tried,
            "grid": grid,
        }
        state |= {"curve": curve, "lower": lower, "upper": upper, "support": support, "delta": float(delta)}
        return cls(state)

    @property
    def delta(self) -> float:
        """The loss above which a prediction counts as harmed."""
        return float(self._state["delta"])

    @property
    def fingerprint(self) -> str:
        """A digest of the whole model."""
        return checksum(self._state)

    def distance(self, embeddings: ArrayLike) -> Floats:
        """Distances (n,) of embeddings (n, d) to the reference, in standard deviations of its components."""
        return _nearest(self._project(embeddings), self._reference, NEIGHBOURS)

    def _project(self, embeddings: ArrayLike) -> Floats:
        rows = as_rows(np.atleast_2d(np.asarray(embeddings)), "embeddings", columns=len(self._axes))
        return (rows - self._state["centre"]) @ self._axes

    def estimate(self, embedding: ArrayLike) -> Harm:
        """The expected loss of one embedding (d,), or the mean over several (n, d).

        Raises:
            InputError: another length than the reference, or values that are not finite.
        """
        rows = self._project(embedding)
        if not len(rows):
            raise InputError("There is no embedding to judge; give at least one row.")
        distances = _nearest(rows, self._reference, NEIGHBOURS)
        grid = self._state["grid"]
        expected, lower, upper = (
            np.interp(distances, grid, self._state[c]) for c in ("curve", "lower", "upper")
        )
        known = _nearest(rows, self._tried, 1) <= self._state["support"]
        harmful = known & (lower > self.delta)
        verdict: HarmVerdict = "unknown"
        if known.mean() > 0.5 and lower.mean() > self.delta:
            verdict = "harmful"
        elif known.all() and upper.mean() <= self.delta:
            verdict = "harmless"
        means = (float(expected.mean()), float(lower.mean()), float(upper.mean()))
        return Harm(*means, verdict, int(harmful.sum()), len(rows))

    def state_dict(self) -> dict[str, Any]:
        """The model as arrays and plain numbers."""
        return dict(self._state)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> HarmModel:
        """The model that `state_dict` returned.

        Raises:
            InputError: parts are missing.
        """
        wanted = {
            "centre",
            "axes",
            "reference",
            "tried",
            "grid",
            "curve",
            "lower",
            "upper",
            "support",
            "delta",
        }
        if set(state) != wanted:
            raise InputError("This is no state of a harm model; give what state_dict returned.")
        return cls(state)


def _scaled_components(reference: Floats) -> tuple[Floats, Floats]:
    centre = reference.mean(axis=0)
    _, singular, directions = np.linalg.svd(reference - centre, full_matrices=False)
    spread = singular / np.sqrt(len(reference) - 1)
    kept = min(COMPONENTS, int((spread > 1e-3 * spread[0]).sum()), len(reference) // 2)
    if kept == 0 or spread[0] == 0:
        raise InputError("The reference embeddings are all alike; give embeddings of different wells.")
    return centre, directions[:kept].T / spread[:kept]


def _nearest(rows: Floats, others: Floats, k: int, *, itself: bool = False) -> Floats:
    """Mean distance of each row to its k nearest `others`, without itself where it is among them."""
    skip = 1 if itself else 0
    k = min(k, len(others) - skip)
    result = np.empty(len(rows))
    for block in row_blocks(len(rows), len(others)):
        squared = (
            (rows[block] ** 2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * rows[block] @ others.T
        )
        near = np.partition(np.maximum(squared, 0), k + skip - 1, axis=1)[:, : k + skip]
        result[block] = np.sqrt(np.sort(near, axis=1)[:, skip:]).mean(axis=1)
    return result


def _curves(
    distances: Floats, losses: Floats, grid: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    fitted = rising(distances, losses, grid)
    resampled = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(losses), len(losses))
        resampled.append(rising(distances[rows], losses[rows], grid))
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return fitted, np.minimum(low, fitted), np.maximum(high, fitted)


def rising(x: Floats, y: Floats, at: Floats) -> Floats:
    """The least-squares rising step curve through (x, y), interpolated at `at`.

    Source: pool adjacent violators, Barlow et al. 1972.
    """
    order = np.argsort(x, kind="stable")
    values: list[float] = []
    weights: list[int] = []
    for value in y[order].tolist():
        values.append(value)
        weights.append(1)
        while len(values) > 1 and values[-2] > values[-1]:
            weight = weights[-2] + weights[-1]
            values[-2:] = [(values[-2] * weights[-2] + values[-1] * weights[-1]) / weight]
            weights[-2:] = [weight]
    steps: NDArray = np.repeat(values, weights)
    return np.interp(at, x[order], steps)
