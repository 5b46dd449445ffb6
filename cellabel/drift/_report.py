"""What a calibration is worth: run lengths verified on independent streams, hazard by age, correlation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellabel.drift._kernel import Floats

__all__ = ["FitReport", "RunLength", "hazard_by_age", "intraclass_correlation", "neighbour_correlation"]


@dataclass(frozen=True)
class RunLength:
    """Observations until a false alarm, over independent verification runs.

    Attributes:
        mean: observations.
        ci: 95 % interval for the mean of the deployed detector, the finite reference included.
        cv: coefficient of variation; 1 for memoryless alarms (almost: sqrt(1 − 1/mean)).
        n_runs: runs behind these figures.
    """

    mean: float
    ci: tuple[float, float]
    cv: float
    n_runs: int


@dataclass(frozen=True)
class FitReport:
    """The outcome of `OnlineMMD.fit`.

    Attributes:
        run_length: verified on runs that the thresholds have not seen.
        hazard: false alarms per observation, in consecutive bins of age; 1/ERT everywhere is memoryless.
        hazard_bin: length of a bin of `hazard`, observations.
        icc: intra-class correlation of the groups; None without groups.
        threshold: the steady one, for full windows, which observations are compared with.
        thresholds: by the number m = 1..W of observations since the start; the last one is the steady one.
        n, dimensions, n_groups: what was fitted; n_groups is None without groups.
        warnings: sentences; what the reference cannot support well.
    """

    run_length: RunLength
    hazard: tuple[float, ...]
    hazard_bin: int
    icc: float | None
    threshold: float
    thresholds: tuple[float, ...]
    n: int
    dimensions: int
    n_groups: int | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FitReport:
        """The report that `to_dict` wrote."""
        run = dict(values["run_length"])
        run["ci"] = tuple(run["ci"])
        rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        rest["run_length"] = RunLength(**run)
        return cls(**rest)


def hazard_by_age(lengths: NDArray, ended: NDArray, width: int, n_bins: int) -> tuple[float, ...]:
    """Alarms per tick lived in bins of `width` ticks of age; NaN where nothing lived."""
    hazards = []
    for low in range(0, n_bins * width, width):
        lived = np.clip(lengths - low, 0, width).sum()
        alarms = (ended & (lengths > low) & (lengths <= low + width)).sum()
        hazards.append(float(alarms / lived) if lived else float("nan"))
    return tuple(hazards)


def intraclass_correlation(rows: Floats, codes: NDArray) -> float:
    """One-way intra-class correlation of `rows` (n, d), variance components summed over the columns.

    Source: Donner 1986 (International Statistical Review 54:67), the analysis-of-variance estimator.
    """
    sizes = np.bincount(codes).astype(np.float64)
    n, n_groups = len(rows), len(sizes)
    sums = np.zeros((n_groups, rows.shape[1]))
    np.add.at(sums, codes, rows)
    means = sums / sizes[:, None]
    between = float((sizes[:, None] * (means - rows.mean(axis=0)) ** 2).sum()) / (n_groups - 1)
    if n == n_groups:
        return 0.0
    within = float(((rows - means[codes]) ** 2).sum()) / (n - n_groups)
    typical = (n - float((sizes**2).sum()) / n) / (n_groups - 1)
    component = (between - within) / typical
    total = component + within
    return float(component / total) if total > 0 else 0.0


def neighbour_correlation(rows: Floats) -> tuple[float, float]:
    """Lag-one correlation of consecutive rows over all columns, and its z score against a shuffled order.

    Columns that vary together carry less than one column's information each: the z score counts d_eff =
    tr(C)²/tr(C²).
    """
    n = len(rows)
    centred = rows - rows.mean(axis=0)
    total = float((centred**2).sum())
    lag_one = float((centred[1:] * centred[:-1]).sum()) / total * n / (n - 1)
    small = centred.T @ centred if rows.shape[1] <= n else centred @ centred.T
    effective = total**2 / float((small**2).sum())
    return lag_one, (lag_one + 1.0 / (n - 1)) * float(np.sqrt(n * effective))
