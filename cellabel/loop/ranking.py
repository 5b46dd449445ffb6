"""Across organelles: clones ranked, and a plate's tables beside those of the training plates."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cellabel.errors import InputError
from cellabel.stores import Home

__all__ = ["Ranked", "rank_plate", "report_prediction"]

KEYS = ["Metadata_Plate", "Metadata_Well"]


@dataclass(frozen=True)
class Ranked:
    """The ranking of a plate's clones, and a figure of the score by well (PNG)."""

    table: pd.DataFrame
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
        features = [name for name in table if not name.startswith("Metadata_")]
        wells = wells.merge(table[[*KEYS, *features]], on=KEYS, how="left")
    ranking = rank_clones(wells)
    home.tables.write(ranking, "ranking", plate_id)
    return Ranked(ranking, figure_png(plate_heatmap(score_wells(wells), "score")))
