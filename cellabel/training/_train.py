"""Training from data set to model folder."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import cellabel
from cellabel.datasets import Dataset
from cellabel.errors import InputError
from cellabel.networks import OrganelleModel, UNet, save_model
from cellabel.training._config import TrainingConfig
from cellabel.training._crops import CropSampler
from cellabel.training._losses import SCALE_BLIND, combined_loss
from cellabel.training._operating_point import set_operating_point
from cellabel.training._precision import resolve_precision
from cellabel.training._validation import pixel_agreement, validation_fields

if TYPE_CHECKING:
    import pandas as pd

    from cellabel.training._module import Fitting

CHECKPOINT_NAME = "last.ckpt"
OPERATING_FIELDS, OPERATING_MEGAPIXELS = 24, 4.0


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
    config: TrainingConfig | None = None,
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
        config: how; None takes the defaults.
        initial: a model whose weights the training starts from, of the same network; None draws them.
        resume: a checkpoint, or the folder that holds it; True takes up `<folder>.checkpoint` if it is there.
            Data set and configuration must be those of the checkpoint.
        logger: a Lightning logger (or several) for losses and settings.
        folder: where the result goes, replaced if it exists; None makes one under the temporary directory.
        progress: called with a sentence after each validation.

    Raises:
        InputError: settings that contradict the data set, a loss that is not finite (the field is named), a
            checkpoint that cannot be resumed.
    """
    config = config or TrainingConfig()
    losses = dict(config.losses or dataset.recipe.losses)
    combined_loss(losses, binary=dataset.binary)
    result = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="cellabel-")) / "model"
    checkpoint = _checkpoint(resume, result)
    identity = {
        "dataset": dataset.version,
        "config": config.model_dump(mode="json"),
        "initial": initial.version if initial is not None else "",
    }
    precision = _resumed_precision(checkpoint, identity) or resolve_precision(config.precision)
    with _quiet(), _threads(config.num_threads), torch.random.fork_rng():
        fitting = _fit(
            dataset,
            config,
            losses,
            initial=initial,
            precision=precision,
            identity=identity,
            logger=logger,
            checkpoint=checkpoint,
            folder=_checkpoint_folder(result),
            progress=progress,
        )
        if dataset.binary and dataset.validation:
            fields = validation_fields(
                dataset, dataset.validation, OPERATING_MEGAPIXELS, most=OPERATING_FIELDS
            )
            set_operating_point(fitting.network, fields)
        metrics = _final_metrics(fitting, dataset, precision)
    model = OrganelleModel(
        fitting.network, _model_config(fitting.network, dataset, config, losses, precision)
    ).eval()
    return _keep(model, dataset, metrics, fitting.history, result)


def _fit(
    dataset: Dataset,
    config: TrainingConfig,
    losses: dict[str, float],
    *,
    initial: OrganelleModel | None,
    precision: str,
    identity: dict[str, Any],
    logger: Any,
    checkpoint: Path | None,
    folder: Path,
    progress: Callable[[str], None] | None,
) -> Fitting:
    """Runs the loop; the fitted network holds the best weights afterwards."""
    import lightning.pytorch as lightning
    from torch.utils.data import DataLoader

    from cellabel.training._callbacks import callbacks
    from cellabel.training._module import Fitting, StepBatches

    total = config.steps(len(dataset.train))
    interval = math.ceil(total / config.validations)
    torch.manual_seed(config.seed)
    network = UNet(**_network_arguments(config))
    if initial is not None:
        _take_weights(network, initial)
    fitting = Fitting(
        network,
        config,
        losses,
        binary=dataset.binary,
        total_steps=total,
        validation=validation_fields(dataset, dataset.validation, config.validation_megapixels),
        progress=progress,
    )
    batches = StepBatches(CropSampler(dataset, config), interval, total, lambda: fitting.global_step)
    trainer = lightning.Trainer(
        max_steps=total,
        max_epochs=-1,
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        logger=logger if logger is not None else False,
        callbacks=callbacks(config, folder / CHECKPOINT_NAME, identity | {"precision": precision}),
        gradient_clip_val=config.gradient_clip,
        enable_checkpointing=True,
        enable_model_summary=False,
        enable_progress_bar=config.enable_progress_bar,
        num_sanity_val_steps=0,
    )
    for one in trainer.loggers:
        one.log_hyperparams(identity["config"] | {"dataset": dataset.version, "precision": precision})
    trainer.fit(fitting, DataLoader(batches, batch_size=None), ckpt_path=checkpoint, weights_only=True)
    fitting.network.load_state_dict(fitting.best_state)
    return fitting


def _take_weights(network: UNet, initial: OrganelleModel) -> None:
    if network.config != initial.network.config:
        raise InputError(
            f"The network of {initial.name or initial.organelle} {initial.version} is not the one of this "
            "training: train from new weights, or with its channels and depth."
        )
    network.load_state_dict(initial.network.state_dict())


def _network_arguments(config: TrainingConfig) -> dict[str, Any]:
    names = ("base_channels", "depth", "activation", "norm", "dropout", "initialisation")
    return {name: getattr(config, name) for name in names}


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
        "dataset": dataset.version,
        "training": config.model_dump(mode="json") | {"losses": losses, "precision": precision},
        "code_version": cellabel.__version__,
    }


def _final_metrics(fitting: Fitting, dataset: Dataset, precision: str) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "steps": int(fitting.history[-1]["step"]),
        "seconds": fitting.history[-1]["seconds"],
        "best_step": int(min(fitting.history, key=lambda row: row["validation_loss"])["step"]),
        "precision": precision,
        "parameters": sum(parameter.numel() for parameter in fitting.network.parameters()),
        "split": dataset.split_description,
    }
    fields = validation_fields(dataset, dataset.test, fitting.config.validation_megapixels)
    for side, chosen in (("validation", fitting.validation), ("test", fields)):
        if chosen:
            agreement = pixel_agreement(fitting.network, chosen, fitting.loss, binary=fitting.binary)
            metrics[side] = agreement._asdict()
    return metrics


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
        InputError: it is damaged, or of another data set or configuration.
    """
    if checkpoint is None:
        return None
    try:
        kept = torch.load(checkpoint, map_location="cpu", weights_only=True)["callbacks"][
            "CheckpointEachRound"
        ]
    except (RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        raise InputError(f"The checkpoint {checkpoint} cannot be read; train from the start.") from error
    for name, what in (("dataset", "data set"), ("config", "configuration")):
        if kept[name] != identity[name]:
            raise InputError(f"The checkpoint {checkpoint} is of another {what}; train from the start.")
    return str(kept["precision"])


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's advice about workers, loggers and hardware out of the reader's way."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
