"""What is true of a field and of a well: label images, cells, productivity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.simulation._clones import Clone
from cellabel.simulation._imaging import Station, oriented
from cellabel.simulation._physics import STAINS, Physics
from cellabel.simulation._randomness import stream
from cellabel.simulation._scene import Scene

__all__ = ["FieldTruth", "field_truth", "records", "well_truth"]

GOLGI_LEVEL = 0.25
"""Share of a bright Golgi above which a pixel counts as Golgi."""


@dataclass(frozen=True)
class FieldTruth:
    """Truth of one field: `labels` are (H, W) uint16 images by name, `cells` one row a visible cell."""

    labels: dict[str, NDArray[np.uint16]]
    cells: pd.DataFrame
    covered: float


def field_truth(
    station: Station, scene: Scene, cells: pd.DataFrame, conditions: Mapping[str, Any], plate_id: str
) -> FieldTruth:
    """Label images and cells of one field; labels run from 1 without gaps over the cells that show in it."""
    grid = station.grid
    coarse = grid.crop(scene.label)[::2, ::2]
    present = np.unique(coarse[coarse > 0])
    relabel = np.zeros(len(cells) + 1, np.uint16)
    relabel[present] = np.arange(1, len(present) + 1)
    golgi = grid.binned(scene.stains["golgi"]) > GOLGI_LEVEL
    positive = np.append(False, cells["gfp"].to_numpy() > 0)
    labels = {
        "cells": relabel[coarse],
        "nuclei": np.where(relabel[coarse] > 0, relabel[grid.crop(scene.nucleus)[::2, ::2]], 0).astype(
            np.uint16
        ),
        "golgi": golgi.astype(np.uint16),
        "gfp": positive[coarse].astype(np.uint16),
    }
    labels = {name: np.ascontiguousarray(oriented(image, conditions)) for name, image in labels.items()}
    chosen = cells.iloc[present - 1].reset_index(drop=True)
    table = _cell_table(station, scene, chosen, relabel, labels, conditions)
    table.insert(0, "Metadata_Plate", plate_id)
    table.insert(1, "Metadata_Well", conditions["Metadata_Well"])
    table.insert(2, "Metadata_Site", conditions["Metadata_Site"])
    return FieldTruth(labels, table, float((labels["cells"] > 0).mean()))


def _cell_table(
    station: Station,
    scene: Scene,
    cells: pd.DataFrame,
    relabel: NDArray[np.uint16],
    labels: Mapping[str, NDArray[np.uint16]],
    conditions: Mapping[str, Any],
) -> pd.DataFrame:
    n, label = len(cells), labels["cells"]
    pixel_area = station.grid.pixel_um**2
    area = np.bincount(label.ravel(), minlength=n + 1)[1:]
    nucleus = np.bincount(labels["nuclei"].ravel(), minlength=n + 1)[1:]
    rows, columns = (np.bincount(label.ravel(), axis.ravel(), n + 1)[1:] for axis in np.indices(label.shape))
    border = np.zeros(n + 1, bool)
    for side in (label[0], label[-1], label[:, 0], label[:, -1]):
        border[side] = True
    fine = relabel[station.grid.crop(scene.label)].ravel()
    table = pd.DataFrame(
        {
            "clone": conditions["clone"],
            "label": np.arange(1, n + 1),
            "x_px": columns / np.maximum(area, 1),
            "y_px": rows / np.maximum(area, 1),
            "area_px": area,
            "area_um2": area * pixel_area,
            "nucleus_area_px": nucleus,
            "nucleus_area_um2": nucleus * pixel_area,
            "whole_nucleus_um2": cells["nucleus_um2"],
            "height_um": cells["height_um"],
            "touches_border": border[1:],
            "state": cells["state"],
            "dead": cells["state"] == "dead",
            "mitotic": cells["state"] == "mitotic",
            "rounded": cells["state"].isin(["mitotic", "rounded"]),
            "doublet": cells["doublet"],
            "propidium": cells["state"] == "dead",
            "dna": cells["dna"],
            "gfp": cells["gfp"],
            "gfp_positive": cells["gfp"] > 0,
            "log_gfp": cells["log_gfp"],
            "er": cells["er"],
            "visible_morphology": cells["visible"],
        }
    )
    for stain in STAINS:
        scale = station.physics.peak_electrons[stain] * conditions[f"yield_{stain}"] / 4
        light = np.bincount(fine, station.grid.crop(scene.stains[stain]).ravel(), n + 1)[1 : n + 1]
        table[f"{stain}_total"] = light * scale
    return table


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, by column name."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def well_truth(
    plan: pd.DataFrame,
    cells: pd.DataFrame,
    truths: Sequence[FieldTruth],
    plate_id: str,
    seed: int,
    clone_of: Callable[[Mapping[str, Any]], Clone],
    physics: Physics,
) -> pd.DataFrame:
    """One row a well: what was imaged of it, and its productivity.

    log productivity = 0.7 · log(mean GFP) + 0.5 · log(mean ER) + what neither shows of the clone and of the
    well; 0 for wells that make no product.
    """
    sites = len(truths) // len(plan)
    rows = []
    for i, well in enumerate(records(plan)):
        here = cells[cells["Metadata_Well"] == well["Metadata_Well"]]
        alive = here[~here["dead"]]
        row = {"Metadata_Plate": plate_id, **{key: well[key] for key in ("Metadata_Well", "clone", "role")}}
        row |= {
            "n_cells": len(here),
            "n_dead": int(here["dead"].sum()),
            "confluence": float(np.mean([truth.covered for truth in truths[i * sites : (i + 1) * sites]])),
            "mean_gfp": float(alive["gfp"].mean()) if len(alive) else 0.0,
            "gfp_positive_share": float(alive["gfp_positive"].mean()) if len(alive) else 0.0,
            "mean_er": float(alive["er"].mean()) if len(alive) else 0.0,
        }
        hidden = physics.productivity_noise[1] * float(
            stream("productivity", seed, well["Metadata_Well"]).standard_normal()
        )
        if row["mean_gfp"] > 0:
            shown = 0.7 * np.log(row["mean_gfp"]) + 0.5 * np.log(row["mean_er"])
            row["productivity"] = float(np.exp(shown + clone_of(well).log_productivity + hidden))
        else:
            row["productivity"] = 0.0
        rows.append(row)
    return pd.DataFrame(rows)
