"""Whether a plate can be trusted as an assay: window of the controls, its edge, its rows and columns."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.errors import InputError

__all__ = [
    "Z_PRIME_WELLS",
    "assay_window",
    "edge_effect",
    "median_polish",
    "plate_statistics",
    "reference_chart",
]

Z_PRIME_WELLS = 8
"""Wells of each control below which Z′ is not told."""
FORMATS = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48))
"""Rows and columns of the plates in use."""
MOVING_RANGE = 1.128
"""Mean range of two normal values over their standard deviation."""


def assay_window(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> dict[str, Any]:
    """How far the controls lie apart: Z′ with enough wells, else the standardised mean difference.

    Args:
        positive: (n,) wells of the high producer.
        negative: (m,) wells of the parental line.

    Returns:
        window ("Z'", "SSMD" or "not computable"), value (NaN where not computable), n_positive, n_negative,
        reason (empty for Z′).

    Source: Zhang, Chung & Oldenburg 1999 (J Biomol Screen 4:67) for Z′; Zhang 2007 (Genomics 89:552) for
    SSMD.
    """
    high, low = positive[np.isfinite(positive)], negative[np.isfinite(negative)]
    found: dict[str, Any] = {"n_positive": high.size, "n_negative": low.size}
    few = f"{high.size} high-producer and {low.size} parental wells"
    nothing = {"window": "not computable", "value": float("nan")}
    if min(high.size, low.size) < 2:
        return found | nothing | {"reason": f"{few}: at least 2 of each are needed"}
    spreads = float(high.std(ddof=1)), float(low.std(ddof=1))
    apart = float(high.mean() - low.mean())
    if not any(spreads) or apart == 0:
        return found | nothing | {"reason": "the controls are constant or alike"}
    if min(high.size, low.size) >= Z_PRIME_WELLS:
        return found | {"window": "Z'", "value": 1 - 3 * sum(spreads) / abs(apart), "reason": ""}
    value = apart / float(np.hypot(*spreads))
    return found | {"window": "SSMD", "value": value, "reason": f"{few}: Z' needs {Z_PRIME_WELLS} of each"}


def edge_effect(wells: pd.DataFrame, feature: str) -> dict[str, Any]:
    """The outermost wells against the others, as a ratio of medians with Mann and Whitney's p.

    Args:
        wells: one row a well of one plate, with Metadata_Well.
        feature: column.

    Returns:
        ratio (edge over interior), p_value, n_edge, n_interior, reason (why a number is missing, else empty).
    """
    from scipy.stats import mannwhitneyu

    rows, columns = _places(wells["Metadata_Well"])
    high, wide = _format(rows, columns)
    outer = (rows == 0) | (rows == high - 1) | (columns == 0) | (columns == wide - 1)
    values = wells[feature].to_numpy(float)
    known = np.isfinite(values)
    edge, inner = values[known & outer], values[known & ~outer]
    found: dict[str, Any] = {"n_edge": edge.size, "n_interior": inner.size}
    missing = {"ratio": float("nan"), "p_value": float("nan")}
    if min(edge.size, inner.size) < 3:
        return found | missing | {"reason": "fewer than 3 wells at the edge or inside"}
    middle = float(np.median(inner))
    ratio = float(np.median(edge)) / middle if middle else float("nan")
    p_value = 1.0 if np.ptp(values[known]) == 0 else float(mannwhitneyu(edge, inner).pvalue)
    return found | {"ratio": ratio, "p_value": p_value, "reason": "" if middle else "the interior is zero"}


def median_polish(wells: pd.DataFrame, feature: str, *, rounds: int = 10) -> pd.DataFrame:
    """A plate's values without what whole rows and whole columns have in common.

    Args:
        wells: one row a well of one plate, with Metadata_Well.
        feature: column; missing values stay missing and weigh nothing.
        rounds: at most so many times rows, then columns.

    Returns:
        Metadata_Well, value, row_effect, column_effect, residual, polished (residual + the plate's level), in
        the feature's units; value = level + row + column + residual.

    Source: Tukey 1977, Exploratory Data Analysis; Brideau et al. 2003 (J Biomol Screen 8:634) for plates.
    """
    rows, columns = _places(wells["Metadata_Well"])
    values = wells[feature].to_numpy(float)
    grid = np.full((rows.max(initial=0) + 1, columns.max(initial=0) + 1), np.nan)
    grid[rows, columns] = values
    level, by_row, by_column = 0.0, np.zeros(grid.shape[0]), np.zeros(grid.shape[1])
    for _ in range(rounds):
        step_row = _medians(grid, axis=1)
        grid, by_row = grid - step_row[:, None], by_row + step_row
        step_column = _medians(grid, axis=0)
        grid, by_column = grid - step_column, by_column + step_column
        for effects in (by_row, by_column):
            used = np.isfinite(grid).any(axis=1 if effects is by_row else 0)
            shift = float(np.median(effects[used])) if used.any() else 0.0
            level += shift
            effects -= shift
        if max(np.abs(step_row).max(), np.abs(step_column).max()) <= 1e-12 * max(abs(level), 1e-300):
            break
    residual = grid[rows, columns]
    return pd.DataFrame(
        {
            "Metadata_Well": wells["Metadata_Well"].to_numpy(),
            "value": values,
            "row_effect": by_row[rows],
            "column_effect": by_column[columns],
            "residual": residual,
            "polished": level + residual,
        }
    )


def plate_statistics(wells: pd.DataFrame, features: list[str]) -> pd.DataFrame:
    """One row a feature: the controls' window, the edge, and how large row and column effects are.

    Args:
        wells: one row a well of one plate, with Metadata_Well and, where a plan is known, Metadata_Role and
            Metadata_Clone.
        features: columns to judge.

    Returns:
        feature; window, window_value, window_reason (see `assay_window`; high_producer against parental);
        edge_ratio, edge_p_value, edge_reason (see `edge_effect`; without blanks); row_spread and
        column_spread: range of the polished effects over the plate's median; n_wells.
    """
    role = wells["Metadata_Role"].fillna("sample") if "Metadata_Role" in wells else None
    grown = wells if role is None else wells[role != "blank"]
    rows = []
    for feature in features:
        control = {
            name: (grown if role is None else grown[role.loc[grown.index] == name])[feature].to_numpy(float)
            if role is not None
            else np.zeros(0)
            for name in ("high_producer", "parental")
        }
        window = assay_window(control["high_producer"], control["parental"])
        edge = edge_effect(grown, feature)
        polished = median_polish(grown, feature)
        level = abs(float(np.nanmedian(polished["value"]))) if polished["value"].notna().any() else np.nan
        rows.append(
            {
                "feature": feature,
                "window": window["window"],
                "window_value": window["value"],
                "window_reason": window["reason"],
                "edge_ratio": edge["ratio"],
                "edge_p_value": edge["p_value"],
                "edge_reason": edge["reason"],
                "row_spread": float(np.ptp(polished["row_effect"])) / level if level else np.nan,
                "column_spread": float(np.ptp(polished["column_effect"])) / level if level else np.nan,
                "n_wells": int(polished["value"].notna().sum()),
            }
        )
    return pd.DataFrame(rows)


def reference_chart(wells: pd.DataFrame, feature: str, *, role: str = "reference") -> pd.DataFrame:
    """A control chart of the reference clone over plates: which plates measure it as others do.

    Args:
        wells: one row a well, plates in order of acquisition, with Metadata_Plate and Metadata_Role.
        feature: column, positive.
        role: whose wells.

    Returns:
        One row a plate that has such wells, in the given order: Metadata_Plate, mean (of logarithms),
        n_wells, centre, lower, upper (± 3 standard deviations by the moving range; NaN below 3 plates),
        outside.

    Raises:
        InputError: no plate has such wells with a value.

    Source: Shewhart's chart of individuals, Montgomery 2013, Introduction to Statistical Quality Control.
    """
    if "Metadata_Role" not in wells:
        raise InputError("No plan names the wells' roles: a chart of the reference clone needs them.")
    chosen = wells[(wells["Metadata_Role"] == role) & (wells[feature] > 0)]
    if chosen.empty:
        raise InputError(f"No {role} well has a positive {feature}: plan wells with the role {role!r}.")
    logs = chosen[feature].astype(float).map(np.log).groupby(chosen["Metadata_Plate"], sort=False)
    chart = pd.DataFrame({"mean": logs.mean(), "n_wells": logs.size()})
    ranges = chart["mean"].diff().abs().dropna()
    reach = 3 * float(ranges.mean()) / MOVING_RANGE if len(ranges) >= 2 else np.nan
    centre = float(chart["mean"].mean())
    chart = chart.assign(centre=centre, lower=centre - reach, upper=centre + reach)
    chart["outside"] = (chart["mean"] < chart["lower"]) | (chart["mean"] > chart["upper"])
    return chart.reset_index()


def _places(wells: pd.Series) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    places = [re.fullmatch(r"(A?)([A-Z])(\d{2})", str(well)) for well in wells]
    if None in places:
        bad = wells.iloc[places.index(None)]
        raise InputError(f"{bad!r} is no well of a plate: write wells as A01 or AF48.")
    rows = [26 * bool(found[1]) + ord(found[2]) - 65 for found in places if found]
    columns = [int(found[3]) - 1 for found in places if found]
    return np.array(rows, np.intp), np.array(columns, np.intp)


def _format(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> tuple[int, int]:
    """Rows and columns of the smallest plate in use that has these wells."""
    last_row, last_column = rows.max(initial=0), columns.max(initial=0)
    return next(size for size in FORMATS if last_row < size[0] and last_column < size[1])


def _medians(grid: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Medians of the known values; 0 where a line has none."""
    known = np.isfinite(grid).any(axis=axis)
    found = np.zeros(known.size)
    if known.any():
        found[known] = np.nanmedian(grid[known] if axis == 1 else grid[:, known], axis=axis)
    return found
