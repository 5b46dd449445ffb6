"""What is measured on predicted images against what is measured on stained ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.errors import InputError
from cellabel.evaluation._resampling import (
    expanded_interval,
    hierarchical_weights,
    weighted_pearson,
    weighted_ranks,
)

__all__ = ["downstream_metrics"]

FEWEST = 3
"""Units below which no agreement is computed: two points always lie on a line."""
COLUMNS = (
    "feature", "pearson", "spearman", "concordance", "bias", "loa_lower", "loa_upper", "n", "reason",
    "pearson_ci_lower", "pearson_ci_upper", "spearman_ci_lower", "spearman_ci_upper",
)  # fmt: skip


def downstream_metrics(
    true: pd.DataFrame,
    predicted: pd.DataFrame,
    *,
    by: str | Sequence[str] = ("Metadata_Plate", "Metadata_Well"),
    n_bootstrap: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Agreement of what is measured on predicted images with what is measured on stained ones.

    Intervals resample plates, then clones within a plate (where either table has Metadata_Clone), then wells
    (where units are narrower than wells), then units; percentiles are moved outwards for a small number of
    the widest units that can be resampled (two or more plates, else clones, else the units themselves),
    without which five of them would cover 79 % for a nominal 90 %. With one plate they speak of that plate
    alone.

    Args:
        true: one row a unit (`by`), with feature columns; columns that begin with Metadata_ are none.
        predicted: the same for predicted images.
        by: the columns that name a unit.
        n_bootstrap: resamples; 0 leaves the intervals out.
        level: share of the intervals.
        seed: of the resampling.

    Returns:
        One row a feature: feature; pearson; spearman; concordance (Lin's); bias (mean of predicted − true)
            and
        loa_lower, loa_upper (bias ± 1.96 standard deviations of the difference), in the feature's units; n,
        units with a value on both sides; reason, why a number is missing, else empty; pearson_ci_lower,
        _upper, spearman_ci_lower, _upper.

    Raises:
        InputError: a column of `by` is missing, a unit occurs twice, or on one side only; they are named. Or
            an argument that has no meaning.

    Source: LaChance & Cohen 2020 (PLoS Comput Biol 16:e1008443) for the idea; Lin 1989 for concordance; Bland
        &
    Altman 1986 for limits of agreement; Hesterberg 2015 (Am Stat 69:371) for the percentiles of small
    samples.
    """
    _require_meaning(true, predicted, by, n_bootstrap, level)
    keys = [by] if isinstance(by, str) else list(by)
    left, right = _indexed(true, keys, "true"), _indexed(predicted, keys, "predicted")
    _require_same_units(left, right)
    # Draws go to units by place: without an order of their own, intervals would depend on that of the rows.
    left = left.iloc[sorted(range(len(left)), key=[repr(unit) for unit in left.index].__getitem__)]
    right = right.loc[left.index]
    groups = _groups(left, right, keys)
    weights, independent = hierarchical_weights(groups, n_bootstrap, np.random.default_rng(seed))
    rows = [_agreement(name, left, right, weights, independent, level) for name in _features(left, right)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _require_meaning(true: object, predicted: object, by: object, n_bootstrap: object, level: object) -> None:
    for side, table in (("true", true), ("predicted", predicted)):
        if not isinstance(table, pd.DataFrame):
            raise InputError(
                f"The {side} side is a {type(table).__name__}; give a DataFrame with one row a unit."
            )
    if not isinstance(by, str | Sequence) or len(by) == 0:
        raise InputError(f"`by` is {by!r}; name at least one column that tells units apart.")
    if isinstance(n_bootstrap, bool) or not isinstance(n_bootstrap, int | np.integer) or n_bootstrap < 0:
        raise InputError(f"n_bootstrap is {n_bootstrap!r}; give a whole number of resamples, 0 for none.")
    if not (isinstance(level, float | np.floating) and 0 < level < 1):
        raise InputError(f"The level is {level!r}; give the intervals' share, between 0 and 1.")


def _indexed(table: pd.DataFrame, keys: list[str], side: str) -> pd.DataFrame:
    missing = [key for key in keys if key not in table.columns]
    if missing:
        raise InputError(
            f"The {side} table has no column {', '.join(missing)}; name the columns of a unit in `by`."
        )
    index = pd.MultiIndex.from_frame(table[keys]) if len(keys) > 1 else pd.Index(table[keys[0]], name=keys[0])
    if index.has_duplicates:
        unit = index[index.duplicated()][0]
        raise InputError(
            f"The {side} table has several rows of {unit}; add fields up to one row a unit first."
        )
    return table.set_axis(index, axis=0)


def _require_same_units(left: pd.DataFrame, right: pd.DataFrame) -> None:
    sides = (("true", left.index.difference(right.index)), ("predicted", right.index.difference(left.index)))
    told = [
        f"{len(units)} only in the {side} table ({', '.join(str(unit) for unit in units[:5])})"
        for side, units in sides
        if len(units)
    ]
    if told:
        raise InputError(
            f"Some units have no counterpart: {' and '.join(told)}; give both sides the same units."
        )


def _features(left: pd.DataFrame, right: pd.DataFrame) -> list[str]:
    """Numeric columns of either side, in the order in which they first occur."""
    names: dict[str, None] = {}
    for table in (left, right):
        for name in table.columns:
            numeric = pd.api.types.is_numeric_dtype(table[name]) and not pd.api.types.is_bool_dtype(
                table[name]
            )
            if numeric and not str(name).startswith("Metadata_"):
                names[str(name)] = None
    return list(names)


def _groups(left: pd.DataFrame, right: pd.DataFrame, keys: list[str]) -> list[NDArray[np.intp]]:
    """Codes of the levels above the unit, the widest first: plate, clone, well; unknown ones are left out."""
    levels = []
    narrower = set(keys) - {"Metadata_Plate", "Metadata_Well"}  # fields and cells of a well share its fate
    names = ("Metadata_Plate", "Metadata_Clone", *(["Metadata_Well"] if narrower else []))
    for name in names:
        table = next((side for side in (left, right) if name in side.columns), None)
        if table is not None and keys != [name]:
            levels.append(pd.factorize(table[name], use_na_sentinel=False)[0].astype(np.intp))
    return levels or [np.zeros(len(left), np.intp)]


def _agreement(
    name: str,
    left: pd.DataFrame,
    right: pd.DataFrame,
    weights: NDArray[np.float64],
    independent: int,
    level: float,
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan) | {"feature": name, "n": 0, "reason": ""}
    for side, table in (("true", left), ("predicted", right)):
        if name not in table.columns:
            return row | {"reason": f"not measured on the {side} side"}
    x = left[name].to_numpy(np.float64, na_value=np.nan)
    y = right[name].to_numpy(np.float64, na_value=np.nan)
    both = np.isfinite(x) & np.isfinite(y)
    x, y, weights = x[both], y[both], weights[:, both]
    row["n"] = int(both.sum())
    if row["n"] == 0:
        return row | {"reason": "no unit has a value on both sides"}
    difference = y - x
    row["bias"] = float(difference.mean())
    if row["n"] < FEWEST:
        return row | {"reason": f"fewer than {FEWEST} units with a value on both sides"}
    spread = 1.96 * float(difference.std(ddof=1))
    row |= {"loa_lower": row["bias"] - spread, "loa_upper": row["bias"] + spread}
    constant = [side for side, values in (("true", x), ("predicted", y)) if _is_constant(values)]
    if constant:
        return row | {"reason": f"the {' and the '.join(constant)} values are constant"}
    return row | _correlations(x, y, weights, independent, level)


def _correlations(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    weights: NDArray[np.float64],
    independent: int,
    level: float,
) -> dict[str, float]:
    once = np.ones((1, x.size))
    deviation_x, deviation_y = x - x.mean(), y - y.mean()
    covariance = (deviation_x * deviation_y).mean()
    scale = (deviation_x**2).mean() + (deviation_y**2).mean() + (x.mean() - y.mean()) ** 2
    rank = (weighted_ranks(x, once), weighted_ranks(y, once))
    found = {
        "pearson": float(weighted_pearson(deviation_x, deviation_y, once)[0]),
        "spearman": float(weighted_pearson(*rank, once)[0]),
        "concordance": float(2 * covariance / scale),
    }
    if len(weights):
        draws = {
            "pearson": weighted_pearson(deviation_x, deviation_y, weights),
            "spearman": weighted_pearson(weighted_ranks(x, weights), weighted_ranks(y, weights), weights),
        }
        for name, values in draws.items():
            found[f"{name}_ci_lower"], found[f"{name}_ci_upper"] = expanded_interval(
                values, independent, level
            )
    return found


def _is_constant(values: NDArray[np.float64]) -> bool:
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
