"""Whether a clone keeps producing: the slope of its expression over the days of a study."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellabel.errors import InputError
from cellabel.selection._scores import score_wells

__all__ = ["stability"]

LARGEST_LOSS = 0.30
HORIZON_DAYS = 90.0


def stability(
    wells: pd.DataFrame,
    *,
    score: str = "gfp_per_cell",
    clone: str = "Metadata_Clone",
    day: str = "Metadata_Day",
    level: float = 0.95,
    horizon_days: float = HORIZON_DAYS,
    largest_loss: float = LARGEST_LOSS,
) -> pd.DataFrame:
    """Slope of the logarithm of a score over days, clone by clone, and the loss that it allows.

    A straight line a clone through its wells' logarithms. The residual variance is each clone's own with 10
    or more degrees of freedom, else pooled over all clones of the study. Wells of one day on one plate share
    that plate's fate: where every plate holds one day, the days' means are the units, not the wells.

    Args:
        wells: one row a well with the score's features, `clone`, `day` and Metadata_Plate.
        score: a name of `SCORES` or a feature column.
        clone: column that names the clone.
        day: column with the day of the study.
        level: one-sided, of the upper bound of the loss.
        horizon_days: the loss is told over this time.
        largest_loss: loss that is still stable.

    Returns:
        One row a clone: its column, slope (a day), loss (share lost over the horizon), loss_upper, stable
        (loss_upper below `largest_loss`; missing without a bound), n_wells, n_days, unit ("well" or "day"),
        reason (why a number is missing, else empty).

    Raises:
        InputError: a column is missing.

    Source: ordinary least squares; ICH Q5D and Q1E for trends against acceptance limits.
    """
    if missing := [name for name in (clone, day) if name not in wells]:
        raise InputError(
            f"Stability needs the column {' and '.join(missing)}: name clone and day in the plan."
        )
    table = pd.DataFrame(
        {"clone": wells[clone], "day": pd.to_numeric(wells[day]), "value": score_wells(wells, score)}
    )
    table["plate"] = wells.get("Metadata_Plate", "plate")
    table = table.dropna().reset_index(drop=True)
    shared = table.groupby("plate")["day"].nunique().max() == 1 if len(table) else False
    unit = "day" if shared else "well"
    sizes = table.groupby("clone").size()
    if unit == "day":
        table = table.groupby(["clone", "day"])["value"].mean().reset_index()
    lines = {str(name): _line(part) for name, part in table.groupby("clone")}
    freedom = int(sum(line["freedom"] for line in lines.values()))
    pooled = sum(line["squares"] for line in lines.values()) / freedom if freedom else np.nan
    rows = [
        {clone: name, **_loss(line, pooled, freedom, level, horizon_days, largest_loss),
         "n_wells": int(sizes[name]), "n_days": line["days"], "unit": unit}
        for name, line in lines.items()
    ]  # fmt: skip
    columns = [clone, "slope", "loss", "loss_upper", "stable", "n_wells", "n_days", "unit", "reason"]
    return pd.DataFrame(rows, columns=columns)


def _line(part: pd.DataFrame) -> dict[str, float]:
    """Slope, sum of squares about the days' mean and of residuals, degrees of freedom, days."""
    x, y = part["day"].to_numpy(float), part["value"].to_numpy(float)
    spread = float(((x - x.mean()) ** 2).sum())
    days = int(part["day"].nunique())
    if days < 2:
        return {"slope": np.nan, "spread": 0.0, "squares": 0.0, "freedom": 0, "days": days}
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    residual = y - y.mean() - slope * (x - x.mean())
    squares = float((residual**2).sum())
    return {"slope": slope, "spread": spread, "squares": squares, "freedom": len(x) - 2, "days": days}


def _loss(
    line: dict[str, float], pooled: float, pooled_freedom: int, level: float, horizon: float, largest: float
) -> dict[str, object]:
    from scipy.stats import t

    found: dict[str, object] = {"slope": line["slope"], "loss_upper": np.nan, "stable": None, "reason": ""}
    found["loss"] = 1 - float(np.exp(line["slope"] * horizon))
    if line["days"] < 2:
        return found | {"reason": "one day only: there is no slope"}
    if pooled_freedom < 1:
        return found | {"reason": "as many days as wells: nothing is left to judge the slope by"}
    own = line["freedom"] >= 10
    variance = line["squares"] / line["freedom"] if own else pooled
    freedom = line["freedom"] if own else pooled_freedom
    reach = float(t.ppf(level, freedom)) * np.sqrt(variance / line["spread"])
    upper = 1 - float(np.exp((line["slope"] - reach) * horizon))
    return found | {"loss_upper": upper, "stable": bool(upper < largest)}
