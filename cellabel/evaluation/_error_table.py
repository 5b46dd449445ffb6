"""How large the errors of measured features are, with intervals that know of plates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cellabel.evaluation._resampling import expanded_interval, hierarchical_weights


def error_table(
    errors: pd.DataFrame, *, level: float = 0.95, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The mean |log error| of each metric over wells, with an interval.

    The interval resamples plates, then clones within them, then wells, as `downstream_metrics` does; with one
    plate it speaks of that plate alone.

    Args:
        errors: from `well_errors`.
        level: share of the interval.
        n_bootstrap: resamples; 0 leaves the intervals out.
        seed: of the resampling.

    Returns:
        One row a metric: metric, n_plates, n_wells, mean_error, mean_error_ci_lower, mean_error_ci_upper.
    """
    rows: list[dict[str, Any]] = []
    for metric, part in errors.groupby("metric", sort=False):
        size = part["log_error"].abs().to_numpy(dtype=float)
        groups = [pd.factorize(part[name], use_na_sentinel=False)[0] for name in ("plate", "clone")]
        row = {
            "metric": str(metric),
            "n_plates": int(part["plate"].nunique()),
            "n_wells": len(part),
            "mean_error": float(size.mean()),
            "mean_error_ci_lower": float("nan"),
            "mean_error_ci_upper": float("nan"),
        }
        if n_bootstrap and len(part) > 2:
            codes = [group.astype(np.intp) for group in groups]
            weights, independent = hierarchical_weights(codes, n_bootstrap, np.random.default_rng(seed))
            means = weights @ size / weights.sum(axis=1)
            row["mean_error_ci_lower"], row["mean_error_ci_upper"] = expanded_interval(
                means, independent, level
            )
        rows.append(row)
    return pd.DataFrame(rows)
