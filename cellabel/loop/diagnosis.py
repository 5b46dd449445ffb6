"""What an incident looks like: the known corruption that explains it best, told to whoever was told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellabel.alerts import Alert, AlertLedger, alert_id
from cellabel.drift import Diagnosis, diagnose
from cellabel.drift.incidents import Incident
from cellabel.errors import InputError
from cellabel.loop.embeddings import embedding_matrix, field_embedding
from cellabel.loop.incidents import drift_link, read_incident, record_diagnosis
from cellabel.loop.streams import Epoch, open_epoch
from cellabel.loop.watch import stored_verdict
from cellabel.networks import OrganelleModel
from cellabel.plates import Field, open_plate
from cellabel.registry import ModelRegistry
from cellabel.stores import Home

__all__ = ["Diagnosed", "diagnose_incident"]

LEAST_WELLS = 4
"""Wells that are looked at, and that make a group on the map."""


@dataclass(frozen=True)
class Diagnosed:
    """A diagnosis, and where it is shown.

    Attributes:
        diagnosis: of the incident.
        sentence: for a person, with the wells.
        organelle: whose embeddings were looked at.
        plate: the drifted plate that was looked at.
        figure: the statistic over the plate's wells, PNG.
        map: the plate's wells among those of the reference plates, PNG; None where these have no embeddings.
    """

    diagnosis: Diagnosis
    sentence: str
    organelle: str
    plate: str
    figure: bytes
    map: bytes | None = None


@dataclass(frozen=True)
class _Look:
    """One organelle's look at the drifted plate: its rows from well `first` on were compared."""

    epoch: Epoch
    wells: list[str]
    rows: NDArray[np.float64]
    first: int
    diagnosis: Diagnosis


def diagnose_incident(
    home: Home, registry: ModelRegistry, ledger: AlertLedger, incident_id: str
) -> Diagnosed:
    """Compare the drifted wells with reference fields under every known corruption, and tell the result.

    The most harmed organelle is looked at first, then the others that drifted, until one knows the cause with
    the
    confidence that the settings ask for: networks differ in what their embeddings see.

    Raises:
        InputError: no such incident, or no champion whose embeddings could be compared.
    """
    from cellabel.reports import drift_timeline_figure

    incident = read_incident(home, incident_id)
    plate = incident.plates[-1]
    looks: list[_Look] = []
    for epoch in _epochs(home, incident):
        looks.append(_look(home, registry, epoch, plate))
        if _is_known(looks[-1].diagnosis, home.settings.drift.min_confidence):
            break
    best = looks[-1] if _is_known(looks[-1].diagnosis, home.settings.drift.min_confidence) else looks[0]
    diagnosis = best.diagnosis
    record_diagnosis(home, incident, diagnosis)
    sentence = (
        f"{plate} {diagnosis.sentence}, from well {best.wells[best.first]} on, by its {best.epoch.stream} "
        f"embeddings "
        f"(confidence {diagnosis.confidence:.0%})."
    )
    _tell(home, ledger, incident, best.epoch, plate, sentence, diagnosis)
    detector = best.epoch.detector
    steps: list[Any] = [] if detector is None else detector.update_many(best.rows)
    limits = [best.epoch.margin * step.threshold for step in steps]
    figure = drift_timeline_figure([step.statistic for step in steps], limits, best.wells)
    return Diagnosed(diagnosis, sentence, best.epoch.stream, plate, figure, _map(home, best, plate))


def _map(home: Home, look: _Look, plate: str) -> bytes | None:
    """The plate's wells among those of the reference plates, groups of nearly none but its own told apart."""
    from cellabel.projections import cluster, new_groups, project
    from cellabel.reports import embedding_map_figure

    epoch = look.epoch
    parts = ("embeddings", epoch.stream, f"v{epoch.model_version}")
    known = [home.tables.read(*parts, one) for one in epoch.plates if home.tables.has(*parts, one)]
    if not known:
        return None
    reference = epoch.standardise(np.concatenate([embedding_matrix(table) for table in known]))
    is_new = np.arange(len(reference) + len(look.rows)) >= len(reference)
    try:
        points = project(np.concatenate([reference, look.rows]), "pacmap", seed=home.settings.models.seed)
        groups = cluster(points, "hdbscan", smallest=LEAST_WELLS)
    except InputError:  # too few wells for neighbourhoods; the diagnosis stands without
        return None
    apart = is_new & np.isin(groups, new_groups(groups, is_new))
    told = f"{plate}, new group ({apart.sum()} wells)"  # wells alike lie on top of each other
    labels = np.where(apart, told, np.where(is_new, plate, "reference"))
    title = f"{plate}, {epoch.stream}: {apart.sum()} of {is_new.sum()} wells in a group of their own"
    return embedding_map_figure(points, labels.tolist(), title=title, method="PaCMAP")


def _is_known(diagnosis: Diagnosis, confidence: float) -> bool:
    return diagnosis.kind is not None and diagnosis.confidence >= confidence


def _look(home: Home, registry: ModelRegistry, epoch: Epoch, plate: str) -> _Look:
    table = home.tables.read("embeddings", epoch.stream, f"v{epoch.model_version}", plate)
    order = home.tables.read("acquisition", plate)["Metadata_Well"].tolist()
    wells = [well for well in order if well in set(table["Metadata_Well"])]
    rows = epoch.standardise(embedding_matrix(table.set_index("Metadata_Well").loc[wells].reset_index()))
    first = _first_well(home, epoch.stream, plate, wells)
    model = registry.load(epoch.stream, epoch.model_version)

    def embed(images: Sequence[NDArray]) -> NDArray[np.float64]:
        return epoch.standardise(np.stack([_embed(model, image) for image in images]))

    images = [field.image("transmitted") for field in _reference_fields(home, epoch)]
    diagnosis = diagnose(embed, images, rows[first:], seed=home.settings.models.seed)
    return _Look(epoch, wells, rows, first, diagnosis)


def _epochs(home: Home, incident: Incident) -> list[Epoch]:
    """Calibrated epochs of the organelles that drifted, the most harmed first; else of any organelle."""
    drifted = [name for name in incident.streams if name in home.settings.organelles]
    names = dict.fromkeys([str(incident.most_harmed), *drifted] if drifted else home.settings.organelles)
    found = [
        epoch
        for name in names
        if name in home.settings.organelles
        and (epoch := open_epoch(home, incident.instrument, name)) is not None
        and epoch.detector is not None
    ]
    if not found:
        raise InputError(
            f"No organelle on {incident.instrument} has a calibrated stream: train and promote a model first."
        )
    return found


def _first_well(home: Home, stream: str, plate: str, wells: list[str]) -> int:
    """Where the drift is taken to have begun on a plate, leaving at least LEAST_WELLS to look at."""
    said = ((stored_verdict(home, plate) or {}).get("streams") or {}).get(stream) or {}
    began_on, _, well = str(said.get("change_id") or "").partition("/")
    place = wells.index(well) if began_on == plate and well in wells else 0
    return max(0, min(place, len(wells) - LEAST_WELLS))


def _reference_fields(home: Home, epoch: Epoch) -> list[Field]:
    """Fields of the reference plates, one a well, spread evenly."""
    fields = [
        next(iter(well.fields.values()))
        for plate_id in epoch.plates
        for well in open_plate(home.plates, plate_id).wells.values()
    ]
    chosen = np.linspace(0, len(fields) - 1, min(home.settings.drift.diagnosis_fields, len(fields))).round()
    return [fields[int(place)] for place in chosen]


def _embed(model: OrganelleModel, image: NDArray) -> NDArray[np.float32]:
    from cellabel.prediction import predict_image

    prediction = predict_image(model, image, return_embeddings=True)
    return field_embedding(prediction.embedding, prediction.foreground_embedding)


def _tell(
    home: Home,
    ledger: AlertLedger,
    incident: Incident,
    epoch: Epoch,
    plate: str,
    sentence: str,
    diagnosis: Diagnosis,
) -> None:
    turn = incident.actions.count("diagnose")
    ledger.write(
        Alert(
            id=alert_id("diagnosis", incident.id, turn),
            kind="diagnosis",
            title=f"The drift on {incident.instrument} {diagnosis.sentence}",
            body=sentence,
            severity="warning",
            plate=plate,
            organelle=epoch.stream,
            link=drift_link(home, epoch.stream, plate),
            data={"incident": incident.id, **diagnosis.to_dict()},
        )
    )
