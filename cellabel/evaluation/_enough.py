"""Rule 1 of the gate: whether there is enough to judge by, over all metrics and for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cellabel.evaluation._gate_settings import GateSettings


@dataclass
class Findings:
    """The table's rows so far, what speaks against a promotion, and what limits the claim."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


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


def tell_few(challenger: pd.DataFrame, settings: GateSettings, found: Findings) -> None:
    """Warn where a first model, or one of its metrics, was judged on too few plates or wells."""
    units = {"The first model": count_units(challenger, "log_error")}
    of_metrics = scarce_metrics(challenger, challenger["metric"].unique(), "log_error", settings)
    units |= {f"{metric} of the first model": counts for metric, counts in of_metrics.items()}
    for what, (plates, wells) in units.items():
        if too_few((plates, wells), settings):
            found.warnings.append(
                f"{what} was judged on {plates} plate(s) and {wells} well(s), fewer than the "
                f"{settings.min_plates} plates and {settings.min_wells} wells that a later one needs."
            )


def check_enough(clean: pd.DataFrame, settings: GateSettings, found: Findings) -> None:
    """Rule 1: enough plates and wells."""
    plates, wells = count_units(clean, "difference")
    if too_few((plates, wells), settings):
        found.objections.append(
            f"{plates} plate(s) and {wells} wells are too few for an automatic promotion "
            f"(at least {settings.min_plates} and {settings.min_wells}), a person may promote"
        )


def check_metrics(
    pairs: pd.DataFrame,
    metrics: Sequence[str],
    conditions: Sequence[str],
    settings: GateSettings,
    found: Findings,
) -> None:
    """Rule 1, for every metric under every condition that a promotion rests on."""
    wanted = dict.fromkeys([*metrics, *pairs["metric"].unique()])
    for condition in dict.fromkeys(conditions):
        rows = pairs[pairs["condition"] == condition]
        for metric, (plates, wells) in scarce_metrics(rows, wanted, "difference", settings).items():
            found.objections.append(
                f"no automatic promotion, because {metric} was measured on {plates} plate(s) and {wells} "
                f"well(s) ({condition}; at least {settings.min_plates} and {settings.min_wells})"
            )


def check_reuse(reuse: int, settings: GateSettings, found: Findings) -> None:
    """Rule 1: a test set that is not used up."""
    if reuse >= settings.max_reuse:
        found.objections.append(
            f"the test wells have decided {reuse} times already, a fresh stained plate is needed"
        )
    elif reuse:
        found.warnings.append(
            f"The test wells have decided {reuse} time(s) before: alpha is {settings.alpha * 0.5**reuse:.4g}."
        )
