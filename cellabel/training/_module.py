"""What Lightning runs: one step, one validation, and what has to survive a kill."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise, product
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from cellabel.datasets import Dataset
from cellabel.errors import InputError
from cellabel.networks import UNet
from cellabel.training._crops import Batch, CropSampler, jittered
from cellabel.training._losses import combined_loss
from cellabel.training._schedule import learning_rate
from cellabel.training._validation import downstream_error, pixel_agreement, validation_fields
from cellabel.training_settings import TrainingConfig

JUDGEMENT = "judgement"
"""Lower is better: what chooses the best weights and stops early."""


class StepBatches(IterableDataset):
    """The batches of one round, from the step at which training stands to the next validation.

    Each process takes its run of a step's crops, in as many parts as gradients are accumulated over. The next
    batch is cut in a thread of its own while the network is busy with this one.
    """

    def __init__(self, fitting: Fitting, sampler: CropSampler) -> None:
        self.fitting = fitting
        self.sampler = sampler

    def __iter__(self) -> Iterator[Batch]:
        fitting, config = self.fitting, self.fitting.config
        start, total = fitting.global_step, fitting.total_steps
        interval = math.ceil(total / config.validations)
        end = min((start // interval + 1) * interval, total)
        trainer = fitting.trainer
        parts = fitting.accumulation * trainer.world_size
        edges = [round(part * config.batch_size / parts) for part in range(parts + 1)]
        mine = list(pairwise(edges))[trainer.global_rank * fitting.accumulation :][: fitting.accumulation]
        with ThreadPoolExecutor(1, "crops") as cutter:
            ahead: deque[Future[Batch]] = deque()
            for step, (first, last) in product(range(start, end), mine):
                ahead.append(cutter.submit(self.sampler.batch, step, range(first, last)))
                if len(ahead) > 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()


class Fitting(lightning.LightningModule):
    """The network being trained, and the course of its training.

    Attributes:
        averaged: running mean of the network's weights, or None.
        history: one row a validation.
        best_state: weights at the best validation so far.
    """

    def __init__(
        self,
        network: UNet,
        dataset: Dataset,
        config: TrainingConfig,
        losses: dict[str, float],
        *,
        accumulation: int = 1,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.averaged = copy.deepcopy(network).requires_grad_(False) if config.ema_decay else None
        self.dataset = dataset
        self.config = config
        self.accumulation = accumulation
        self.total_steps = config.steps(len(dataset.train))
        self.validation = validation_fields(dataset, dataset.validation, config.validation_megapixels)
        self.progress = progress
        self.loss = combined_loss(losses, binary=dataset.binary)
        self.history: list[dict[str, float]] = []
        self.best_state: dict[str, Tensor] = {}
        self.best = float("inf")
        self.seconds_before = 0.0
        self._started = time.monotonic()
        self._recent: list[float] = []

    @property
    def seconds(self) -> float:
        """Time spent in the loop, kills and resumptions included."""
        return self.seconds_before + time.monotonic() - self._started

    @property
    def judged(self) -> UNet:
        """The network that is validated and kept."""
        return self.network if self.averaged is None else self.averaged

    def setup(self, stage: str) -> None:
        """Sets the threads of a process of its own."""
        if self.config.num_threads is not None:
            torch.set_num_threads(self.config.num_threads)

    def train_dataloader(self) -> DataLoader:
        """The crops, made as they are asked for."""
        return DataLoader(StepBatches(self, CropSampler(self.dataset, self.config)), batch_size=None)

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
        images, targets, jitter = (t.to(device) for t in (batch.images, batch.targets, batch.jitter))
        return batch._replace(images=images, targets=targets, jitter=jitter)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Sets the learning rate of this step, and where dropout is on its random numbers."""
        limit = self.config.time_limit_s
        spent = 0.0 if limit is None else self._agreed(self.seconds) / limit
        rate = learning_rate(self.config, max(self.global_step / self.total_steps, spent))
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = rate
        if self.config.dropout > 0:
            torch.manual_seed(batch.seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, weighted by its share of the step.

        Raises:
            InputError: it is not finite; the crop that makes it so is named.
        """
        config = self.config
        images = jittered(batch) if config.intensity_jitter or config.noise else batch.images
        output = self.network(images).float()
        loss = self.loss(output, batch.targets)
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(self._blame(batch, output))
        self._recent.append(value)
        return loss * (batch.share * self.accumulation * self.trainer.world_size)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Steps, then moves the running mean."""
        super().optimizer_step(*arguments, **options)
        if self.averaged is None or self.config.ema_decay is None:
            return
        # Early on the mean spans the steps that there are, or it would remember the first weights.
        decay = min(self.config.ema_decay, (1 + self.global_step) / (10 + self.global_step))
        ours, means = self.network.state_dict(), self.averaged.state_dict()
        for name, mean in means.items():
            if mean.is_floating_point():
                mean.lerp_(ours[name], 1 - decay)
            else:
                mean.copy_(ours[name])

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Ends the training when its time is up."""
        limit = self.config.time_limit_s
        if limit is not None and self._agreed(self.seconds) >= limit:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Predicts the validation fields, keeps the best weights and tells how it goes."""
        row, judgement = self._agreed(self._validated() if self.trainer.is_global_zero else None)
        self._recent = []
        self.history.append(row)
        if judgement < self.best or not self.best_state:
            self.best = judgement
            self.best_state = {k: v.detach().cpu().clone() for k, v in self.judged.state_dict().items()}
        self._tell(row, judgement)

    def _validated(self) -> tuple[dict[str, float], float]:
        agreement = pixel_agreement(self.judged, self.validation, self.loss, binary=self.dataset.binary)
        row = {
            "step": float(self.global_step),
            "seconds": self.seconds,
            "learning_rate": self.optimizers().param_groups[0]["lr"],  # type: ignore[union-attr]
            "train_loss": sum(self._recent) / max(1, len(self._recent)),
            "validation_loss": agreement.loss,
            "validation_pearson": agreement.pearson,
        }
        judgement = {"loss": agreement.loss, "pearson": 1 - agreement.pearson}
        if self.config.monitor == "downstream":
            row["downstream_error"] = downstream_error(self.judged, self.validation, self.dataset)
            judgement["downstream"] = row["downstream_error"]
        value = judgement[self.config.monitor]
        return row, value if math.isfinite(value) else float("inf")

    def _agreed(self, value: Any) -> Any:
        """What the first process says: where several train, they must decide alike."""
        return self.trainer.strategy.broadcast(value) if self.trainer.world_size > 1 else value

    def _tell(self, row: dict[str, float], judgement: float) -> None:
        for logger in self.loggers:
            shown = {name: value for name, value in row.items() if name not in ("step", "seconds")}
            logger.log_metrics(shown, step=self.global_step)
        self.log(JUDGEMENT, judgement, logger=False)
        if self.progress is not None:
            self.progress(told(row, self.total_steps))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the loop does not keep itself."""
        checkpoint["fitting"] = {
            "history": self.history,
            "best_state": self.best_state,
            "best": self.best,
            "seconds": self.seconds,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up where the checkpoint left off."""
        self.take_up(checkpoint["fitting"])

    def take_up(self, kept: dict[str, Any]) -> None:
        """Takes over what `on_save_checkpoint` added."""
        self.history, self.best_state = kept["history"], kept["best_state"]
        self.best, self.seconds_before = kept["best"], kept["seconds"]

    def _blame(self, batch: Batch, output: Tensor) -> str:
        step = self.global_step
        finite = [
            torch.isfinite(pixels).flatten(1).all(1).tolist() for pixels in (batch.images, batch.targets)
        ]
        for index, whole in enumerate(zip(*finite, strict=True)):
            if not all(whole):
                what = "target" if whole[0] else "input"
                return (
                    f"The loss is not finite at step {step} because the {what} of {_address(batch, index)} "
                    "is not; check that field's images, or leave it out."
                )
        well = torch.isfinite(output).flatten(1).all(1).tolist()
        if False in well:
            return (
                f"The loss is not finite at step {step}, first on {_address(batch, well.index(False))}; "
                f"choose a lower learning_rate than {self.config.learning_rate:g}."
            )
        largest = batch.targets.abs().flatten(1).amax(1)
        index = int(largest.argmax())
        return (
            f"The loss is not finite at step {step} though every pixel is: the target of "
            f"{_address(batch, index)} reaches {largest[index]:.3g} times the data set's scale; check that "
            f"field's images, or choose a lower learning_rate than {self.config.learning_rate:g}."
        )


def told(row: dict[str, float], total: int) -> str:
    """One validation in a sentence."""
    measured = f", downstream error {row['downstream_error']:.3f}" if "downstream_error" in row else ""
    return (
        f"step {row['step']:.0f} of {total}: training loss {row['train_loss']:.4f}, validation loss "
        f"{row['validation_loss']:.4f}, pixel Pearson {row['validation_pearson']:.3f}{measured}"
    )


def _address(batch: Batch, index: int) -> str:
    sample, (row, column) = batch.samples[index], batch.centres[index]
    where = f"plate {sample.plate_id}, well {sample.well}, site {sample.site}"
    return f"{where} (the crop around row {row}, column {column})"
