"""How far a plate's numbers may be from the truth: calibrated with the model, void on a drifted plate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cellabel.evaluation import calibrate_intervals, with_intervals
from cellabel.stores import Home, read_json, write_json

if TYPE_CHECKING:  # the drift sensor comes by here: neither torch nor mlflow
    from cellabel.loop.held_out import HeldOut
    from cellabel.registry import ModelRegistry

__all__ = ["INTERVALS", "keep_intervals", "refresh_intervals", "reliable", "write_intervals"]

INTERVALS = "intervals.json"
"""The file of a model version: feature → interval."""
LEAST_PLATES = 9
"""Plates from which an interval speaks of new plates."""


def write_intervals(folder: Path, held_out: HeldOut, cross_validated: HeldOut | None = None) -> None:
    """Calibrate a challenger's intervals on wells that it never saw, into its folder.

    The held-out wells are used; those of the cross-validation only where they come from more plates than the
    held-out ones and these are too few to speak of new plates.
    """
    chosen = held_out
    if cross_validated is not None:
        plates, more = (one.measured["Metadata_Plate"].nunique() for one in (held_out, cross_validated))
        if more > plates and plates < LEAST_PLATES:
            chosen = cross_validated
    intervals = calibrate_intervals(chosen.wells("true"), chosen.wells("predicted"))
    (folder / INTERVALS).write_text(json.dumps(intervals, indent=1, sort_keys=True) + "\n")


def keep_intervals(home: Home, registry: ModelRegistry, organelle: str, version: int) -> None:
    """Copy a version's intervals beside the tables, where they can be read without the registry."""
    kept = _kept(home, organelle, version)
    if kept.exists():  # a version never changes
        return
    path = registry.folder(organelle, version) / INTERVALS
    write_json(kept, json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})


def reliable(home: Home, wells: pd.DataFrame, organelle: str, version: int) -> pd.DataFrame:
    """A plate's well table with its version's intervals, void where the plate's verdict is drift."""
    intervals: Mapping[str, Any] = read_json(_kept(home, organelle, version)) or {}
    plate = str(wells["Metadata_Plate"].iloc[0]) if len(wells) else ""
    return with_intervals(wells, intervals, drifted=_has_drifted(home, plate))


def refresh_intervals(home: Home, plate_id: str) -> list[str]:
    """Bring the intervals of a plate's tables in line with its drift verdict; repeating it changes nothing.

    Returns:
        The organelles whose tables changed.
    """
    changed = []
    for organelle in home.settings.organelles:
        if not home.tables.has("wells", organelle, plate_id):
            continue
        wells = home.tables.read("wells", organelle, plate_id)
        version = int(wells["Metadata_ModelVersion"].iloc[0])
        anew = reliable(home, wells, organelle, version)
        if not anew.equals(wells):
            home.tables.write(anew, "wells", organelle, plate_id)
            home.tables.write(anew, "versions", organelle, f"v{version}", plate_id)
            changed.append(organelle)
    return changed


def _has_drifted(home: Home, plate_id: str) -> bool:
    verdict = read_json(home.detectors / "verdicts" / f"{plate_id}.json") or {}
    return bool(verdict.get("drift"))


def _kept(home: Home, organelle: str, version: int) -> Any:
    return home.tables.root / "intervals" / organelle / f"v{version}.json"
