"""The runs that the sensors ask for, and that a person can start."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import dagster as dg
from pydantic import Field

from cellabel.organelles import Organelle
from orchestration.metadata import figure
from orchestration.resources import Alerts, Models, Stores

__all__ = [
    "AGAIN",
    "DRIFTED",
    "EMBEDDED",
    "FROZEN_ENCODER",
    "PRIORITY",
    "QUEUE",
    "AssetJob",
    "Incident",
    "diagnose_drift",
    "ingest",
    "predict",
    "predictions_of",
    "report",
    "train",
]


EMBEDDED = dg.AssetKey(["encoder", "embedded_plate"])
FROZEN_ENCODER = dg.AssetKey(["encoder", "frozen_encoder"])
PRIORITY = "dagster/priority"
"""The tag that the run queue goes by: a drift first, then new plates, then those to predict again."""

QUEUE = "cellabel/queue"
"""The tag whose runs the instance limits: those that predict again leave a place for new plates."""

AGAIN, DRIFTED = "again", "drifted"
"""Its values: plates of a drift incident, which somebody waits for, do not stand behind all others."""

AssetJob: TypeAlias = Any
"""What `dagster.define_asset_job` gives; the library does not export its type."""


def ingest(organelles: Sequence[Organelle]) -> AssetJob:
    """A plate from its folder to its tables, through every organelle that has a champion."""
    return dg.define_asset_job(
        "ingest",
        selection=dg.AssetSelection.assets("raw_plate") | _predictions(organelles),
        description="An acquisition becomes a plate, predictions and tables.",
    )


def predict(organelles: Sequence[Organelle]) -> AssetJob:
    """A plate predicted again, by the organelles that have a new champion."""
    return dg.define_asset_job(
        "predict",
        selection=_predictions(organelles),
        description="A plate is predicted again after a promotion.",
    )


def train(organelles: Sequence[Organelle]) -> AssetJob:
    """Dataset, challenger and comparison."""
    keys = [
        dg.AssetKey([organelle.name, name])
        for organelle in organelles
        for name in ("preprocessed_dataset", "organelle_model", "champion")
    ]
    return dg.define_asset_job(
        "train",
        selection=dg.AssetSelection.assets(*keys, FROZEN_ENCODER),
        description="A challenger is trained and compared with the champion.",
    )


def report(organelles: Sequence[Organelle]) -> AssetJob:
    """A plate's tables beside those of the training plates, for a person who wants to know more."""
    return dg.define_asset_job(
        "report",
        selection=dg.AssetSelection.assets(
            *(dg.AssetKey([one.name, "prediction_report"]) for one in organelles)
        ),
        description="Evidently's reports on a plate.",
    )


class Incident(dg.Config):
    """Which drift incident is looked into."""

    incident: str = Field(description="Its id.")


@dg.op
def diagnosis(
    context: dg.OpExecutionContext, config: Incident, stores: Stores, models: Models, alerts: Alerts
) -> None:
    """Which known corruption explains an incident best, told to whoever was told of the incident."""
    from cellabel.loop import diagnose_incident

    found = diagnose_incident(stores.open(), models.open(), alerts.open(), config.incident)
    context.log.info(found.sentence)
    context.log_event(
        dg.AssetObservation(
            asset_key=[found.organelle, "drift"],
            partition=found.plate,
            description=found.sentence,
            metadata={
                "diagnosis": found.sentence,
                "confidence": found.diagnosis.confidence,
                "incident": config.incident,
                "timeline": figure(found.figure, "statistic and threshold by well"),
                **({"map": figure(found.map, "the plate among the reference wells")} if found.map else {}),
            },
        )
    )


@dg.job(description="A drift incident is explained: which corruption, how strong, how harmful.")
def diagnose_drift() -> None:
    """The diagnosis of one incident."""
    diagnosis()


def predictions_of(champions: Sequence[str], *, reports: bool) -> list[dg.AssetKey]:
    """What is made of a plate by the organelles that have a champion, and by the frozen encoder.

    One without a champion is left out: what it does not give would keep Dagster from joining and ranking what
    the others give.

    Args:
        champions: names of the organelles.
        reports: whether Evidently reports on each table.
    """
    made = ("predicted_plate", "prediction_table", *(("prediction_report",) if reports else ()))
    keys = [EMBEDDED, *(dg.AssetKey([name, asset]) for name in champions for asset in made)]
    return [*keys, dg.AssetKey("cell_table"), dg.AssetKey("clone_ranking")] if champions else keys


def _predictions(organelles: Sequence[Organelle]) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*predictions_of([one.name for one in organelles], reports=True))
