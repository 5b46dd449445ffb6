"""From a training's folder into MLflow, and back to a folder."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cellabel.errors import InputError
from cellabel.registry import _files
from cellabel.registry._connection import Connection
from cellabel.registry._pyfunc import mlmodel_text
from cellabel.registry._versions import ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

HISTORY = "history/"
"""Prefix of the metrics that are a training's curves."""

_BATCH = 500


@dataclass(frozen=True)
class TrainedFolder:
    """A folder that a training wrote, read and checked."""

    organelle: str
    folder: Path
    config: dict[str, Any]
    metrics: dict[str, float]
    tags: dict[str, str]
    checksums: dict[str, str]
    extra_files: tuple[Path, ...]

    @classmethod
    def read(
        cls,
        result_or_folder: Any,
        organelle: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        extra_files: Sequence[str | os.PathLike[str]],
    ) -> TrainedFolder:
        """Read and check; see `ModelRegistry.register`."""
        given = getattr(result_or_folder, "folder", result_or_folder)
        if not isinstance(given, str | os.PathLike):
            raise InputError(
                f"A {type(given).__name__} is no trained model: give the result of a training or its folder."
            )
        folder = Path(given)
        paths = _files.files_to_log(folder)
        config = _files.read_json_file(folder / _files.CONFIG)
        if config.get("organelle", organelle) != organelle:
            raise InputError(
                f"The model in {folder} was trained for {config['organelle']}, not for {organelle}: "
                f"register it as {config['organelle']}."
            )
        extra = tuple(Path(path) for path in extra_files)
        if missing := [
            path for path in extra if not path.is_file() or path.suffix not in _files.DATA_SUFFIXES
        ]:
            raise InputError(
                f"{missing[0]} is no file that can be kept with a model: give figures and tables."
            )
        own = _files.read_json_file(folder / "metrics.json") if (folder / "metrics.json").is_file() else {}
        measured = {**own, **(getattr(result_or_folder, "metrics", None) or {}), **metrics}
        lineage = {"dataset_version": config.get("dataset"), "code_version": config.get("code_version")}
        return cls(
            organelle=organelle,
            folder=folder,
            config=config,
            metrics=dict(_flat_numbers(measured)),
            tags={**{key: str(value) for key, value in lineage.items() if value}, **tags},
            checksums=_files.checksums(paths),
            extra_files=extra,
        )


@dataclass(frozen=True)
class Logged:
    """Files that MLflow has taken in."""

    run_id: str
    model_id: str
    location: str
    own_checksums: dict[str, str]


def upload(client: MlflowClient, experiment_id: str, trained: TrainedFolder, run_id: str | None) -> Logged:
    """Log parameters, metrics, curves, figures and the model's files; whatever fails is marked as failed."""
    started = run_id or client.create_run(experiment_id, run_name=f"{trained.organelle} training").info.run_id
    finished = False
    model = client.create_logged_model(experiment_id, name=trained.organelle, source_run_id=started)
    try:
        _log_numbers(client, started, trained)
        for path in trained.extra_files:
            client.log_artifact(started, str(path))
        with tempfile.TemporaryDirectory() as scratch:
            for name in trained.checksums:  # one call for all of them, and none of the others beside them
                os.symlink((trained.folder / name).resolve(), Path(scratch) / name)
            mlmodel = Path(scratch) / _files.MLMODEL
            mlmodel.write_text(mlmodel_text(), encoding="utf-8")
            own = _files.checksums([mlmodel])
            client.log_model_artifacts(model.model_id, scratch)
        finished = True
    finally:
        client.finalize_logged_model(model.model_id, "READY" if finished else "FAILED")
        client.set_terminated(started, "FINISHED" if finished else "FAILED")
    return Logged(started, model.model_id, model.artifact_location, own)


def download(
    connection: Connection, location: str, version: ModelVersion, expected: Mapping[str, str], *, fresh: bool
) -> Path:
    """A local copy of a version's files, kept by version and checksum.

    Raises:
        InputError: the files cannot be fetched.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    checksum = hashlib.sha256(_files.checksum_tag(expected).encode()).hexdigest()[:16]
    final = connection.cache / version.name / f"{version.version}-{checksum}"
    if final.is_dir() and not fresh:
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".part-") as scratch:
        try:
            found = Path(
                download_artifacts(artifact_uri=location, dst_path=scratch, tracking_uri=connection.uri)
            )
        except (MlflowException, OSError) as error:
            raise InputError(
                f"The files of version {version.version} of {version.name} cannot be fetched from {location} "
                f"({str(error).splitlines()[0][:200]}): check the artefact store, or register it again."
            ) from error
        shutil.rmtree(final, ignore_errors=True)
        os.replace(found, final)
    return final


def _log_numbers(client: MlflowClient, run_id: str, trained: TrainedFolder) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in trained.metrics.items()]
    history = trained.folder / "history.csv"
    if history.is_file():
        curves = pd.read_csv(history)
        for column in curves.select_dtypes("number"):
            metrics += [
                Metric(f"{HISTORY}{column}", float(value), now, step)
                for step, value in enumerate(curves[column])
                if math.isfinite(value)
            ]
    params = [
        Param(key, str(value)[:500])
        for part in ("network", "training")
        for key, value in _flat(trained.config.get(part) or {}, part)
    ]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested mappings as one level, keys joined by "/"."""
    for key, value in content.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        else:
            yield name, value


def _flat_numbers(content: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in _flat(content):
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            continue
        if math.isfinite(float(value)):
            yield name, float(value)
