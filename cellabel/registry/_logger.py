"""MLflow's logger for Lightning, for those who want curves while a training runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cellabel.registry._connection import Connection
from cellabel.registry._versions import model_name

if TYPE_CHECKING:
    from lightning.pytorch.loggers import MLFlowLogger


def training_logger(
    run_name: str, organelle: str, *, uri: str | None = None, tags: Mapping[str, str] | None = None
) -> MLFlowLogger:
    """A Lightning logger that writes a training's curves into MLflow as they grow.

    It costs a database write an epoch and is not needed: `ModelRegistry.register` logs a training's whole
    `history.csv` afterwards. Pass `logger.run_id` to `register(run_id=…)` to keep both in one run.

    Args:
        run_name: as shown in MLflow.
        organelle: decides the experiment, `cellabel-<organelle>`.
        uri: of MLflow; None means the settings' one.
        tags: of the run.
    """
    connection = Connection(uri)
    experiment_name = model_name(organelle)
    experiment(connection, experiment_name)
    from lightning.pytorch.loggers import MLFlowLogger

    return MLFlowLogger(
        experiment_name=experiment_name,
        run_name=run_name,
        tracking_uri=connection.uri,
        tags=dict(tags or {}),
        log_model=False,
    )


def experiment(connection: Connection, name: str) -> str:
    """The id of the experiment `name`, created where absent, with its artefacts beside the database."""
    with connection.lock:
        found = connection.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        root = connection.artifact_root
        return str(
            connection.client.create_experiment(name, artifact_location=f"{root}/{name}" if root else None)
        )
