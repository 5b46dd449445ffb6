"""Images of one pixel size brought to another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SAME_PIXEL_SIZE = 0.02
"""Pixel sizes that differ by no more than this share count as equal."""


def same_pixel_size(first_um: float, second_um: float) -> bool:
    """Whether two pixel sizes (µm) are equal for a network's purposes."""
    return abs(first_um / second_um - 1) <= SAME_PIXEL_SIZE


def resample(image: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The same view of the sample with another number of pixels.

    Blurred first where pixels are lost, so that nothing aliases; linear between pixel centres; the outermost
    pixels are repeated.

    Args:
        image: (H, W).
        shape: of the result.

    Returns:
        `shape` float32, the image's units.
    """
    pixels = image.astype(np.float32)
    if pixels.shape == shape:
        return pixels
    factors = np.array(pixels.shape) / np.array(shape)
    if (factors > 1).any():
        pixels = ndimage.gaussian_filter(pixels, np.clip((factors - 1) / 2, 0, None), mode="nearest")
    rows, columns = (
        (np.arange(length) + 0.5) * factor - 0.5 for length, factor in zip(shape, factors, strict=True)
    )
    grid = np.meshgrid(rows, columns, indexing="ij")
    return np.asarray(ndimage.map_coordinates(pixels, grid, order=1, mode="nearest"), np.float32)
