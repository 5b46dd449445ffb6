"""An acquisition folder becomes a plate with a table of its quality."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from cellabel.errors import InputError
from cellabel.plates import Plate, import_plate, open_acquisition
from cellabel.plates.quality import FEATURES, QualityThresholds, plate_quality
from cellabel.stores import Home

__all__ = ["TakenIn", "look_at", "take_in"]


@dataclass(frozen=True)
class TakenIn:
    """A plate in the store, and the quality of its fields, one row a field."""

    plate: Plate
    quality: pd.DataFrame


def take_in(home: Home, plate_id: str, folder: str | os.PathLike[str] = "") -> TakenIn:
    """Import a plate and look at its fields before any normalisation.

    The wells' features are kept in the order of imaging: the drift streams read them in this order.

    Args:
        home: the stores.
        plate_id: the plate.
        folder: the acquisition folder; empty takes the folder that the plate came from before.

    Raises:
        InputError: no folder is known, or it cannot be imported.
    """
    before = home.plates.record(plate_id) or {}
    source = str(folder) or str(before.get("source", ""))
    if not source:
        raise InputError(
            f"No folder is known for plate {plate_id}: give `folder` in the run's configuration."
        )
    arrived = {
        "source": str(Path(source).resolve()),
        "first_seen": before.get("first_seen") or datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        inbox = home.settings.inbox
        acquisition = open_acquisition(source, channels=inbox.channels)
        plate = import_plate(
            acquisition,
            home.plates,
            plate_id=plate_id,
            max_bad_share=inbox.max_bad_share,
            link=acquisition.layout == "ome_zarr" and (inbox.link_ome_zarr or bool(before.get("linked"))),
        )
    finally:
        home.plates.update_record(plate_id, **arrived)
    return look_at(home, plate)


def look_at(home: Home, plate: Plate) -> TakenIn:
    """Judge the fields of a stored plate; keep the tables of quality, and of wells in the order of imaging.

    Raises:
        InputError: the plate has no field, or the settings name a threshold that does not exist.
    """
    limits = QualityThresholds.of_instrument(home.settings.quality, plate.instrument)
    quality = plate_quality(plate, limits)
    home.tables.write(quality, "quality", plate.plate_id)
    home.tables.write(_in_order_of_imaging(plate, quality), "acquisition", plate.plate_id)
    return TakenIn(plate, quality)


def _in_order_of_imaging(plate: Plate, quality: pd.DataFrame) -> pd.DataFrame:
    """One row a well: the mean of its fields' features; in the plan's order, else row by row."""
    wells = quality.groupby("Metadata_Well")[list(FEATURES)].mean().reindex(list(plate.wells))
    plan = plate.plan
    if plan is not None and "order" in plan and plan["order"].notna().all():
        wells = wells.loc[plan.loc[wells.index, "order"].sort_values(kind="stable").index]
    wells = wells.rename_axis("Metadata_Well").reset_index()
    wells.insert(0, "Metadata_Plate", plate.plate_id)
    return wells
