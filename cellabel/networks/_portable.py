"""A network that takes raw images and gives stain units: a whole prediction in one module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cellabel.networks._unet import UNet

GAUSSIAN_RANGE = 6.180464612335626
"""Distance between the 0.1th and the 99.9th percentile of a normal distribution, in standard deviations."""


class StainPredictor(nn.Module):
    """Raw transmitted light (N, 1, H, W) of any size → the stain (N, 1, H, W).

    Every image is centred and scaled as a whole, as at training, so whole images are to be given, not tiles.

    Args:
        target_scale: stain units per network unit.
        binary: whether the output is a probability.
        network: arguments of `UNet`.
    """

    def __init__(self, target_scale: float = 1.0, binary: bool = False, **network: Any) -> None:
        super().__init__()
        self.network = UNet(**network)
        self.target_scale = target_scale
        self.binary = binary

    def forward(self, images: Tensor) -> Tensor:
        """The stain in its own units, or a probability."""
        output = self.network(_prepared(images))
        return torch.sigmoid(output) if self.binary else output * self.target_scale


def _prepared(images: Tensor) -> Tensor:
    """Median 0, and the distance between the 0.1th and 99.9th percentile as in a normal distribution."""
    ordered = images.double().flatten(1).sort(dim=1).values
    low, median, high = (_quantile(ordered, share)[:, None, None, None] for share in (0.001, 0.5, 0.999))
    scale = torch.maximum((high - low) / GAUSSIAN_RANGE, 0.01 * median.abs())
    flat = scale <= 0
    scaled = (images.double() - median) / torch.where(flat, 1.0, scale)
    return torch.where(flat, 0.0, scaled).float()


def _quantile(ordered: Tensor, share: float) -> Tensor:
    """(N,) quantiles of sorted rows (N, P), the lower of two neighbours."""
    return ordered[:, int(share * (ordered.shape[1] - 1))]
