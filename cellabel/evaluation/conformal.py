"""Intervals around a predicted feature, calibrated on wells whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.evaluation._well_errors import SHARE_FLOOR

_DRAWS = 999


@dataclass(frozen=True)
class ConformalInterval:
    """How far the truth may lie from a prediction.

    Attributes:
        reach: half-width in log units; the interval is predicted × exp(± reach).
        level: nominal coverage of a new well.
        scope: "new plates", or "these plates" where there were too few plates to speak of others.
        n_plates: plates that it was calibrated on.
        n_wells: wells that it was calibrated on.
        floor: values below count as this, so that a zero has a logarithm.
    """

    reach: float
    level: float
    scope: str
    n_plates: int
    n_wells: int
    floor: float

    @property
    def note(self) -> str:
        """What the interval may claim, in a few words for a table."""
        if self.scope == "new plates":
            return f"{self.level:.0%}, calibrated over {self.n_plates} plates"
        return f"{self.level:.0%}, within these plates ({self.n_wells} wells on {self.n_plates})"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConformalInterval:
        """The interval that `to_dict` wrote."""
        return cls(**values)

    def interval(
        self, predicted: ArrayLike, *, drifted: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper ends for predicted values; NaN on a drifted plate, where no interval is valid.

        A lower end at the floor is 0.
        """
        values = np.maximum(np.asarray(predicted, dtype=float), self.floor)
        if drifted:
            return np.full_like(values, np.nan), np.full_like(values, np.nan)
        lower = values * np.exp(-self.reach)
        return np.where(lower <= self.floor, 0.0, lower), values * np.exp(self.reach)


def conformal_interval(
    true: ArrayLike,
    predicted: ArrayLike,
    plates: ArrayLike,
    *,
    level: float = 0.9,
    floor: float | None = None,
    seed: int = 0,
) -> ConformalInterval:
    """Calibrate an interval on the absolute log errors of wells with a known truth.

    With enough plates (9 for 90 %, 19 for 95 %) the plates are the units: one well is drawn from each, the
    conformal quantile taken over them, and the median of many such draws kept. Each draw covers a well of a
    fresh plate with the nominal probability whatever the plate effects are; their median covers up to four
    points more (simulated from no plate effect to one of 60 % of the variance). With fewer plates wells are
    the units and the interval holds within these plates only.

    Args:
        true: (n,) measured on the stain.
        predicted: (n,) measured on the prediction.
        plates: (n,) plate of each well.
        level: nominal coverage.
        floor: smallest value that has a logarithm (0.5 for counts); None: a hundredth of the median truth.
        seed: of the draws.

    Raises:
        InputError: fewer wells than the level needs (9 for 90 %).

    Source: Dunn, Wasserman & Ramdas 2022 (JASA 118:2491) for one draw a group.
    """
    stained, guessed = np.asarray(true, dtype=float), np.asarray(predicted, dtype=float)
    names = np.asarray(plates).astype(str)
    known = np.isfinite(stained) & np.isfinite(guessed)
    stained, guessed, names = stained[known], guessed[known], names[known]
    needed = ceil(round(level / (1 - level), 9))
    if len(stained) < needed:
        raise InputError(
            f"{len(stained)} wells with a known truth cannot calibrate a {level:.0%} interval: "
            f"at least {needed} are needed, stain more wells or ask for a lower level."
        )
    if floor is None:
        positive = stained[stained > 0]
        floor = SHARE_FLOOR * float(np.median(positive)) if len(positive) else 1.0
    scores = np.abs(np.log(np.maximum(guessed, floor)) - np.log(np.maximum(stained, floor)))
    groups = [scores[names == name] for name in np.unique(names)]
    over_plates = len(groups) >= needed
    if over_plates:
        rng = np.random.default_rng(seed)
        draws = np.stack([group[rng.integers(len(group), size=_DRAWS)] for group in groups], axis=1)
        reach = float(np.median(_conformal_quantile(draws, level)))
    else:
        reach = float(_conformal_quantile(scores[None], level)[0])
    scope = "new plates" if over_plates else "these plates"
    return ConformalInterval(reach, level, scope, len(groups), len(scores), floor)


def _conformal_quantile(scores: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """The (n + 1)·level-th smallest score of each row, between ranks interpolated: (rows,)."""
    count = scores.shape[1]
    rank = min((count + 1) * level, count) - 1
    return np.quantile(scores, rank / (count - 1), axis=1)
