"""Intensities on a common scale: for a network's input, and for looking."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.preprocessing._images import histogram_quantiles, require_image

__all__ = ["normalise", "prepare_input"]

GAUSSIAN_RANGE = 6.180464612335626
"""Distance between the 0.1th and the 99.9th percentile of a normal distribution, in standard deviations."""


def normalise(
    image: ArrayLike,
    method: Literal["percentile", "robust_z"] = "percentile",
    *,
    lower: float = 1.0,
    upper: float = 99.0,
    clip: bool = True,
) -> NDArray[np.float32]:
    """The image on a scale of its own: percentiles to 0 and 1, or the median to 0 and the robust spread to 1.

    Such a scale erases differences between images: it is for looking and for finding edges, never for a
    target whose intensity is to be measured.

    Args:
        image: (H, W), any intensity units.
        method: "percentile" maps `lower` to 0 and `upper` to 1; "robust_z" is (x − median) / (1.4826 · MAD).
        lower: percentile that becomes 0.
        upper: percentile that becomes 1.
        clip: whether "percentile" cuts at 0 and 1.

    Returns:
        (H, W) float32, no unit. A constant image becomes zeros.

    Raises:
        InputError: not an image, or no such method, or percentiles out of order.
    """
    array = require_image(image)
    if method == "robust_z":
        median = float(np.median(array))
        deviation = 1.4826 * float(np.median(np.abs(array - np.float64(median))))
        return _affine(array, median, deviation)
    if method != "percentile":
        raise InputError(f"No normalisation is called {method!r}; there are 'percentile' and 'robust_z'.")
    if not 0 <= lower < upper <= 100:
        raise InputError(
            f"Percentiles {lower} and {upper} are out of order; 0 ≤ lower < upper ≤ 100 is needed."
        )
    low, high = histogram_quantiles(array, (lower / 100, upper / 100))
    scaled = _affine(array, low, high - low)
    return np.clip(scaled, 0.0, 1.0, out=scaled) if clip else scaled


def prepare_input(image: ArrayLike) -> NDArray[np.float32]:
    """A transmitted-light image as the network sees it: centred and scaled once, over the whole image.

    The scale is the distance between the 0.1th and the 99.9th percentile, as multiples of what it is for a
    normal
    distribution: far enough out to lie within the cells of a sparse field too (the interquartile range would
        be
    the camera's noise there, and the same cell would look ten times stronger than in a crowded field), and
    not so far that dust or hot pixels decide. It is at least 1 % of the median, so that the noise of a blank
    well is not blown up to the size of cells.

    Args:
        image: (H, W), the camera's units, any scale and offset.

    Returns:
        (H, W) float32, no unit; the median is 0, structure is of the order of 1. A constant image becomes
        zeros.

    Raises:
        InputError: not (H, W), or NaN or infinite values.
    """
    array = require_image(image, "The transmitted-light image")
    low, median, high = histogram_quantiles(array, (0.001, 0.5, 0.999))
    return _affine(array, median, max((high - low) / GAUSSIAN_RANGE, 0.01 * abs(median)))


def _affine(array: NDArray, offset: float, scale: float) -> NDArray[np.float32]:
    if not scale > 0:
        return np.zeros(array.shape, np.float32)
    # The offset goes first, in the image's precision: float32 alone would lose small contrast on a high
    # offset.
    precise = np.float64 if array.dtype.itemsize > 2 else np.float32
    centred = np.subtract(array, offset, dtype=precise)
    return (centred / scale).astype(np.float32)
