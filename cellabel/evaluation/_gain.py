"""How much better one model measures than another, on the same wells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.errors import InputError
from cellabel.evaluation._resampling import expanded_interval, hierarchical_weights

_UNIT = ["plate", "well", "metric"]


def gain_table(
    before: pd.DataFrame, after: pd.DataFrame, *, level: float = 0.95, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean |log error| of each metric by two models, and what the second has gained, with intervals.

    The wells are paired: every resample (plates, then clones, then wells) is the same for both models, so
    the interval of the gain leaves out what makes wells hard for either.

    Args:
        before: of the first model, from `well_errors`.
        after: of the second, the same wells and metrics.
        level: share of the intervals.
        n_bootstrap: resamples; 0 leaves the intervals out.
        seed: of the resampling.

    Returns:
        One row a metric: metric, n_plates, n_wells, and of `before`, `after` and `gain` (before − after,
        positive where the second is better) each the mean and <name>_ci_lower, <name>_ci_upper.

    Raises:
        InputError: a well or metric is on one side only.
    """
    left, right = (table.set_index(_UNIT)["log_error"].abs() for table in (before, after))
    if alone := sorted(set(left.index) ^ set(right.index)):
        plate, well, metric = alone[0]
        raise InputError(
            f"{metric} of well {well} of plate {plate} was measured by one of the two models only "
            f"({len(alone)} such values): measure the same wells by both."
        )
    paired = before.assign(before=left.to_numpy(), after=right.loc[left.index].to_numpy())
    paired["gain"] = paired["before"] - paired["after"]
    rows: list[dict[str, Any]] = []
    for metric, part in paired.groupby("metric", sort=False):
        row = {"metric": str(metric), "n_plates": part["plate"].nunique(), "n_wells": len(part)}
        groups = [pd.factorize(part[name], use_na_sentinel=False)[0] for name in ("plate", "clone")]
        weights, independent = _weights([group.astype(np.intp) for group in groups], n_bootstrap, seed)
        for name in ("before", "after", "gain"):
            values = part[name].to_numpy(dtype=float)
            row[name] = float(values.mean())
            means = weights @ values / weights.sum(axis=1)
            lower, upper = expanded_interval(means, independent, level)
            row |= {f"{name}_ci_lower": lower, f"{name}_ci_upper": upper}
        rows.append(row)
    return pd.DataFrame(rows)


def _weights(groups: list[NDArray[np.intp]], draws: int, seed: int) -> tuple[NDArray[np.float64], int]:
    """How often each well is drawn in every resample, and of how many independent units; none of few."""
    if not draws or len(groups[0]) < 3:
        return np.ones((1, len(groups[0]))), 1
    return hierarchical_weights(groups, draws, np.random.default_rng(seed))
