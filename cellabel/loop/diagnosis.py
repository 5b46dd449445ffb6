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
from cellabel.loop.incidents import read_incident, record_diagnosis
from cellabel.loop.streams import Epoch, open_epoch
from cellabel.networks import OrganelleModel
from cellabel.plates import Field, open_plate
from cellabel.registry import ModelRegistry
from cellabel.stores import Home

__all__ = ["Diagnosed", "diagnose_incident"]


@dataclass(frozen=True)
class Diagnosed:
    """A diagnosis, and where it is shown.

    Attributes:
        diagnosis: of the incident.
        sentence: for a person, with the wells.
        organelle: whose embeddings were looked at.
        plate: the drifted plate that was looked at.
        figure: the statistic over the plate's wells, PNG.
    """

    diagnosis: Diagnosis
    sentence: str
    organelle: str
    plate: str
    figure: bytes


def diagnose_incident(
    home: Home, registry: ModelRegistry, ledger: AlertLedger, incident_id: str
) -> Diagnosed:
    """Compare the drifted wells with reference fields under every known corruption, and tell the result.

    Raises:
        InputError: no such incident, or no champion whose embeddings could be compared.
    """
    from cellabel.reports import drift_timeline_figure

    incident = read_incident(home, incident_id)
    epoch = _epoch(home, incident)
    plate = incident.plates[-1]
    table = home.tables.read("embeddings", epoch.stream, f"v{epoch.model_version}", plate)
    order = home.tables.read("acquisition", plate)["Metadata_Well"].tolist()
    table = table.set_index("Metadata_Well").loc[
        [well for well in order if well in set(table["Metadata_Well"])]
    ]
    rows = epoch.standardise(embedding_matrix(table.reset_index(names="Metadata_Well")))
    wells = table.index.tolist()
    model = registry.load(epoch.stream, epoch.model_version)
    first = _first_well(incident, plate, wells)

    def embed(images: Sequence[NDArray]) -> NDArray[np.float64]:
        return epoch.standardise(np.stack([_embed(model, image) for image in images]))

    images = [field.image("transmitted") for field in _reference_fields(home, epoch)]
    diagnosis = diagnose(embed, images, rows[first:], seed=home.settings.models.seed)
    record_diagnosis(home, incident, diagnosis)
    sentence = (
        f"{plate} {diagnosis.sentence}, from well {wells[first]} on (confidence {diagnosis.confidence:.0%})."
    )
    _tell(ledger, incident, epoch, plate, sentence, diagnosis)
    steps: list[Any] = [] if epoch.detector is None else epoch.detector.update_many(rows)
    figure = drift_timeline_figure([s.statistic for s in steps], [s.threshold for s in steps], wells)
    return Diagnosed(diagnosis, sentence, epoch.stream, plate, figure)


def _epoch(home: Home, incident: Incident) -> Epoch:
    """The epoch of the most harmed organelle, else of any with a detector."""
    names = [str(incident.most_harmed), *home.settings.organelles]
    for name in names:
        epoch = open_epoch(home, incident.instrument, name) if name in home.settings.organelles else None
        if epoch is not None and epoch.detector is not None:
            return epoch
    raise InputError(
        f"No organelle on {incident.instrument} has a calibrated stream: train and promote a model first."
    )


def _first_well(incident: Incident, plate: str, wells: list[str]) -> int:
    """Where the drift begins on a plate, leaving at least four wells to look at."""
    firsts = [well.partition("/")[2] for well in incident.wells if well.startswith(f"{plate}/")]
    places = [wells.index(well) for well in firsts if well in wells]
    return max(0, min([*places, len(wells) - 4]))


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
    ledger: AlertLedger, incident: Incident, epoch: Epoch, plate: str, sentence: str, diagnosis: Diagnosis
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
            data={"incident": incident.id, **diagnosis.to_dict()},
        )
    )
