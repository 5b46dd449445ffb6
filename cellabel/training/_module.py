"""What Lightning runs: one step, one validation, and what has to survive a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from cellabel.errors import InputError
from cellabel.networks import UNet
from cellabel.training._config import TrainingConfig
from cellabel.training._crops import Batch, CropSampler
from cellabel.training._losses import combined_loss
from cellabel.training._schedule import learning_rate
from cellabel.training._validation import PixelAgreement, ValidationField, pixel_agreement


class StepBatches(IterableDataset):
    """The batches of one round, from the step at which training stands to the next validation."""

    def __init__(self, sampler: CropSampler, interval: int, total: int, step: Callable[[], int]) -> None:
        self.sampler = sampler
        self.interval = interval
        self.total = total
        self.step = step

    def __iter__(self) -> Iterator[Batch]:
        start = self.step()
        end = min((start // self.interval + 1) * self.interval, self.total)
        for step in range(start, end):
            yield self.sampler.batch(step)


class Fitting(lightning.LightningModule):
    """The network being trained, and the course of its training.

    Attributes:
        history: one row a validation.
        best_state: weights at the lowest validation loss so far.
    """

    def __init__(
        self,
        network: UNet,
        config: TrainingConfig,
        losses: dict[str, float],
        *,
        binary: bool,
        total_steps: int,
        validation: list[ValidationField],
        progress: Callable[[str], None] | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.binary = binary
        self.total_steps = total_steps
        self.validation = validation
        self.progress = progress
        self.loss = combined_loss(losses, binary=binary)
        self.history: list[dict[str, float]] = []
        self.best_state: dict[str, Tensor] = {}
        self.best_loss = float("inf")
        self.seconds_before = 0.0
        self._started = time.monotonic()
        self._recent: list[float] = []

    @property
    def seconds(self) -> float:
        """Time spent in the loop, kills and resumptions included."""
        return self.seconds_before + time.monotonic() - self._started

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser that the configuration names."""
        config, parameters = self.config, self.network.parameters()
        rate, decay = config.learning_rate, config.weight_decay
        if config.optimiser == "sgd":
            return torch.optim.SGD(parameters, rate, momentum=0.9, nesterov=True, weight_decay=decay)
        if config.optimiser == "adadelta":
            return torch.optim.Adadelta(parameters, rate, weight_decay=decay)
        kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
        return kind(parameters, rate, weight_decay=decay)

    def on_fit_start(self) -> None:
        """Starts the clock."""
        self._started = time.monotonic()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Moves the pixels; the addresses stay."""
        return batch._replace(images=batch.images.to(device), targets=batch.targets.to(device))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Sets the learning rate of this step, and where dropout is on its random numbers."""
        limit = self.config.time_limit_s
        spent = 0.0 if limit is None else self.seconds / limit
        rate = learning_rate(self.config, max(self.global_step / self.total_steps, spent))
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = rate
        if self.config.dropout > 0:
            torch.manual_seed(hash((self.config.seed, self.global_step)) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch.

        Raises:
            InputError: it is not finite; the field that makes it so is named.
        """
        output = self.network(batch.images).float()
        loss = self.loss(output, batch.targets)
        value = loss.item()
        if not value < float("inf"):
            raise InputError(self._blame(batch, output))
        self._recent.append(value)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Ends the training when its time is up."""
        limit = self.config.time_limit_s
        if limit is not None and self.seconds >= limit:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Predicts the validation fields, keeps the best weights and tells how it goes."""
        agreement = pixel_agreement(self.network, self.validation, self.loss, binary=self.binary)
        row = {
            "step": float(self.global_step),
            "seconds": self.seconds,
            "learning_rate": self.optimizers().param_groups[0]["lr"],  # type: ignore[union-attr]
            "train_loss": sum(self._recent) / max(1, len(self._recent)),
            "validation_loss": agreement.loss,
            "validation_pearson": agreement.pearson,
        }
        self._recent = []
        self.history.append(row)
        if agreement.loss < self.best_loss or not self.best_state:
            self.best_loss = agreement.loss
            self.best_state = {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
        self._tell(row, agreement)

    def _tell(self, row: dict[str, float], agreement: PixelAgreement) -> None:
        names = ("learning_rate", "train_loss", "validation_loss", "validation_pearson")
        for logger in self.loggers:
            logger.log_metrics({name: row[name] for name in names}, step=self.global_step)
        self.log("validation_loss", agreement.loss, logger=False)
        if self.progress is not None:
            self.progress(
                f"step {self.global_step} of {self.total_steps}: training loss {row['train_loss']:.4f}, "
                f"validation loss {agreement.loss:.4f}, pixel Pearson {agreement.pearson:.3f}"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the loop does not keep itself."""
        checkpoint["fitting"] = {
            "history": self.history,
            "best_state": self.best_state,
            "best_loss": self.best_loss,
            "seconds": self.seconds,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up where the checkpoint left off."""
        kept = checkpoint["fitting"]
        self.history, self.best_state = kept["history"], kept["best_state"]
        self.best_loss, self.seconds_before = kept["best_loss"], kept["seconds"]

    def _blame(self, batch: Batch, output: Tensor) -> str:
        for index, sample in enumerate(batch.samples):
            where = f"plate {sample.plate_id}, well {sample.well}, site {sample.site}"
            for name, pixels in (("input", batch.images), ("target", batch.targets)):
                if not torch.isfinite(pixels[index]).all():
                    return (
                        f"The loss is not finite at step {self.global_step} because the {name} of {where} is "
                        "not; check that field's images, or leave it out."
                    )
        bad = [s for s, pixels in zip(batch.samples, output, strict=True) if not torch.isfinite(pixels).all()]
        sample = (bad or batch.samples)[0]
        return (
            f"The loss is not finite at step {self.global_step}, first on plate {sample.plate_id}, "
            f"well {sample.well}, site {sample.site}; choose a lower learning_rate than "
            f"{self.config.learning_rate:g}."
        )
