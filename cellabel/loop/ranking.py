"""Across organelles: clones ranked, and a plate's tables beside those of the training plates."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from upath import UPath

from cellabel.errors import InputError
from cellabel.organelles import Organelle
from cellabel.stores import Home, replace_bytes

__all__ = ["Ranked", "rank_plate", "report_prediction"]

KEYS = ["Metadata_Plate", "Metadata_Well"]


@dataclass(frozen=True)
class Ranked:
    """The ranking of a plate's clones, what they are ranked by, and a figure of it by well (PNG)."""

    table: pd.DataFrame
    score: str
    figure: bytes


def rank_plate(home: Home, plate_id: str) -> Ranked:
    """Rank the clones of a plate by what is measured on its predicted stains, and keep the table.

    Raises:
        InputError: nothing has been measured on the plate.
    """
    from cellabel.plates.quality import plate_heatmap
    from cellabel.reports import figure_png
    from cellabel.selection import rank_clones, score_wells

    tables = [
        home.tables.read("wells", name, plate_id)
        for name in home.settings.organelles
        if home.tables.has("wells", name, plate_id)
    ]
    if not tables:
        raise InputError(f"Nothing has been measured on plate {plate_id}: predict it first.")
    wells = tables[0]
    for table in tables[1:]:
        features = [str(name) for name in table if not str(name).startswith("Metadata_")]
        wells = wells.merge(table[[*KEYS, *features]], on=KEYS, how="left")
    score = _score(wells)
    ranking = rank_clones(wells, score=score)
    home.tables.write(ranking, "ranking", plate_id)
    scored = wells.assign(score=score_wells(wells, score))
    return Ranked(ranking, score, figure_png(plate_heatmap(scored, "score")))


def _score(wells: pd.DataFrame) -> str:
    """GFP area a cell where both are measured; never total GFP alone, which rewards density."""
    if {"Gfp_TotalArea", "Nuclei_Count"} <= set(wells.columns):
        return "gfp_area_per_cell"
    return next(str(name) for name in wells if str(name).endswith("_Count"))


def report_prediction(home: Home, plate_id: str, organelle: Organelle) -> tuple[UPath, dict[str, Any]]:
    """Evidently's report of a plate's fields against those of the training plates.

    Returns:
        The HTML file, and the numbers of the report that a table can show.

    Raises:
        InputError: the plate has not been measured, or no training plate has.
    """
    from cellabel.reports import evidently_report

    current = home.tables.read("fields", organelle.name, plate_id)
    plates = (home.datasets.record(organelle.name) or {}).get("plates", ())
    known = [name for name in plates if name != plate_id and home.tables.has("fields", organelle.name, name)]
    if not known:
        raise InputError(f"No training plate of {organelle.name} has been measured: predict them first.")
    reference = pd.concat([home.tables.read("fields", organelle.name, name) for name in known])
    features = [str(name) for name in current if str(name).startswith(f"{organelle.prefix}_")]
    path = home.tables.root / "reports" / organelle.name / f"{plate_id}.html"
    with tempfile.TemporaryDirectory() as scratch:
        html = Path(scratch) / "report.html"
        numbers = evidently_report(current[features], reference[features], html)
        replace_bytes(path, html.read_bytes())
    return path, {name: numbers[name] for name in ("drifted", "share")}
