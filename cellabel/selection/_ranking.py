"""Partially pooled clone effects, their intervals, and the chance to be among the best."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.errors import InputError
from cellabel.selection._pooling import pooled_draws
from cellabel.selection._scores import score_wells

__all__ = ["rank_clones"]

DENSITY = ("Gfp_TotalIntensity", "Gfp_TotalArea", "Gfp_ExpectedArea", "Gfp_Count")
"""Features that grow with the number of cells: alone they rank the densest clone first."""
USABLE_CELLS = 200
"""Cells below which a clone is flagged."""


def rank_clones(
    wells: pd.DataFrame,
    *,
    score: str | Mapping[str, float] = "gfp_per_cell",
    clone: str = "Metadata_Clone",
    plate: str = "Metadata_Plate",
    roles: Sequence[str] = ("sample",),
    top: int | None = None,
    level: float = 0.9,
    draws: int = 4000,
    seed: int = 0,
) -> pd.DataFrame:
    """Clones in order of a score, each pulled towards the mean by as much as its wells are few and scattered.

    The logarithm of the score is a plate's level plus a clone's effect plus the well's own deviation; clone
    effects are random, and the uncertainty of both variances goes into the intervals. Without clones wells
    stand for them,
    and without replicates nothing is pooled and no interval is given: a warning and the column `reason` say
    so.

    Args:
        wells: one row a well: the features that the score needs, `plate`, and `clone` and Metadata_Role if
            known.
        score: a name of `SCORES`, a feature column, or several of them with weights.
        clone: column that names the clone.
        plate: column that names the plate.
        roles: roles that are ranked, where the column Metadata_Role exists; controls are left out.
        top: k of the chance to be among the best k; None is a tenth of the clones, at least 1.
        level: share of the intervals.
        draws: from the distribution of the effects.
        seed: of the draws.

    Returns:
        One row a clone, best first: rank; the clone's column; effect, effect_lower, effect_upper (natural
        logarithm, against the mean clone); factor (exp of effect: how many times the mean clone's score; NaN
        for weighted scores); raw_effect (not pooled); p_top; top (k); n_wells; n_plates; few_cells (under 200
        nuclei in all); ranked_unit ("clone" or "well"); reason (why a number is missing, or what stood in for
        what, else empty).

    Raises:
        InputError: a column is missing, no well is left to rank, or total GFP alone is asked for, which
            rewards density.

    Source: REML by Patterson & Thompson 1971; best linear unbiased prediction by Henderson 1975.
    """
    _refuse_density(score)
    if plate not in wells.columns:
        raise InputError(
            f"The well table has no column {plate}; it tells plates' levels from clones' effects."
        )
    table, unit = _units(_selected(wells, roles), clone, plate)
    values = score_wells(table, score)
    table, values = table[values.notna()], values[values.notna()]
    if table.empty:
        raise InputError(
            f"No well has the score {score!r}; measure its organelles, or choose other roles than {roles}."
        )
    names, code = np.unique(table["unit"].astype(str), return_inverse=True)
    plates = pd.factorize(table[plate])[0]
    k = max(1, round(0.1 * names.size)) if top is None else max(1, min(top, names.size))
    pooled = pooled_draws(values.to_numpy(float), code, plates, draws, np.random.default_rng(seed))
    reason = "" if unit == "clone" else "no clones are known: wells stand for them"
    if pooled.effects is None:
        reason = "; ".join(filter(None, [reason, "no clone has two wells: nothing is pooled, no interval"]))
    if reason:
        warnings.warn(f"Ranking: {reason}.", UserWarning, stacklevel=2)
    ranked = pd.DataFrame({clone if unit == "clone" else "Metadata_Well": names} | _summary(pooled, k, level))
    ranked["factor"] = np.exp(ranked["effect"]) if isinstance(score, str) else np.nan
    ranked = ranked.join(_support(table, code, plate)).assign(top=k, ranked_unit=unit, reason=reason)
    ranked = ranked.sort_values(["effect", ranked.columns[0]], ascending=[False, True], ignore_index=True)
    ranked.insert(0, "rank", np.arange(1, len(ranked) + 1))
    return ranked


def _refuse_density(score: str | Mapping[str, float]) -> None:
    names = [score] if isinstance(score, str) else [name for name, weight in score.items() if weight]
    if names and set(names) <= set(DENSITY):
        raise InputError(
            f"Ranking by {' and '.join(names)} alone rewards density: rank by gfp_per_cell, "
            "gfp_area_per_cell or gfp_per_er."
        )


def _selected(wells: pd.DataFrame, roles: Sequence[str]) -> pd.DataFrame:
    if "Metadata_Role" not in wells.columns:
        return wells
    return wells[wells["Metadata_Role"].fillna("sample").isin(list(roles))]


def _units(wells: pd.DataFrame, clone: str, plate: str) -> tuple[pd.DataFrame, str]:
    """The table with a column `unit`: the clone, or where no clone is named plate and well."""
    if clone in wells.columns and wells[clone].notna().any():
        known = wells[wells[clone].notna()]
        return known.assign(unit=known[clone]), "clone"
    if "Metadata_Well" not in wells.columns:
        raise InputError(
            f"The well table has neither {clone} nor Metadata_Well; one of them names what is ranked."
        )
    return wells.assign(unit=wells[plate].astype(str) + "/" + wells["Metadata_Well"].astype(str)), "well"


def _summary(pooled: Any, k: int, level: float) -> dict[str, NDArray[np.float64]]:
    if pooled.effects is None:
        missing = np.full(pooled.raw.size, np.nan)
        return {
            "effect": pooled.raw, "effect_lower": missing, "effect_upper": missing,
            "raw_effect": pooled.raw, "p_top": missing,
        }  # fmt: skip
    tail = (1 - level) / 2
    lower, upper = np.quantile(pooled.effects, [tail, 1 - tail], axis=0)
    place = (-pooled.effects).argsort(axis=1).argsort(axis=1)
    return {
        "effect": pooled.mean, "effect_lower": lower, "effect_upper": upper,
        "raw_effect": pooled.raw, "p_top": (place < k).mean(axis=0),
    }  # fmt: skip


def _support(table: pd.DataFrame, code: NDArray[Any], plate: str) -> pd.DataFrame:
    """How much every clone's rank rests on."""
    groups = table.groupby(code)
    support = pd.DataFrame({"n_wells": groups.size(), "n_plates": groups[plate].nunique()})
    if "Nuclei_Count" in table.columns:
        support["few_cells"] = groups["Nuclei_Count"].sum() < USABLE_CELLS
    else:
        support["few_cells"] = False
    return support
