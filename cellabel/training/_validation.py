"""How well whole fields are predicted, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellabel.datasets import Dataset, FieldSample
from cellabel.networks import UNet
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


def validation_fields(
    dataset: Dataset, samples: Sequence[FieldSample], megapixels: float, most: int = 8
) -> list[ValidationField]:
    """Up to `most` fields, evenly chosen, each whole or its middle; together they have `megapixels`."""
    chosen = samples[:: max(1, math.ceil(len(samples) / most))]
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
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    losses, correlations, sums = [], [], np.zeros(5)
    with torch.no_grad():
        for field in fields:
            image = torch.empty(field.image.shape, memory_format=torch.channels_last).copy_(field.image)
            output = network(image.to(device)).float().cpu()
            losses.append(float(loss(output, field.target)))
            predicted = torch.sigmoid(output) if binary else output
            p, y = (
                predicted.numpy().ravel().astype(np.float64),
                field.target.numpy().ravel().astype(np.float64),
            )
            correlations.append(_pearson(p, y))
            sums += (p.size, p.sum(), y.sum(), (p * y).sum(), (y * y).sum())
    network.train(training)
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


def _pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    first, second = first - first.mean(), second - second.mean()
    norms = math.sqrt((first @ first) * (second @ second))
    return float(first @ second / norms) if norms > 0 else float("nan")
