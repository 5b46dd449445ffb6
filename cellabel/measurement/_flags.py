"""What every cell is flagged as, with the chance of it where that means something."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.errors import InputError
from cellabel.measurement._states import state_probabilities

__all__ = ["DEBRIS_SHARE", "MIN_PARENTAL_CELLS", "flag_cells", "gfp_threshold", "positive_probability"]

DEBRIS_SHARE = 0.2
"""Nuclear objects below this share of the plate's median nuclear area are debris (a dead nucleus has 0.3)."""
MIN_PARENTAL_CELLS = 20
"""Cells of parental wells below which no threshold is taken from them."""
GFP = "Cells_Intensity_MeanIntensity_Gfp"


def flag_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """A plate's joined cells with their flags.

    Args:
        cells: rows of `join_cells` for a whole plate, with Metadata_Role where a plan names it. States are
            told by the difference from the plate's median cell: where most cells are dead, none is told.

    Returns:
        The same rows and columns, and: Cells_DeadProbability, Cells_MitoticProbability (of the chromatin's
        condensation), Cells_LiveProbability (1 − dead), Cells_DoubletProbability; Cells_IsLive, Cells_IsDead,
        Cells_IsMitotic, Cells_IsDoublet (chance above one half); Cells_IsDebris (no cell: its probabilities
        are NaN and its flags False);
        Cells_IsUsable (live, single, whole and no debris); where GFP was measured Cells_GfpPositive (missing
        without a threshold), Cells_GfpPositiveProbability, Cells_GfpPerEr (integrated intensities; NaN
        without ER), Metadata_GfpThreshold and Metadata_GfpReason (why there is none, else empty).
    """
    area = cells["Nuclei_AreaShape_AreaUm2"]
    debris = area < DEBRIS_SHARE * area.median()
    states = state_probabilities(cells).mask(debris)
    flags = pd.DataFrame(
        {
            "Cells_LiveProbability": 1 - states["dead"],
            "Cells_DeadProbability": states["dead"],
            "Cells_MitoticProbability": states["mitotic"],
            "Cells_DoubletProbability": states["doublet"],
            "Cells_IsLive": states["dead"] < 0.5,
            "Cells_IsDead": states["dead"] >= 0.5,
            "Cells_IsMitotic": states["mitotic"] > 0.5,
            "Cells_IsDoublet": states["doublet"] > 0.5,
            "Cells_IsDebris": debris,
        },
        index=cells.index,
    )
    whole = ~cells["Metadata_TouchesBorder"].astype(bool)
    flags["Cells_IsUsable"] = flags["Cells_IsLive"] & ~flags["Cells_IsDoublet"] & whole
    if GFP in cells:
        flags = pd.concat([flags, _gfp_flags(cells, debris)], axis=1)
    return pd.concat([cells, flags], axis=1)


def gfp_threshold(parental: NDArray[np.float64]) -> float:
    """Mean + 3 standard deviations of what parental cells, which make no product, show.

    Raises:
        InputError: fewer than 20 cells.
    """
    values = parental[np.isfinite(parental)]
    if values.size < MIN_PARENTAL_CELLS:
        raise InputError(
            f"{values.size} parental cells give no threshold for GFP: plan parental wells with at least "
            f"{MIN_PARENTAL_CELLS} cells."
        )
    return float(values.mean() + 3 * values.std(ddof=1))


def positive_probability(values: NDArray[np.float64], parental: NDArray[np.float64]) -> NDArray[np.float64]:
    """The chance of each cell to show more than parental cells do: 1 − the local false discovery rate.

    Both densities are histograms in steps of half a parental standard deviation; the parental share among
    the cells is taken from the cells at or below the parental median. The chance never falls as a cell gets
    brighter; 0 below the parental mean.

    Args:
        values: (n,) of the cells to judge.
        parental: (m,) of parental cells.

    Returns:
        (n,), NaN where a value is missing.

    Source: Efron 2004 (JASA 99:96) for the local false discovery rate.
    """
    null = parental[np.isfinite(parental)]
    centre, spread = float(null.mean()), float(null.std(ddof=1))
    scale = spread if spread > 0 else max(abs(centre), 1.0) * 1e-9
    known = np.isfinite(values)
    score, null_score = np.clip((values - centre) / scale, -10, 30), np.clip((null - centre) / scale, -10, 30)
    edges = np.arange(-10, 30.5, 0.5)
    cells = np.histogram(score[known], edges)[0] + 0.5
    expected = np.histogram(null_score, edges)[0] / null.size
    low = float(np.median(null_score))
    share = min(1.0, 2 * float(np.mean(score[known] <= low))) if known.any() else 1.0
    chance = np.clip(1 - share * expected * known.sum() / cells, 0.0, 1.0)
    chance = np.maximum.accumulate(np.where(edges[1:] <= 0, 0.0, chance))
    middles = (edges[1:] + edges[:-1]) / 2
    told = np.interp(score, middles, chance)
    return np.where(known, told, np.nan)


def _gfp_flags(cells: pd.DataFrame, debris: pd.Series) -> pd.DataFrame:
    found = pd.DataFrame(index=cells.index)
    if "Cells_Intensity_IntegratedIntensity_Er" in cells:
        er = cells["Cells_Intensity_IntegratedIntensity_Er"]
        found["Cells_GfpPerEr"] = cells["Cells_Intensity_IntegratedIntensity_Gfp"] / er.where(er > 0)
    values = cells[GFP].to_numpy(float)
    role = cells["Metadata_Role"] if "Metadata_Role" in cells else pd.Series("sample", index=cells.index)
    parental = values[((role == "parental") & ~debris).to_numpy()]
    found["Cells_GfpPositive"] = pd.array([pd.NA] * len(cells), dtype="boolean")
    found["Cells_GfpPositiveProbability"] = np.nan
    found["Metadata_GfpThreshold"], found["Metadata_GfpReason"] = np.nan, ""
    try:
        threshold = gfp_threshold(parental)
    except InputError as error:
        return found.assign(Metadata_GfpReason=str(error))
    found["Cells_GfpPositive"] = pd.array(values > threshold, dtype="boolean")
    found["Cells_GfpPositiveProbability"] = positive_probability(values, parental)
    found.loc[debris, "Cells_GfpPositive"] = pd.NA
    found.loc[debris, "Cells_GfpPositiveProbability"] = np.nan
    return found.assign(Metadata_GfpThreshold=threshold)
