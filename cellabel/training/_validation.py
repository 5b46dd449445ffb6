"""How well whole fields are predicted, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellabel.datasets import Dataset, FieldSample
from cellabel.evaluation import well_errors
from cellabel.measurement import measure_field
from cellabel.networks import UNet
from cellabel.segmentation import core_share, segment
from cellabel.training._losses import Loss

LARGEST_SIDE = 1024


class ValidationField(NamedTuple):
    """Input and scaled target (1, 1, H, W) of one field, or of its middle."""

    sample: FieldSample
    image: Tensor
    target: Tensor


class PixelAgreement(NamedTuple):
    """Prediction against target: means over fields; slope and intercept of predicted on true pixels."""

    loss: float
    pearson: float
    slope: float
    intercept: float
    n: int


def evenly(samples: Sequence[FieldSample], most: int) -> Sequence[FieldSample]:
    """At most so many of the samples, at equal steps."""
    return samples[:: max(1, math.ceil(len(samples) / most))] if most > 0 else []


def validation_fields(
    dataset: Dataset, samples: Sequence[FieldSample], megapixels: float, most: int = 8
) -> list[ValidationField]:
    """Up to `most` fields, evenly chosen, each whole or its middle; together they have `megapixels`."""
    chosen = evenly(samples, most)
    side = min(LARGEST_SIDE, int(math.sqrt(megapixels * 1e6 / max(1, len(chosen)))))
    fields = []
    for sample in chosen:
        pair = (_middle(dataset.image(sample), side), _middle(dataset.target(sample), side))
        image, target = (torch.from_numpy(np.array(pixels))[None, None] for pixels in pair)
        fields.append(ValidationField(sample, image, target))
    return fields


def _middle(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    top, left = (max(0, (length - side) // 2) for length in image.shape)
    return image[top : top + side, left : left + side]


def pixel_agreement(
    network: UNet, fields: Sequence[ValidationField], loss: Loss, *, binary: bool
) -> PixelAgreement:
    """Predicts the fields in eval mode (the mode is restored) and compares them with their targets."""
    losses, correlations, sums = [], [], np.zeros(5)
    for field in fields:
        output = _predicted(network, field)
        losses.append(float(loss(output, field.target)))
        predicted = torch.sigmoid(output) if binary else output
        p, y = (pixels.numpy().ravel().astype(np.float64) for pixels in (predicted, field.target))
        correlations.append(_pearson(p, y))
        sums += (p.size, p.sum(), y.sum(), (p * y).sum(), (y * y).sum())
    n, sum_p, sum_y, sum_py, sum_yy = sums
    spread = n * sum_yy - sum_y**2
    slope = (n * sum_py - sum_p * sum_y) / spread if spread > 0 else float("nan")
    # A field without stain has no correlation; it still counts in the loss.
    known = [r for r in correlations if math.isfinite(r)]
    return PixelAgreement(
        float(np.mean(losses)),
        float(np.mean(known)) if known else float("nan"),
        float(slope),
        float((sum_p - slope * sum_y) / n),
        len(fields),
    )


def downstream_error(network: UNet, fields: Sequence[ValidationField], dataset: Dataset) -> float:
    """Mean |log error| of what is measured on the segmented prediction, over fields and primary metrics.

    The same segmentation is measured on the target. Fields count as wells do for the gate: zeros are floored.
    """
    sides: dict[str, list[pd.DataFrame]] = {"true": [], "predicted": []}
    for number, field in enumerate(fields):
        predicted = _predicted(network, field)
        predicted = torch.sigmoid(predicted) if dataset.binary else predicted
        size, floor = dataset.pixel_size_um, 0.0 if dataset.binary else dataset.recipe.floor
        core = core_share(field.target[0, 0].numpy(), dataset.recipe, pixel_size_um=size)
        for side, pixels in (("true", field.target), ("predicted", predicted)):
            image = pixels[0, 0].numpy()
            labels = segment(image, dataset.recipe, pixel_size_um=size, floor=floor, core=core)
            row = measure_field(labels, image, organelle=dataset.recipe, pixel_size_um=size)
            sides[side].append(row.assign(Metadata_Plate=field.sample.plate_id, Metadata_Well=str(number)))
    true, ours = (pd.concat(sides[side], ignore_index=True) for side in ("true", "predicted"))
    errors = well_errors(true, ours, dataset.recipe.primary_metrics)["log_error"].abs()
    return float(errors.mean())


def _predicted(network: UNet, field: ValidationField) -> Tensor:
    """The output (1, 1, H, W) in eval mode; the mode is restored."""
    training, device = network.training, next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        image = torch.empty(field.image.shape, memory_format=torch.channels_last).copy_(field.image)
        output = network(image.to(device)).float().cpu()
    network.train(training)
    return output


def _pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    first, second = first - first.mean(), second - second.mean()
    norms = math.sqrt((first @ first) * (second @ second))
    return float(first @ second / norms) if norms > 0 else float("nan")
