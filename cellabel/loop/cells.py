"""A plate's cells: what all organelles show of each, its flags, and what wells and the plate make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cellabel.errors import InputError
from cellabel.loop.agreements import field_keys
from cellabel.loop.predictions import PREDICTED, with_plan
from cellabel.measurement import Layer, flag_cells, join_cells, plate_statistics, summarise_wells
from cellabel.organelles import ORGANELLES
from cellabel.plates import Field, Plate, open_plate, read_plate
from cellabel.stores import Home

__all__ = ["JoinedPlate", "join_plate"]

WELL = ["Metadata_Plate", "Metadata_Well"]
JUDGED = ("Cells_LiveCount", "Cells_Viability", "Cells_GfpPositiveShare", "Cells_Median_GfpPerCell")
"""Columns of the well table that the plate is judged by."""


@dataclass(frozen=True)
class JoinedPlate:
    """A plate by its cells.

    Attributes:
        cells: one row a cell, with flags.
        wells: one row a well, see `cellabel.measurement.summarise_wells`, with the plan.
        statistics: one row a feature, see `cellabel.measurement.plate_statistics`.
        organelles: which were joined, with the version that predicted each.
        figure: overlays of one field, PNG.
        shown: the field of the figure: well and site.
    """

    cells: pd.DataFrame
    wells: pd.DataFrame
    statistics: pd.DataFrame
    organelles: Mapping[str, int]
    figure: bytes
    shown: tuple[str, int]


def join_plate(home: Home, plate_id: str) -> JoinedPlate:
    """Join the current predictions of a plate by the nuclei, flag and sum up the cells, and keep the tables.

    Raises:
        InputError: the nuclei of the plate have not been predicted.
    """
    plate = open_plate(home.plates, plate_id)
    records = {name: home.predictions.record(f"{plate_id}/{name}") for name in ORGANELLES}
    versions = {name: int(record["model_version"]) for name, record in records.items() if record}
    if "nuclei" not in versions:
        raise InputError(
            f"Plate {plate_id} has no prediction of nuclei, by which cells are joined: predict them."
        )
    predicted = {
        name: read_plate(home.predictions.path(f"{plate_id}/{name}") / PREDICTED) for name in versions
    }
    cells, fields, widest = [], [], (-1, ("", 0))
    for field in predicted["nuclei"].fields():
        joined = join_cells(_layers(predicted, field), pixel_size_um=plate.pixel_size_um)
        keys = field_keys(field)
        cells.append(joined.table.assign(**keys))
        fields.append({**keys, "AreaShare": joined.area_share, "OrphanShare": joined.orphan_share})
        widest = max(widest, (len(joined.table), (field.well, field.site)))
    table = flag_cells(with_plan(pd.concat(cells, ignore_index=True), plate))
    field_table = pd.DataFrame(fields)
    wells = with_plan(summarise_wells(table, field_table), plate)
    statistics = plate_statistics(wells, [name for name in JUDGED if name in wells])
    home.tables.write(table, "cells", plate_id)
    home.tables.write(wells, "wells", plate_id)
    home.tables.write(statistics, "statistics", plate_id)
    figure = _overlays(predicted, widest[1], plate)
    return JoinedPlate(table, wells, statistics, versions, figure, widest[1])


def _layers(predicted: Mapping[str, Plate], nuclei: Field) -> dict[str, Layer]:
    """The layers of one field, of the organelles that were predicted there."""
    layers = {}
    for name, plate in predicted.items():
        sites: Mapping[int, Field] = plate.wells[nuclei.well].fields if nuclei.well in plate.wells else {}
        if nuclei.site in sites:
            field = sites[nuclei.site]
            layers[name] = Layer(field.image(name), field.labels(name))
    return layers


def _overlays(predicted: Mapping[str, Plate], place: tuple[str, int], plate: Plate) -> bytes:
    """The field with the most cells, its predicted stains over each other."""
    from cellabel.reports import overlay_figure

    layers = _layers(predicted, predicted["nuclei"].wells[place[0]].fields[place[1]])
    cells = join_cells(layers, pixel_size_um=plate.pixel_size_um).labels
    stains: dict[str, Any] = {name: layer.image for name, layer in layers.items()}
    return overlay_figure(
        stains,
        cells=cells,
        title=f"{plate.plate_id}, well {place[0]}, site {place[1]}: predicted",
        pixel_size_um=plate.pixel_size_um,
    )
