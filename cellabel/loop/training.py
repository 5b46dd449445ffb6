"""From labelled plates to a registered challenger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import cellabel
from cellabel.datasets import Dataset, FieldSample, build_dataset, stain_of
from cellabel.errors import InputError
from cellabel.evaluation import CLEAN
from cellabel.loop.costs import Meter, priced, training_device
from cellabel.loop.gain import corruption_gain
from cellabel.loop.held_out import (
    Condition,
    HeldOut,
    LabelledField,
    evaluate_model,
    exposure_conditions,
    gate_conditions,
    harm_conditions,
    read_held_out,
    sample_of_wells,
    table_conditions,
)
from cellabel.loop.model_report import write_figures, write_tables
from cellabel.loop.reliability import write_intervals
from cellabel.networks import OrganelleModel
from cellabel.organelles import Organelle
from cellabel.organelles import organelle as organelle_of
from cellabel.plates import Plate, open_plate
from cellabel.registry import CHANGED, ModelRegistry, ModelVersion, environment, git_commit
from cellabel.settings import Settings
from cellabel.stores import FileMemory, Home, write_json

if TYPE_CHECKING:
    from cellabel.training import TrainingResult

ENVIRONMENT, COST = "environment.json", "cost.json"
_DRIFTED: FileMemory[tuple[str, ...]] = FileMemory(lambda incident: tuple(incident.get("plates", ())))
CROSS_VALIDATED = "cross_validated.parquet"

__all__ = [
    "CROSS_VALIDATED",
    "Challenger",
    "build_current_dataset",
    "drifted_plates",
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
        folder: with the weights, what was measured, tables and figures.
    """

    version: ModelVersion
    seconds: float
    history: pd.DataFrame
    agreement: pd.DataFrame
    pixel_pearson: float
    folder: Path


def plates_for_training(home: Home, organelle: Organelle) -> list[str]:
    """Accepted plates that show a stain of the organelle, without those of a drift incident.

    A drifted plate enters only once a person has accepted it: `cellabel plates release --for-training`.
    """
    drifted = drifted_plates(home)
    chosen = []
    for plate_id, record in home.plates.accepted_records().items():
        stained = stain_of(record.get("channels", ()), organelle)
        if stained and (plate_id not in drifted or record.get("accepted_for_training")):
            chosen.append(plate_id)
    return chosen


def build_current_dataset(home: Home, organelle: Organelle) -> Dataset:
    """Split the stained plates anew, with the wells held out before held out again, and keep the manifest.

    As stained plates come, some that no version has learnt from join the test, so that it keeps its share of
    plates and a gate that found too few, or had used them too often, can go on.

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
    seen = set(previous.get("seen", previous.get("plates", ())))
    settings = home.settings.models
    dataset = build_dataset(
        [open_plate(home.plates, name) for name in names],
        organelle,
        held_out=previous.get("held_out") or None,
        seen=seen,
        test_share=settings.test_share,
        folds=settings.folds or None,
        seed=settings.seed,
    )
    record = {
        "held_out": [list(place) for place in dataset.held_out],
        "plates": names,
        "seen": sorted(seen | set(names)),
    }
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

    config = training_config(home.settings, corruption)
    initial = _weights_to_start_from(registry, dataset, config) if corruption[0] else None
    folder = _folder(home.settings, dataset, config.model_dump(mode="json"), initial)
    with Meter() as meter:
        result = _finished(folder) or train(
            dataset, config, initial=initial, resume=True, folder=folder, progress=progress
        )
    cross_validated = _cross_validate(home, dataset, config, folder, None if initial else result, progress)
    if cross_validated is not None:
        cross_validated.measured.to_parquet(result.folder / CROSS_VALIDATED, index=False)
    held_out = judge(home, result.model, dataset, kind=corruption[0])
    write_intervals(result.folder, held_out, cross_validated)
    agreement = held_out.agreement()
    metrics = {"pixel_pearson": held_out.pixel_pearson(), **_report(home, dataset, result, held_out, meter)}
    if corruption[0]:
        _compare_with_champion(registry, dataset, result)
    agreement.to_csv(result.folder / "agreement.csv", index=False)
    known = agreement.dropna(subset=["pearson"])
    metrics |= {
        f"pearson_{name}": float(r) for name, r in zip(known["feature"], known["pearson"], strict=True)
    }
    severities = " ".join(f"{value:g}" for value in corruption[1])
    lineage = {
        **(tags or {}),
        "test_set": held_out_hash(dataset.test),
        "git_commit": git_commit(),
        "corruption": f"{corruption[0]} {severities}" if corruption[0] else "",
    }
    lineage = {key: value for key, value in lineage.items() if value}
    version = registry.register(result, dataset.organelle, metrics=metrics, tags=lineage)
    seconds = metrics["training_seconds"]
    return Challenger(version, seconds, result.history, agreement, metrics["pixel_pearson"], result.folder)


def _report(
    home: Home, dataset: Dataset, result: TrainingResult, held_out: HeldOut, meter: Meter
) -> dict[str, float]:
    """Write what was measured, tables, figures, cost and environment into the model's folder.

    Returns:
        Name → value, for the version.
    """
    settings, recipe = home.settings.models, organelle_of(dataset.organelle)
    fields = _labelled(home, dataset.test)
    sample = sample_of_wells(fields, settings.report_fields)
    if sample:
        grid = {name: one for name, one in table_conditions().items() if name not in held_out.conditions}
        more = evaluate_model(result.model, sample, grid).measured
        measured = pd.concat([held_out.measured, more[more["side"] == "predicted"]], ignore_index=True)
        held_out = HeldOut(measured, held_out.embeddings)
    learnt = _labelled(home, [*dataset.train, *dataset.validation])
    learnt_from = sample_of_wells(learnt, settings.report_fields, every_plate=True)
    seen = evaluate_model(result.model, learnt_from, {CLEAN: None}) if learnt_from else None
    held_out.keep(result.folder)
    metrics = write_tables(result.folder, held_out, seen, recipe)
    brief = not settings.report_fields
    write_figures(result.folder, result.model, fields, held_out, result.history, recipe, brief=brief)
    (result.folder / ENVIRONMENT).write_text(json.dumps(environment(), indent=1) + "\n")
    cost = result.folder / COST
    if not cost.exists():  # a run repeated after a crash has cost what the first one did
        # A training that was resumed, or ended before its run was killed, has taken more than this run saw.
        before = float(result.metrics.get("seconds", 0)) > meter.seconds
        seconds, joules = (result.metrics["seconds"], None) if before else (meter.seconds, meter.joules)
        record = priced(seconds, joules, training_device(), settings.prices, settings.currency)
        cost.write_text(json.dumps(record, indent=1) + "\n")
    return metrics | {"training_seconds": float(json.loads(cost.read_text())["seconds"])}


def _compare_with_champion(registry: ModelRegistry, dataset: Dataset, result: TrainingResult) -> None:
    """Write table and figure of what the training has gained, where both were measured on the same wells."""
    from cellabel.reports import gain_figure

    champion = registry.champion(dataset.organelle)
    if champion is None or champion.tags.get("test_set") != held_out_hash(dataset.test):
        return
    folders = registry.folder(dataset.organelle, champion.version), result.folder
    before, after = (read_held_out(one) for one in folders)
    gain = corruption_gain(before, after, organelle_of(dataset.organelle))
    if gain.empty:
        return
    title = f"{dataset.organelle}: against version {champion.version}, |log error| of held-out wells, 95 %"
    names = (f"version {champion.version}", "retrained")
    gain.to_csv(result.folder / "gain.csv", index=False)
    (result.folder / "gain.png").write_bytes(gain_figure(gain, title=title, names=names))


def _finished(folder: Path) -> TrainingResult | None:
    """The result of a training that ended before its run was killed; None where there is none.

    Only the same code would make the same result: while files differ from their commit, nothing is taken up.
    """
    from cellabel.networks import load_model
    from cellabel.training import TrainingResult

    if not folder.exists() or git_commit().endswith(CHANGED):
        return None
    try:
        model = load_model(folder)
    except InputError:  # damaged since: it is trained again
        return None
    metrics = json.loads((folder / "metrics.json").read_text())
    return TrainingResult(model, metrics, pd.read_csv(folder / "history.csv"), folder)


def training_config(settings: Settings, corruption: tuple[str, Sequence[float]]) -> Any:
    """The training's configuration: defaults, what the site changes, and the corruption to withstand."""
    from cellabel.training import CorruptionAugmentation, TrainingConfig

    changes: dict[str, Any] = {"seed": settings.models.seed, **settings.models.training}
    if corruption[0]:
        changes |= settings.retraining.training
        changes["corruption"] = CorruptionAugmentation(
            probability=0.5,
            kinds=(corruption[0],),
            severities=tuple(int(value) for value in corruption[1]),
            numerical_aperture=settings.promotion.numerical_aperture,
        )
    return TrainingConfig(**changes)


def judge(
    home: Home, model: OrganelleModel, dataset: Dataset, *, kind: str = "", test_only: bool = False
) -> HeldOut:
    """Held-out fields clean and under the gate's and the harm's conditions, and the others' embeddings.

    Args:
        home: the stores.
        model: the model.
        dataset: its test side is measured; of the other sides the embeddings are taken.
        kind: what the model, or the challenger that it is compared with, was trained to withstand: brightness
            and contrast ask for more and less light.
        test_only: leave the other sides out.
    """
    gate = home.settings.promotion
    fields = _labelled(home, dataset.test)

    def conditions(plate: Plate) -> dict[str, Condition]:
        return {
            CLEAN: None,
            **gate_conditions(gate.defocus_um, gate.numerical_aperture, plate),
            **(exposure_conditions(gate.exposures) if kind in ("brightness", "contrast") else {}),
            **harm_conditions(),
        }

    held_out = evaluate_model(model, fields, conditions)
    if test_only:
        return held_out
    rest = _labelled(home, [*dataset.train, *dataset.validation])
    clean = evaluate_model(model, rest, {CLEAN: None}, measure=False)
    return HeldOut(held_out.measured, pd.concat([held_out.embeddings, clean.embeddings], ignore_index=True))


def _labelled(home: Home, samples: Sequence[FieldSample]) -> list[LabelledField]:
    plates = {name: open_plate(home.plates, name) for name in {sample.plate_id for sample in samples}}
    return [LabelledField.of(plates[sample.plate_id], sample.well, sample.site) for sample in samples]


def _weights_to_start_from(registry: ModelRegistry, dataset: Dataset, config: Any) -> OrganelleModel | None:
    """The champion's, where its network is the one to be trained: what it knows of clean images is kept."""
    champion = registry.champion(dataset.organelle)
    if champion is None:
        return None
    model = registry.load(dataset.organelle, champion.version)
    settings = config.model_dump()
    same = all(settings.get(name, value) == value for name, value in model.network.config.items())
    return model if same else None


def _cross_validate(
    home: Home,
    dataset: Dataset,
    config: Any,
    folder: Path,
    kept: TrainingResult | None,
    progress: Callable[[str], None] | None,
) -> HeldOut | None:
    """Every place once predicted by a model that has not seen it; None for a dataset without folds.

    A fold that is parted as the data set itself has its model already: the one to keep, where it was trained
    as the folds are, from new weights.
    """
    from cellabel.training import train

    if dataset.folds is None:
        return None
    parts = []
    for index in range(dataset.folds):
        fold = dataset.fold(index)
        place = folder.with_name(f"{folder.name}-{index}")
        told = progress and partial(_of_fold, progress, f"fold {index + 1} of {dataset.folds}")
        result = kept if kept and _parted_alike(fold, dataset) else _finished(place)
        result = result or train(fold, config, resume=True, folder=place, progress=told)
        fields = _labelled(home, fold.test)
        parts.append(evaluate_model(result.model, fields, {CLEAN: None}))
        if progress is not None:
            score = parts[-1].pixel_pearson()
            progress(
                f"fold {index + 1} of {dataset.folds}: pixel Pearson {score:.3f} on {len(fields)} fields"
            )
    return HeldOut(pd.concat([one.measured for one in parts]), pd.concat([one.embeddings for one in parts]))


def _parted_alike(first: Dataset, second: Dataset) -> bool:
    sides = [(one.train, one.validation, one.test, one.target_scale) for one in (first, second)]
    return sides[0] == sides[1]


def _of_fold(progress: Callable[[str], None], fold: str, sentence: str) -> None:
    progress(f"{fold}, {sentence}")


def held_out_hash(samples: Sequence[FieldSample]) -> str:
    """Names a test set: the gate counts its uses."""
    keys = sorted([sample.plate_id, sample.well, sample.site] for sample in samples)
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]


def _folder(
    settings: Settings, dataset: Dataset, config: dict[str, Any], initial: OrganelleModel | None
) -> Path:
    """Named by all that decides the weights, so that a run that was killed finds what it had made."""
    what = [dataset.version, config, initial.version if initial else "", cellabel.__version__, git_commit()]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    return settings.home / "training" / str(dataset.organelle) / digest


def drifted_plates(home: Home) -> set[str]:
    """Plates of a drift incident, open or closed."""
    return {plate for plates in _DRIFTED.of_folder(home.detectors / "incidents") for plate in plates}
