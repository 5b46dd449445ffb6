"""A checkpoint after each validation, and early stopping."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping

from cellabel.training._module import JUDGEMENT
from cellabel.training_settings import TrainingConfig


class CheckpointEachRound(Checkpoint):
    """Writes one checkpoint, replaced in one step, so that a kill leaves the old or the new one.

    As a `Checkpoint` it is called last, when validation is done.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.identity = identity

    @property
    def state_key(self) -> str:
        """Where its state lies in a checkpoint."""
        return "CheckpointEachRound"

    def state_dict(self) -> dict[str, Any]:
        """Which training this is."""
        return self.identity

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Named by the process, because another may train into the same folder.
        scratch = self.path.with_suffix(f".{os.getpid()}.tmp")
        trainer.save_checkpoint(scratch, weights_only=False)
        if trainer.is_global_zero:
            os.replace(scratch, self.path)


def callbacks(config: TrainingConfig, checkpoint: Path, identity: dict[str, Any]) -> list[Callback]:
    """What watches over the loop."""
    watching: list[Callback] = []
    if config.early_stopping_patience is not None:
        watching.append(
            EarlyStopping(
                JUDGEMENT,
                patience=config.early_stopping_patience,
                check_on_train_epoch_end=True,
                check_finite=False,
            )
        )
    return [*watching, CheckpointEachRound(checkpoint, identity)]
