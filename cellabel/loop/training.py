"""From labelled plates to a registered challenger."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cellabel.datasets import Dataset, FieldSample, build_dataset
from cellabel.errors import InputError
from cellabel.evaluation import CLEAN
from cellabel.loop.held_out import (
    Condition,
    HeldOut,
    LabelledField,
    evaluate_model,
    gate_conditions,
    harm_conditions,
)
from cellabel.loop.reliability import write_intervals
from cellabel.networks import OrganelleModel
from cellabel.organelles import Organelle
from cellabel.plates import open_plate
from cellabel.registry import ModelRegistry, ModelVersion
from cellabel.settings import Settings
from cellabel.stores import Home, read_json, write_json

CROSS_VALIDATED = "cross_validated.parquet"

__all__ = [
    "CROSS_VALIDATED",
    "Challenger",
    "build_current_dataset",
    "plates_for_training",
    "train_challenger",
]


@dataclass(frozen=True)
class Challenger:
    """A registered version and how it came out.

    Attributes:
        version: in the registry.
        seconds: of training.
        history: one row an epoch.
        agreement: downstream metrics on the held-out wells.
        pixel_pearson: mean over held-out fields.
    """

    version: ModelVersion
    seconds: float
    history: pd.DataFrame
    agreement: pd.DataFrame
    pixel_pearson: float


def plates_for_training(home: Home, organelle: Organelle) -> list[str]:
    """Accepted plates that show a stain of the organelle, without those of a drift incident.

    A drifted plate enters only once a person has accepted it: `cellabel plates release --for-training`.
    """
    drifted = _drifted_plates(home)
    chosen = []
    for plate_id in home.plates.accepted():
        record = home.plates.record(plate_id) or {}
        stained = set(organelle.stains) & set(record.get("channels", ()))
        if stained and (plate_id not in drifted or record.get("accepted_for_training")):
            chosen.append(plate_id)
    return chosen


def build_current_dataset(home: Home, organelle: Organelle) -> Dataset:
    """Split the stained plates anew, with the wells held out before held out again, and keep the manifest.

    Raises:
        InputError: no accepted plate is stained, or too few wells are.
    """
    names = plates_for_training(home, organelle)
    if not names:
        raise InputError(
            f"No accepted plate shows a stain of {organelle.name} ({', '.join(organelle.stains)}): import a "
            "stained plate first."
        )
    previous = home.datasets.record(organelle.name) or {}
    settings = home.settings.models
    dataset = build_dataset(
        [open_plate(home.plates, name) for name in names],
        organelle,
        held_out=previous.get("held_out") or None,
        test_share=settings.test_share,
        folds=settings.folds or None,
        seed=settings.seed,
    )
    record = {"held_out": [list(place) for place in dataset.held_out], "plates": names}
    with home.datasets.write(organelle.name, dataset.version, record) as folder:
        write_json(folder / "manifest.json", dataset.manifest())
    return dataset


def train_challenger(
    home: Home,
    dataset: Dataset,
    registry: ModelRegistry,
    *,
    corruption: tuple[str, Sequence[float]] = ("", ()),
    tags: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Challenger:
    """Train on a dataset, judge the result on its held-out wells, and register it as the challenger.

    A run that was killed is resumed from its last checkpoint: the folder is named by what is trained.

    Args:
        home: the stores.
        dataset: what is learnt, and what is held out.
        registry: where the version goes.
        corruption: kind and severities of table 5 to augment with; an empty kind for none.
        tags: lineage.
        progress: told what happens.
    """
    from cellabel.training import train

    settings = home.settings
    config = training_config(settings, corruption)
    folder = _folder(settings, dataset, config.model_dump(mode="json"))
    began = time.perf_counter()
    initial = _weights_to_start_from(registry, dataset, config) if corruption[0] else None
    result = train(dataset, config, initial=initial, resume=True, folder=folder, progress=progress)
    seconds = round(time.perf_counter() - began, 1)
    cross_validated = _cross_validate(home, dataset, config, folder, progress)
    if cross_validated is not None:
        cross_validated.measured.to_parquet(result.folder / CROSS_VALIDATED, index=False)
    held_out = judge(home, result.model, dataset)
    held_out.measured.to_parquet(result.folder / "measured.parquet", index=False)
    held_out.embeddings.to_parquet(result.folder / "embeddings.parquet", index=False)
    write_intervals(result.folder, held_out, cross_validated)
    agreement = held_out.agreement()
    agreement.to_csv(result.folder / "agreement.csv", index=False)
    metrics = {"pixel_pearson": held_out.pixel_pearson(), "training_seconds": seconds}
    known = agreement.dropna(subset=["pearson"])
    metrics |= {
        f"pearson_{name}": float(r) for name, r in zip(known["feature"], known["pearson"], strict=True)
    }
    lineage = {key: value for key, value in (tags or {}).items() if value}
    lineage["test_set"] = held_out_hash(dataset.test)
    if corruption[0]:
        lineage["corruption"] = f"{corruption[0]} {' '.join(f'{value:g}' for value in corruption[1])}"
    version = registry.register(result, dataset.organelle, metrics=metrics, tags=lineage)
    return Challenger(version, seconds, result.history, agreement, metrics["pixel_pearson"])


def training_config(settings: Settings, corruption: tuple[str, Sequence[float]]) -> Any:
    """The training's configuration: defaults, what the site changes, and the corruption to withstand."""
    from cellabel.training import CorruptionAugmentation, TrainingConfig

    changes: dict[str, Any] = {"seed": settings.models.seed, **settings.models.training}
    if corruption[0]:
        changes |= settings.retraining.training
        changes["corruption"] = CorruptionAugmentation(
            probability=0.5, kinds=(corruption[0],), severities=tuple(int(value) for value in corruption[1])
        )
    return TrainingConfig(**changes)


def judge(home: Home, model: OrganelleModel, dataset: Dataset, *, test_only: bool = False) -> HeldOut:
    """Held-out fields clean and under the gate's and the harm's conditions, and the others' embeddings.

    Args:
        home: the stores.
        model: the model.
        dataset: its test side is measured; of the other sides the embeddings are taken.
        test_only: leave the other sides out.
    """
    gate = home.settings.promotion
    plates = {plate_id: open_plate(home.plates, plate_id) for plate_id in dataset.manifest()["plates"]}

    def labelled(samples: Sequence[FieldSample]) -> list[LabelledField]:
        return [LabelledField.of(plates[sample.plate_id], sample.well, sample.site) for sample in samples]

    conditions: dict[str, Condition] = {
        CLEAN: None,
        **gate_conditions(gate.defocus_um, gate.numerical_aperture, plates[dataset.test[0].plate_id]),
        **harm_conditions(),
    }
    held_out = evaluate_model(model, labelled(dataset.test), conditions)
    if test_only:
        return held_out
    rest = labelled([*dataset.train, *dataset.validation])
    clean = evaluate_model(model, rest, {CLEAN: None}, measure=False)
    return HeldOut(held_out.measured, pd.concat([held_out.embeddings, clean.embeddings], ignore_index=True))


def _weights_to_start_from(registry: ModelRegistry, dataset: Dataset, config: Any) -> OrganelleModel | None:
    """The champion's, where its network is the one to be trained: what it knows of clean images is kept."""
    champion = registry.champion(dataset.organelle)
    if champion is None:
        return None
    model = registry.load(dataset.organelle, champion.version)
    same = all(model.network.config.get(name) == getattr(config, name) for name in ("base_channels", "depth"))
    return model if same else None


def _cross_validate(
    home: Home, dataset: Dataset, config: Any, folder: Path, progress: Callable[[str], None] | None
) -> HeldOut | None:
    """Every place once predicted by a model that has not seen it; None for a dataset without folds."""
    from cellabel.training import train

    if dataset.folds is None:
        return None
    plates = {plate_id: open_plate(home.plates, plate_id) for plate_id in dataset.manifest()["plates"]}
    parts = []
    for index in range(dataset.folds):
        fold = dataset.fold(index)
        result = train(fold, config, resume=True, folder=folder.with_name(f"{folder.name}-{index}"))
        fields = [LabelledField.of(plates[one.plate_id], one.well, one.site) for one in fold.test]
        parts.append(evaluate_model(result.model, fields, {CLEAN: None}))
        if progress is not None:
            score = parts[-1].pixel_pearson()
            progress(
                f"fold {index + 1} of {dataset.folds}: pixel Pearson {score:.3f} on {len(fields)} fields"
            )
    return HeldOut(pd.concat([one.measured for one in parts]), pd.concat([one.embeddings for one in parts]))


def held_out_hash(samples: Sequence[FieldSample]) -> str:
    """Names a test set: the gate counts its uses."""
    keys = sorted([sample.plate_id, sample.well, sample.site] for sample in samples)
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]


def _folder(settings: Settings, dataset: Dataset, config: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps([dataset.version, config], sort_keys=True).encode()).hexdigest()[:12]
    return settings.home / "training" / str(dataset.organelle) / digest


def _drifted_plates(home: Home) -> set[str]:
    folder = home.detectors / "incidents"
    if not folder.exists():
        return set()
    files = [read_json(file) or {} for file in folder.glob("*.json")]
    return {plate for incident in files for plate in incident.get("plates", ())}
