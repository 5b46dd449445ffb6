"""Wells as a cell-line scientist reads them: how many live, how many shine, and how alike they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["DISTRIBUTIONS", "MIXED_ABOVE", "USABLE_CELLS", "bimodality", "count_interval", "summarise_wells"]

USABLE_CELLS = 200
"""Usable cells below which a well's distributions are flagged."""
MIXED_ABOVE = 5 / 9
"""Bimodality coefficient of a uniform distribution; above it a clone may be a mixture."""
FEWEST = 8
"""Cells below which no bimodality is told."""
DISTRIBUTIONS: Mapping[str, str] = {
    "GfpPerCell": "Cells_Intensity_IntegratedIntensity_Gfp",
    "GfpPerEr": "Cells_GfpPerEr",
    "ErPerCell": "Cells_Intensity_IntegratedIntensity_Er",
    "DnaPerCell": "Nuclei_Intensity_IntegratedIntensity",
    "NucleusAreaUm2": "Nuclei_AreaShape_AreaUm2",
    "DiameterUm": "Cells_AreaShape_DiameterUm",
    "NucleusCytoplasmRatio": "Cells_NucleusCytoplasmRatio",
}
"""Name in the well table → column of the cells, of which usable cells' distribution is summarised."""
WELL = ["Metadata_Plate", "Metadata_Well"]


def summarise_wells(cells: pd.DataFrame, fields: pd.DataFrame, *, level: float = 0.9) -> pd.DataFrame:
    """One row a well, from a plate's flagged cells.

    Args:
        cells: rows of `flag_cells`, with Metadata_Plate, _Well, _Site.
        fields: one row a field that was imaged, also where it shows no cell: Metadata_Plate, _Well, _Site and
            AreaShare, the share that cells cover.
        level: share of the intervals.

    Returns:
        Metadata_FieldCount; Cells_Count (without debris); Cells_LiveCount (expected: the chances added up)
        with _Lower and _Upper, of another look at as many fields of the well; Cells_Viability (live share)
        and Cells_GfpPositiveShare (of live cells; missing without a threshold), each with _Lower and _Upper
        (Jeffreys); Cells_Confluence; Cells_MitoticShare, Cells_DoubletShare (of cells), Cells_DebrisShare (of
        objects); Cells_UsableCount and Cells_FewUsable (under 200); for every one of `DISTRIBUTIONS` that was
        measured Cells_Median_<name>, Cells_CV_<name>, Cells_Bimodality_<name> (of logarithms) and
        Cells_MayBeMixed_<name> over the usable cells. Shares and medians are NaN where there is no cell.
    """
    groups = {key: part for key, part in cells.groupby(WELL, sort=False)} if len(cells) else {}
    rows = []
    for key, imaged in fields.groupby(WELL, sort=True):
        here = groups.get(key, cells.iloc[:0])
        row: dict[str, Any] = dict(zip(WELL, key, strict=True))
        row |= {"Metadata_FieldCount": len(imaged), "Cells_Confluence": float(imaged["AreaShare"].mean())}
        rows.append(row | _numbers(here, imaged["Metadata_Site"].to_numpy(), level) | _distributions(here))
    return pd.DataFrame(rows)


def count_interval(
    per_field: np.ndarray, uncertain: float = 0.0, *, level: float = 0.9
) -> tuple[float, float]:
    """Interval of the count that as many fields of the well show on average.

    The variance is Poisson's, or that between the fields where it is larger (cells cluster), and that of what
    is counted; the distribution is a gamma with this mean and variance. Nothing counted still leaves room.

    Args:
        per_field: (f,) counts, also expected ones.
        uncertain: variance that the counting itself adds.
        level: share.
    """
    from scipy.stats import gamma

    total, number = float(per_field.sum()), per_field.size
    tail = (1 - level) / 2
    between = number * float(per_field.var(ddof=1)) if number > 1 else 0.0
    variance = max(total, between, 0.0) + uncertain
    if total <= 0:
        return 0.0, float(-np.log(tail) + uncertain)
    shape = total**2 / variance
    # Half a count on either side: counts are whole, and few of them are skewed.
    lower = gamma.ppf(tail, max(shape - 0.5 * shape / total, 1e-9), scale=variance / total)
    upper = gamma.ppf(1 - tail, shape + 0.5 * shape / total, scale=variance / total)
    return float(lower), float(upper)


def bimodality(values: np.ndarray) -> float:
    """Sarle's coefficient with its correction for few values: above 5/9 there may be two groups.

    Args:
        values: (n,) NaN is left out.

    Returns:
        0 to 1; NaN with fewer than 8 values or without spread.

    Source: Pfister et al. 2013 (Front Psychol 4:700).
    """
    x = values[np.isfinite(values)]
    n = x.size
    if n < FEWEST or np.ptp(x) <= 1e-9 * max(np.abs(x).max(), 1e-300):
        return float("nan")
    z = (x - x.mean()) / x.std()
    skew, excess = (z**3).mean(), (z**4).mean() - 3
    skew *= np.sqrt(n * (n - 1)) / (n - 2)
    excess = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * excess + 6)
    return float((skew**2 + 1) / (excess + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))))


def _numbers(here: pd.DataFrame, sites: np.ndarray, level: float) -> dict[str, Any]:
    if here.empty:
        nothing = _share("Viability", 0.0, 0, level) | _share("GfpPositiveShare", 0.0, 0, level)
        lower, upper = count_interval(np.zeros(sites.size), level=level)
        shares = dict.fromkeys(("Cells_MitoticShare", "Cells_DoubletShare", "Cells_DebrisShare"), np.nan)
        return {
            "Cells_Count": 0, "Cells_LiveCount": 0.0, "Cells_LiveCount_Lower": lower,
            "Cells_LiveCount_Upper": upper, **nothing, **shares, "Cells_UsableCount": 0,
            "Cells_FewUsable": True,
        }  # fmt: skip
    debris = here["Cells_IsDebris"]
    real = here[~debris]
    chance = real["Cells_LiveProbability"]
    counts = chance.groupby(real["Metadata_Site"]).sum().reindex(sites, fill_value=0.0).to_numpy()
    lower, upper = count_interval(counts, float((chance * (1 - chance)).sum()), level=level)
    usable = int(real["Cells_IsUsable"].sum())
    row: dict[str, Any] = {
        "Cells_Count": len(real),
        "Cells_LiveCount": float(chance.sum()),
        "Cells_LiveCount_Lower": lower,
        "Cells_LiveCount_Upper": upper,
        **_share("Viability", float(chance.sum()), len(real), level),
        "Cells_MitoticShare": float(real["Cells_MitoticProbability"].mean()),
        "Cells_DoubletShare": float(real["Cells_DoubletProbability"].mean()),
        "Cells_DebrisShare": float(debris.mean()),
        "Cells_UsableCount": usable,
        "Cells_FewUsable": usable < USABLE_CELLS,
    }
    live = real[real["Cells_IsLive"]]
    positive = live["Cells_GfpPositive"].dropna() if "Cells_GfpPositive" in live else pd.Series(dtype=bool)
    return row | _share("GfpPositiveShare", float(positive.sum()), len(positive), level)


def _share(name: str, successes: float, n: int, level: float) -> dict[str, float]:
    """A share with Jeffreys' interval; NaN of nothing."""
    from scipy.stats import beta

    keys = (f"Cells_{name}", f"Cells_{name}_Lower", f"Cells_{name}_Upper")
    if n == 0:
        return dict.fromkeys(keys, float("nan"))
    tail = (1 - level) / 2
    parts = (successes + 0.5, n - successes + 0.5)
    lower = 0.0 if successes <= 0 else float(beta.ppf(tail, *parts))
    upper = 1.0 if successes >= n else float(beta.ppf(1 - tail, *parts))
    return dict(zip(keys, (successes / n, lower, upper), strict=True))


def _distributions(here: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {}
    usable = here[here["Cells_IsUsable"]] if "Cells_IsUsable" in here else here
    for name, column in DISTRIBUTIONS.items():
        if column not in here:
            continue
        values = usable[column].to_numpy(float)
        values = values[np.isfinite(values)]
        mean = float(values.mean()) if values.size else float("nan")
        positive = values[values > 0]
        logs = np.log(np.maximum(values, positive.min() / 2)) if positive.size else np.zeros(0)
        two = bimodality(logs)
        row |= {
            f"Cells_Median_{name}": float(np.median(values)) if values.size else float("nan"),
            f"Cells_CV_{name}": float(values.std(ddof=1)) / mean if values.size > 1 and mean > 0 else np.nan,
            f"Cells_Bimodality_{name}": two,
            f"Cells_MayBeMixed_{name}": bool(two > MIXED_ABOVE),
        }
    return row
