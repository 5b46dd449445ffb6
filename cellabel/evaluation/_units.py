"""How many plates and wells there are to judge by, over all metrics and for each of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from cellabel.evaluation._gate_settings import GateSettings


def count_units(rows: pd.DataFrame, column: str) -> tuple[int, int]:
    """Plates and wells that have a finite value in a column."""
    usable = rows[np.isfinite(rows[column].to_numpy(dtype=float))]
    return int(usable["plate"].nunique()), len(usable[["plate", "well"]].drop_duplicates())


def too_few(units: tuple[int, int], settings: GateSettings) -> bool:
    """Whether so many plates and wells are fewer than the gate asks for."""
    return units[0] < settings.min_plates or units[1] < settings.min_wells


def scarce_metrics(
    rows: pd.DataFrame, metrics: Iterable[str], column: str, settings: GateSettings
) -> dict[str, tuple[int, int]]:
    """The plates and wells of each metric that has too few, and fewer than all metrics together."""
    whole = count_units(rows, column)
    counts = {metric: count_units(rows[rows["metric"] == metric], column) for metric in metrics}
    return {metric: units for metric, units in counts.items() if units != whole and too_few(units, settings)}
