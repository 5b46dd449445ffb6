"""Across organelles and plates: clones ranked, and a plate's tables beside those of the training plates."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from upath import UPath

from cellabel.errors import InputError
from cellabel.organelles import Organelle
from cellabel.stores import Home, read_json, replace_bytes

__all__ = ["Ranked", "rank_plate", "report_prediction"]

KEYS = ["Metadata_Plate", "Metadata_Well"]
CLONE, DAY = "Metadata_Clone", "Metadata_Day"


@dataclass(frozen=True)
class Ranked:
    """A plate's clones, ranked.

    Attributes:
        table: one row a clone, see `cellabel.selection.rank_clones`.
        score: by which they are ranked.
        plates: whose wells were pooled, the plate itself first.
        figure: the score by well, PNG.
        forest: the clones with their intervals, PNG.
        stability: slopes over days, see `cellabel.selection.stability`; None where the plan names one day
            only.
        chart: the reference clone over plates, see `cellabel.measurement.reference_chart`; None without one.
    """

    table: pd.DataFrame
    score: str | dict[str, float]
    plates: tuple[str, ...]
    figure: bytes
    forest: bytes
    stability: pd.DataFrame | None = None
    chart: pd.DataFrame | None = None


def rank_plate(home: Home, plate_id: str) -> Ranked:
    """Rank the clones of a plate by what is measured on its predicted stains, and keep the tables.

    Wells of the same clones on other accepted plates are pooled with the plate's own where they were
    predicted by the same models and have not drifted.

    Raises:
        InputError: nothing has been measured on the plate, or the settings' score cannot be taken from it.
    """
    from cellabel.plates.quality import plate_heatmap
    from cellabel.reports import figure_png, ranking_figure
    from cellabel.selection import rank_clones, score_wells

    wells = plate_wells(home, plate_id)
    if wells is None:
        raise InputError(f"Nothing has been measured on plate {plate_id}: predict it first.")
    chosen = home.settings.selection
    score = chosen.score or _score(wells)
    others = _comparable(home, plate_id, wells) if chosen.pool_plates else {}
    study = pd.concat([wells, *others.values()], ignore_index=True)
    pooled = study
    if CLONE in wells and wells[CLONE].notna().any():
        pooled = study[study[CLONE].isin(wells[CLONE].dropna().unique())]
    else:
        pooled = wells
    ranking = rank_clones(pooled, score=score, top=chosen.top)
    home.tables.write(ranking, "ranking", plate_id)
    scored = wells.assign(score=score_wells(wells, score))
    heat = figure_png(plate_heatmap(scored, "score"))
    told = _stability(pooled, score)
    if told is not None:
        home.tables.write(told, "stability", plate_id)
    plates = (plate_id, *(name for name in others if name in set(pooled[KEYS[0]])))
    return Ranked(ranking, score, plates, heat, ranking_figure(ranking), told, _chart(study, score))


def plate_wells(home: Home, plate_id: str) -> pd.DataFrame | None:
    """A plate's wells with the features of all organelles and of the joined cells; None before any table."""
    places = [("wells", name, plate_id) for name in home.settings.organelles] + [("wells", plate_id)]
    tables = [home.tables.read(*parts) for parts in places if home.tables.has(*parts)]
    if not tables:
        return None
    wells = tables[0].drop(columns=["Metadata_Organelle"], errors="ignore")
    for table in tables[1:]:
        features = [name for name in table if not str(name).startswith("Metadata_") and name not in wells]
        wells = wells.merge(table[[*KEYS, *features]], on=KEYS, how="left")
    return wells


def _comparable(home: Home, plate_id: str, wells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The wells of other plates, oldest first, predicted alike and without drift, that share a clone."""
    if CLONE not in wells:
        return {}
    mine = _versions(home, plate_id)
    found = []
    for other in home.plates.accepted():
        verdict = read_json(home.detectors / "verdicts" / f"{other}.json") or {}
        if other == plate_id or verdict.get("drift") or _versions(home, other) != mine:
            continue
        table = plate_wells(home, other)
        if table is None or CLONE not in table or not table[CLONE].isin(wells[CLONE].dropna()).any():
            continue
        found.append((str((home.plates.record(other) or {}).get("acquired_at") or ""), other, table))
    return {name: table for _, name, table in sorted(found, key=lambda one: one[:2])}


def _versions(home: Home, plate_id: str) -> dict[str, int]:
    records = {name: home.predictions.record(f"{plate_id}/{name}") for name in home.settings.organelles}
    return {name: int(record["model_version"]) for name, record in records.items() if record}


def _stability(wells: pd.DataFrame, score: str | dict[str, float]) -> pd.DataFrame | None:
    """Slopes over days, where the plan names several and one score is followed."""
    from cellabel.selection import stability

    if DAY not in wells or CLONE not in wells or not isinstance(score, str):
        return None
    known = "Metadata_Role" in wells
    samples = wells[wells["Metadata_Role"].fillna("sample") == "sample"] if known else wells
    if pd.to_numeric(samples[DAY]).nunique() < 2:
        return None
    return stability(samples, score=score)


def _chart(wells: pd.DataFrame, score: str | dict[str, float]) -> pd.DataFrame | None:
    """The reference clone's score on every plate of the study."""
    from cellabel.measurement import reference_chart
    from cellabel.selection import score_wells

    if "Metadata_Role" not in wells or not (wells["Metadata_Role"] == "reference").any():
        return None
    scored = wells.assign(score=score_wells(wells, score).map(np.exp))
    try:
        return reference_chart(scored, "score")
    except InputError:  # no reference well has a score
        return None


def _score(wells: pd.DataFrame) -> str:
    """GFP area a cell where both are measured; never total GFP alone, which rewards density."""
    if {"Gfp_ExpectedArea", "Nuclei_Count"} <= set(wells.columns):
        return "gfp_expected_area_per_cell"
    return next(str(name) for name in wells if str(name).endswith("_Count"))


def report_prediction(home: Home, plate_id: str, organelle: Organelle) -> tuple[UPath, dict[str, Any]] | None:
    """Evidently's report of a plate's fields against those of the training plates.

    Returns:
        The HTML file, and the numbers of the report that a table can show; None where no training plate but
        this one has been measured.

    Raises:
        InputError: the plate has not been measured.
    """
    from cellabel.reports import evidently_report

    current = home.tables.read("fields", organelle.name, plate_id)
    plates = (home.datasets.record(organelle.name) or {}).get("plates", ())
    known = [name for name in plates if name != plate_id and home.tables.has("fields", organelle.name, name)]
    if not known:
        return None
    reference = pd.concat([home.tables.read("fields", organelle.name, name) for name in known])
    features = [str(name) for name in current if str(name).startswith(f"{organelle.prefix}_")]
    path = home.tables.root / "reports" / organelle.name / f"{plate_id}.html"
    with tempfile.TemporaryDirectory() as scratch:
        html = Path(scratch) / "report.html"
        numbers = evidently_report(current[features], reference[features], html)
        replace_bytes(path, html.read_bytes())
    told = {name: numbers[name] for name in ("drifted", "share")}
    scores = {f"score_{name}": found["score"] for name, found in numbers["columns"].items()}
    unlike = ", ".join(name for name, found in numbers["columns"].items() if found["drifted"])
    return path, {**told, "unlike_training": unlike or "none", "training_plates": ", ".join(known), **scores}
