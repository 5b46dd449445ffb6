"""A plate's predictions against its own stain, and against exact truth where an acquisition brings it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from upath import UPath

from cellabel.evaluation import downstream_metrics, match_objects, matched_cells
from cellabel.loop.stains import stained
from cellabel.measurement import measure_field, measure_objects, measure_well
from cellabel.organelles import Organelle
from cellabel.plates import Field, Plate
from cellabel.stores import Home

__all__ = ["Agreements", "compare_with_stain", "compare_with_truth", "exact_truth", "measure_stain"]

WELL = ["Metadata_Plate", "Metadata_Well"]
FIELD = [*WELL, "Metadata_Site"]
CELL = [*FIELD, "Metadata_ObjectNumber"]
CELL_FEATURES = ("AreaShape_Area", "Intensity_MeanIntensity", "Intensity_IntegratedIntensity")
CELL_RESAMPLES = 300
"""Fewer than of wells: cells are many and their intervals narrow."""


@dataclass(frozen=True)
class Agreements:
    """Predicted against stained.

    Attributes:
        table: one row a level ("field", "well", "cell") and feature, see `downstream_metrics`.
        true, predicted: the wells that were compared, one row a well.
        objects: how many objects the stain shows, the prediction shows, and are the same (IoU above 0.5).
    """

    table: pd.DataFrame
    true: pd.DataFrame
    predicted: pd.DataFrame
    objects: Mapping[str, int]

    @property
    def counts(self) -> pd.DataFrame:
        """How many objects each side shows, how many are the same, and F1, as a row."""
        return pd.DataFrame([{**self.objects, "f1": self.f1}])

    @property
    def f1(self) -> float:
        """Of predicted objects against stained ones; NaN where neither side shows any."""
        both = self.objects["true"] + self.objects["predicted"]
        return 2 * self.objects["matched"] / both if both else float("nan")


def measure_stain(plate: Plate, organelle: Organelle) -> pd.DataFrame | None:
    """What the same recipe measures on the plate's own stain, one row a field; None without a stain."""
    rows = []
    for field in plate.fields():
        truth = stained(field, plate, organelle)
        if truth is None:
            continue
        features = measure_field(
            truth.labels, truth.target, organelle=organelle.name, pixel_size_um=plate.pixel_size_um
        )
        rows.append(features.assign(**field_keys(field)))
    return pd.concat(rows, ignore_index=True) if rows else None


def compare_with_stain(
    home: Home, plate: Plate, predicted: Plate, organelle: Organelle, fields: pd.DataFrame
) -> Agreements | None:
    """Agreement per field, well and cell with the same segmentation of the true stain, kept as tables.

    Args:
        home: the stores.
        plate: as acquired.
        predicted: the predicted plate, with labels.
        organelle: its recipe.
        fields: what was measured on the prediction, one row a field; with Metadata_Clone if a plan names it.

    Returns:
        None where the plate has no such stain, or fewer than two wells were measured on both sides.
    """
    images = {field.key: field for field in predicted.fields()}
    options: dict[str, Any] = {"organelle": organelle.name, "pixel_size_um": plate.pixel_size_um}
    rows, cells, objects = [], [], dict.fromkeys(("true", "predicted", "matched"), 0)
    for field in plate.fields():
        truth = stained(field, plate, organelle)
        if truth is None:
            continue
        keys = field_keys(field)
        rows.append(measure_field(truth.labels, truth.target, **options).assign(**keys))
        if field.key not in images:
            continue
        other = images[field.key]
        labels = other.labels(organelle.name)
        pairs = match_objects(truth.labels, labels)
        left = measure_objects(truth.labels, truth.target, **options)
        right = measure_objects(labels, other.image(organelle.name), **options)
        found = (len(left), len(right), len(pairs))
        objects = {name: objects[name] + n for name, n in zip(objects, found, strict=True)}
        cells.append([side.assign(**keys) for side in matched_cells(left, right, pairs)])
    if not rows:
        return None
    true_fields = pd.concat(rows, ignore_index=True)
    true_wells, wells = measure_well(true_fields), measure_well(fields[[*FIELD, *_features(fields)]])
    home.tables.write(true_fields, "stained_fields", organelle.name, plate.plate_id)
    home.tables.write(true_wells, "stained", organelle.name, plate.plate_id)
    both = true_wells[WELL].merge(wells[WELL])
    if len(both) < 2:
        return None
    sides = {
        "field": (true_fields, fields, FIELD, 2000),
        "well": (true_wells, wells, WELL, 2000),
        "cell": (*_cell_sides(cells, organelle), CELL, CELL_RESAMPLES),
    }
    parts = [_agreement(level, *side, clones=_clones(fields)) for level, side in sides.items()]
    table = pd.concat([part for part in parts if part is not None], ignore_index=True)
    home.tables.write(table, "agreement", organelle.name, plate.plate_id)
    return Agreements(table, both.merge(true_wells), both.merge(wells), objects)


def exact_truth(home: Home, plate_id: str, organelle: Organelle) -> pd.DataFrame | None:
    """What is exactly true of a plate's wells, where its acquisition brings `truth/cells.csv` beside it.

    Simulated acquisitions do; a laboratory may write one from counts by hand. The columns are
    Metadata_Well, Metadata_Site and, of a cell, nucleus_area_px, gfp_positive, area_px. No step of the loop
    learns from it or decides by it.

    Returns:
        One row a well: Metadata_Plate, Metadata_Well, and <P>_Count, <P>_TotalArea (px) of nuclei and gfp
        (of this also <P>_ExpectedArea, the same: what is true is certain); None where the truth is not known.
    """
    source = (home.plates.record(plate_id) or {}).get("source")
    path = UPath(source) / "truth" / "cells.csv" if source else None
    if path is None or not path.exists() or organelle.name not in ("nuclei", "gfp"):
        return None
    cells = pd.read_csv(io.BytesIO(path.read_bytes()))
    area = cells["nucleus_area_px"] if organelle.name == "nuclei" else cells["area_px"]
    shown = area > 0 if organelle.name == "nuclei" else cells["gfp_positive"].astype(bool)
    groups = pd.DataFrame({"area": area.where(shown, 0), "shown": shown}).groupby(cells["Metadata_Well"])
    prefix = organelle.prefix
    table = groups.sum().rename(columns={"area": f"{prefix}_TotalArea", "shown": f"{prefix}_Count"})
    if organelle.target == "binary":
        table[f"{prefix}_ExpectedArea"] = table[f"{prefix}_TotalArea"]
    table = table.astype(float).rename_axis("Metadata_Well").reset_index()
    table.insert(0, "Metadata_Plate", plate_id)
    return table


def compare_with_truth(
    home: Home, plate_id: str, organelle: Organelle, wells: pd.DataFrame
) -> pd.DataFrame | None:
    """Agreement of the wells with exact truth, kept as a table; None where the truth is not known."""
    truth = exact_truth(home, plate_id, organelle)
    if truth is None:
        return None
    both = truth[WELL].merge(wells[WELL])
    if len(both) < 2:
        return None
    features = _features(truth)
    said = wells[[*WELL, *features]]
    table = _agreement("truth", both.merge(truth), both.merge(said), WELL, 2000, clones=_clones(wells))
    if table is not None:
        home.tables.write(table, "agreement_with_truth", organelle.name, plate_id)
    return table


def field_keys(field: Field) -> dict[str, Any]:
    """The columns that name a field."""
    return {"Metadata_Plate": field.plate_id, "Metadata_Well": field.well, "Metadata_Site": field.site}


def _features(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table if not str(name).startswith("Metadata_")]


def _clones(table: pd.DataFrame) -> pd.DataFrame:
    """Well → clone, where a plan names it."""
    wanted = [*WELL, *(["Metadata_Clone"] if "Metadata_Clone" in table else [])]
    return table[wanted].drop_duplicates(WELL)


def _cell_sides(cells: list[list[pd.DataFrame]], organelle: Organelle) -> tuple[pd.DataFrame, pd.DataFrame]:
    columns = [*CELL, *(f"{organelle.prefix}_{name}" for name in CELL_FEATURES)]
    if not cells:
        return pd.DataFrame(columns=columns), pd.DataFrame(columns=columns)
    left, right = (pd.concat(side, ignore_index=True)[columns] for side in zip(*cells, strict=True))
    return left, right


def _agreement(
    level: str,
    true: pd.DataFrame,
    predicted: pd.DataFrame,
    keys: list[str],
    resamples: int,
    *,
    clones: pd.DataFrame,
) -> pd.DataFrame | None:
    """Downstream metrics over the units that both sides have."""
    both = true[keys].merge(predicted[keys])
    if both.empty:
        return None
    features = [name for name in _features(true) if name in predicted]
    sides = [both.merge(side[[*keys, *features]]).merge(clones, how="left") for side in (true, predicted)]
    found = downstream_metrics(*sides, by=keys, n_bootstrap=resamples)
    found.insert(0, "level", level)
    return found
