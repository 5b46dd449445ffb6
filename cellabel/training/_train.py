"""Training from data set to model folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import statistics
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.spawn import ProcessRaisedException

import cellabel
from cellabel.datasets import Dataset, split_proof
from cellabel.errors import InputError
from cellabel.networks import OrganelleModel, UNet, save_model
from cellabel.segmentation import core_share
from cellabel.training._losses import SCALE_BLIND, combined_loss
from cellabel.training._operating_point import set_operating_point
from cellabel.training._precision import resolve_precision
from cellabel.training._surroundings import quiet, threads
from cellabel.training._validation import ValidationField, evenly, pixel_agreement, validation_fields
from cellabel.training_settings import TrainingConfig

if TYPE_CHECKING:
    import pandas as pd

    from cellabel.training._module import Fitting

CHECKPOINT_NAME = "last.ckpt"
OPERATING_FIELDS, OPERATING_MEGAPIXELS = 24, 4.0
CORE_FIELDS = 8
_OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


@dataclass(frozen=True)
class TrainingResult:
    """What a training left.

    Attributes:
        model: the trained model, in eval mode, with the weights of the best validation.
        metrics: losses, pixel agreement on validation and test fields, steps, seconds.
        history: one row a validation: step, seconds, learning_rate, train_loss, validation_loss,
            validation_pearson.
        folder: holds weights.safetensors, config.json, dataset.json, metrics.json and history.csv.
    """

    model: OrganelleModel
    metrics: dict[str, Any]
    history: pd.DataFrame
    folder: Path


def train(
    dataset: Dataset,
    config: TrainingConfig | Mapping[str, Any] | None = None,
    *,
    initial: OrganelleModel | None = None,
    resume: str | os.PathLike[str] | bool | None = None,
    logger: Any = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Trains a UNet on a data set and keeps it in a folder.

    While it runs, a checkpoint lies in `<folder>.checkpoint`; the folder itself appears when it is whole.

    Args:
        dataset: what to learn from.
        config: how, or its settings by name; None takes the defaults.
        initial: a model whose weights the training starts from, of the same network; None draws them. The
            result is averaged with it by `config.keep_initial`.
        resume: a checkpoint, or the folder that holds it; True takes up `<folder>.checkpoint` if it is there.
            Data set, configuration and initial model must be those of the checkpoint.
        logger: a Lightning logger (or several) for losses and settings.
        folder: where the result goes, replaced if it exists; None makes one under the temporary directory.
        progress: called with a sentence after each validation.

    Raises:
        InputError: settings that contradict the data set, a loss that is not finite (the field is named), a
            checkpoint that cannot be resumed.
    """
    config = TrainingConfig.model_validate({} if config is None else config)
    losses = dict(config.losses or dataset.recipe.losses)
    combined_loss(losses, binary=dataset.binary)
    result = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="cellabel-")) / "model"
    checkpoint = _checkpoint(resume, result)
    identity = {
        "dataset": dataset.version,
        "config": config.model_dump(mode="json"),
        "initial": _weights_digest(initial) if initial is not None else "",
    }
    precision = _resumed_precision(checkpoint, identity) or resolve_precision(config.precision)
    with quiet(), threads(config.num_threads), torch.random.fork_rng():
        fitting = _fit_in_memory(
            _Plan(
                dataset,
                config,
                losses,
                initial,
                precision,
                identity,
                logger,
                _checkpoint_folder(result),
                progress,
            ),
            checkpoint,
        )
        if initial is not None:
            _keep_initial(fitting.judged, initial, config.keep_initial)
        if dataset.binary:
            set_operating_point(fitting.judged, _operating_fields(dataset))
        metrics = _final_metrics(fitting, dataset, precision)
    model = OrganelleModel(
        fitting.judged, _model_config(fitting.judged, dataset, config, losses, precision)
    ).eval()
    return _keep(model, dataset, metrics, fitting.history, result)


def _operating_fields(dataset: Dataset) -> list[ValidationField]:
    """The validation fields; where they are few, training fields as well.

    The share of a few wells says more of their clones than of the stain. A network that has learnt its
    training fields by heart would tell them too well apart, so they only make up the number.
    """
    samples = [*dataset.validation, *evenly(dataset.train, OPERATING_FIELDS - len(dataset.validation))]
    return validation_fields(dataset, samples, OPERATING_MEGAPIXELS, most=OPERATING_FIELDS)


@dataclass(frozen=True)
class _Plan:
    """One training, as `train` was asked for it."""

    dataset: Dataset
    config: TrainingConfig
    losses: dict[str, float]
    initial: OrganelleModel | None
    precision: str
    identity: dict[str, Any]
    logger: Any
    folder: Path
    progress: Callable[[str], None] | None


def _fit_in_memory(plan: _Plan, checkpoint: Path | None) -> Fitting:
    """Fits; where memory does not suffice, halves what passes the network at once and goes on.

    Raises:
        InputError: not even one crop at a time fits.
    """
    config, accumulation = plan.config, plan.config.accumulation
    while True:
        try:
            return _fit(plan, checkpoint, accumulation)
        except (RuntimeError, ProcessRaisedException) as error:
            reason = _lacking_memory(error)
            if reason is None:
                raise
        most = config.batch_size // config.devices
        if accumulation >= most:
            raise InputError(
                f"Not even one crop of {config.crop_size} px at a time fits into memory ({reason}); choose a "
                "smaller crop_size or base_channels."
            )
        accumulation = min(2 * accumulation, most)
        if plan.progress is not None:
            plan.progress(
                f"out of memory ({reason}): a step's {config.batch_size} crops now pass the network in "
                f"{accumulation * config.devices} parts"
            )
        checkpoint = _own_checkpoint(plan) or checkpoint


def _lacking_memory(error: Exception) -> str | None:
    """The line that says that memory did not suffice; None where something else went wrong.

    Raises:
        InputError: another process refused to go on, with its sentence.
    """
    lines = str(error).splitlines()
    if refusal := next((line for line in lines if "InputError: " in line), None):
        raise InputError(refusal.split("InputError: ", 1)[1]) from error
    return next((line for line in lines if _OUT_OF_MEMORY.search(line)), None)


def _own_checkpoint(plan: _Plan) -> Path | None:
    """The checkpoint of this very training, if it came that far; one left by another is not taken up."""
    kept = plan.folder / CHECKPOINT_NAME
    try:
        return kept if kept.is_file() and _resumed_precision(kept, plan.identity) else None
    except InputError:
        return None


def _fit(plan: _Plan, checkpoint: Path | None, accumulation: int) -> Fitting:
    """Runs the loop; the judged network holds the best weights afterwards."""
    import lightning.pytorch as lightning

    from cellabel.training._callbacks import callbacks
    from cellabel.training._module import Fitting, told

    config, kept = plan.config, plan.folder / CHECKPOINT_NAME
    several = config.devices > 1
    torch.manual_seed(config.seed)
    network = UNet(**config.architecture())
    if plan.initial is not None:
        _take_weights(network, plan.initial)
    progress = None if several else plan.progress  # what listens may not be sent to another process
    fitting = Fitting(
        network, plan.dataset, config, plan.losses, accumulation=accumulation, progress=progress
    )
    trainer = lightning.Trainer(
        max_steps=fitting.total_steps,
        max_epochs=-1,
        accelerator="auto",
        devices=config.devices,
        strategy=_processes() if several else "auto",
        precision="bf16-mixed" if plan.precision == "bf16" else "32-true",
        logger=plan.logger if plan.logger is not None else False,
        callbacks=callbacks(config, kept, plan.identity | {"precision": plan.precision}),
        accumulate_grad_batches=accumulation,
        gradient_clip_val=config.gradient_clip,
        enable_checkpointing=True,
        enable_model_summary=False,
        enable_progress_bar=config.enable_progress_bar,
        num_sanity_val_steps=0,
        default_root_dir=plan.folder,
    )
    for one in trainer.loggers:
        settings = plan.identity["config"]
        one.log_hyperparams(settings | {"dataset": plan.dataset.version, "precision": plan.precision})
    trainer.fit(fitting, ckpt_path=checkpoint, weights_only=True)
    if several:  # the fitted network lived in the other processes; what they kept is the checkpoint
        fitting.take_up(torch.load(kept, map_location="cpu", weights_only=True)["fitting"])
        for row in fitting.history if plan.progress is not None else ():
            plan.progress(told(row, fitting.total_steps))  # type: ignore[misc]
    if not any(math.isfinite(row["validation_loss"]) for row in fitting.history):
        raise InputError(
            "The training has diverged: no validation loss is finite; choose a lower learning_rate than "
            f"{config.learning_rate:g}."
        )
    fitting.judged.load_state_dict(fitting.best_state)
    return fitting


def _processes() -> Any:
    """One process a device: NCCL between GPUs, gloo between processes on the CPU."""
    from lightning.pytorch.strategies import DDPStrategy

    backend = "nccl" if torch.cuda.is_available() else "gloo"
    return DDPStrategy(start_method="spawn", process_group_backend=backend)


def _weights_digest(model: OrganelleModel) -> str:
    """Names a model's weights, whatever it is called."""
    digest = hashlib.sha256()
    for name, tensor in model.network.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _take_weights(network: UNet, initial: OrganelleModel) -> None:
    if network.config != initial.network.config:
        raise InputError(
            f"The network of {initial.name or initial.organelle} {initial.version} is not the one of this "
            "training: train from new weights, or with its channels and depth."
        )
    network.load_state_dict(initial.network.state_dict())


def _keep_initial(network: UNet, initial: OrganelleModel, share: float) -> None:
    """Average the trained weights with those that the training started from.

    On the line between them a model keeps most of what it has learnt to withstand, and what it knew of clean
    images changes less than at its end.

    Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (arXiv 2109.01903).
    """
    trained, before = network.state_dict(), initial.network.state_dict()
    for name, tensor in trained.items():
        if tensor.is_floating_point():
            tensor.lerp_(before[name].to(tensor), share)


def _model_config(
    network: UNet, dataset: Dataset, config: TrainingConfig, losses: dict[str, float], precision: str
) -> dict[str, Any]:
    arbitrary = not dataset.binary and set(losses) <= SCALE_BLIND
    return {
        "network": network.config,
        "organelle": dataset.organelle,
        "target": dataset.recipe.target,
        "target_scale": dataset.target_scale,
        "pixel_size_um": dataset.pixel_size_um,
        "intensity_units": "arbitrary" if arbitrary else "stain",
        "core": _core(dataset),
        "dataset": dataset.version,
        "training": config.model_dump(mode="json") | {"losses": losses, "precision": precision},
        "code_version": cellabel.__version__,
    }


def _core(dataset: Dataset) -> float | None:
    """How far the stains of the training fields are cut to their core; None where the recipe cuts nothing."""
    if not any(step.function == "keep_core" for step in dataset.recipe.segmentation):
        return None
    found = [
        core_share(dataset.target(one), dataset.recipe, pixel_size_um=dataset.pixel_size_um)
        for one in evenly(dataset.train, CORE_FIELDS)
    ]
    known = [share for share in found if share is not None]
    return statistics.median(known) if known else None


def _final_metrics(fitting: Fitting, dataset: Dataset, precision: str) -> dict[str, Any]:
    last = fitting.history[-1]
    column = {"loss": "validation_loss", "pearson": "validation_pearson", "downstream": "downstream_error"}
    best = _best_row(fitting.history, column[fitting.config.monitor])
    metrics: dict[str, Any] = {
        "steps": int(last["step"]),
        "seconds": last["seconds"],
        "best_step": int(best["step"]),
        "precision": precision,
        "accumulation": fitting.accumulation,
        "parameters": sum(parameter.numel() for parameter in fitting.judged.parameters()),
        "split": dataset.split_description,
        "split_proof": split_proof(dataset),
    }
    fields = validation_fields(dataset, dataset.test, fitting.config.validation_megapixels)
    for side, chosen in (("validation", fitting.validation), ("test", fields)):
        if chosen:
            agreement = pixel_agreement(fitting.judged, chosen, fitting.loss, binary=dataset.binary)
            metrics[side] = agreement._asdict()
    return metrics


def _best_row(history: list[dict[str, float]], column: str) -> dict[str, float]:
    """The row that the best weights are of; Pearson's r is best where it is highest."""
    sign = -1 if column == "validation_pearson" else 1
    return min(history, key=lambda row: sign * row[column] if math.isfinite(row[column]) else float("inf"))


def _keep(
    model: OrganelleModel,
    dataset: Dataset,
    metrics: dict[str, Any],
    history: list[dict[str, float]],
    folder: Path,
) -> TrainingResult:
    """Writes the result beside its place, then moves it there in one step, and drops the checkpoint."""
    import pandas as pd

    table = pd.DataFrame(history)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    scratch.mkdir()
    try:
        save_model(model, scratch)
        (scratch / "dataset.json").write_text(json.dumps(dataset.manifest(), indent=1) + "\n")
        (scratch / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
        table.to_csv(scratch / "history.csv", index=False)
        if folder.exists():
            old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
            folder.rename(old)
            scratch.rename(folder)
            shutil.rmtree(old)
        else:
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(_checkpoint_folder(folder), ignore_errors=True)
    return TrainingResult(model, metrics, table, folder)


def _checkpoint_folder(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.checkpoint")


def _checkpoint(resume: str | os.PathLike[str] | bool | None, folder: Path) -> Path | None:
    if resume is None or resume is False:
        return None
    if resume is True:
        path = _checkpoint_folder(folder) / CHECKPOINT_NAME
        return path if path.is_file() else None
    path = Path(resume)
    found = next(
        (
            p
            for p in (path, path / CHECKPOINT_NAME, _checkpoint_folder(path) / CHECKPOINT_NAME)
            if p.is_file()
        ),
        None,
    )
    if found is None:
        raise InputError(f"There is no checkpoint at {path} to resume; name one, or train from the start.")
    return found


def _resumed_precision(checkpoint: Path | None, identity: dict[str, Any]) -> str | None:
    """The precision that a checkpoint was trained with.

    Raises:
        InputError: it is damaged, or of another data set, configuration or initial model.
    """
    if checkpoint is None:
        return None
    try:
        kept = torch.load(checkpoint, map_location="cpu", weights_only=True)["callbacks"][
            "CheckpointEachRound"
        ]
    except (RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        raise InputError(f"The checkpoint {checkpoint} cannot be read; train from the start.") from error
    for name, what in (("dataset", "data set"), ("config", "configuration"), ("initial", "initial model")):
        if kept[name] != identity[name]:
            raise InputError(f"The checkpoint {checkpoint} is of another {what}; train from the start.")
    return str(kept["precision"])
