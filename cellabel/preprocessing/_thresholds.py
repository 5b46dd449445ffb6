"""Thresholds: one for the image, or one for every pixel."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.preprocessing._images import histogram_quantiles, otsu_bin, require_image

__all__ = ["THRESHOLDS", "global_threshold", "local_threshold"]

BINS = 4096


def global_threshold(image: ArrayLike, method: str = "otsu") -> float:
    """One threshold for the whole image; pixels above it are foreground.

    Args:
        image: (H, W), any units.
        method: "otsu", "mean", "triangle" or "li".

    Returns:
        The threshold, in the image's units. Of a constant image it is the constant: nothing lies above it.

    Raises:
        InputError: not an image, or no such method.

    Source: Otsu 1979; Zack, Rogers & Latt 1977 (triangle); Li & Tam 1998 (minimum cross-entropy).
    """
    array = require_image(image)
    if method not in THRESHOLDS:
        raise InputError(f"No threshold is called {method!r}; there are {', '.join(sorted(THRESHOLDS))}.")
    low, high = float(array.min()), float(array.max())
    if not high > low:
        return low
    return float(THRESHOLDS[method](array, low, high))


def local_threshold(
    image: ArrayLike, size: int, *, offset: float = 0.0, method: str = "mean"
) -> NDArray[np.float32]:
    """A threshold for every pixel from its neighbourhood; pixels above it are foreground.

    Args:
        image: (H, W), any units.
        size: side of the neighbourhood, px; even sizes become the next odd one.
        offset: subtracted from the neighbourhood's level, the image's units.
        method: "mean" of a square, "gaussian" mean (σ = size / 6), or "midrange" (between darkest and
            brightest).

    Returns:
        (H, W) float32, the image's units; borders are mirrored.

    Raises:
        InputError: not an image, a size below 1, or no such method.
    """
    array = require_image(image).astype(np.float32)
    if size < 1:
        raise InputError(f"A neighbourhood of {size} px holds no pixel; give an odd number from 1 on.")
    side = int(size) | 1
    if method == "mean":
        level = cv2.blur(array, (side, side), borderType=cv2.BORDER_REFLECT)
    elif method == "gaussian":
        level = cv2.GaussianBlur(array, (side, side), side / 6, borderType=cv2.BORDER_REFLECT)
    elif method == "midrange":
        square = np.ones((side, side), np.uint8)
        level = (cv2.dilate(array, square) + cv2.erode(array, square)) / 2
    else:
        raise InputError(
            f"No local threshold is called {method!r}; there are 'mean', 'gaussian' and 'midrange'."
        )
    return np.asarray(level - np.float32(offset), np.float32)


def _histogram(
    array: NDArray[Any], low: float, high: float, bins: int = BINS
) -> tuple[NDArray[np.float64], float]:
    width = (high - low) / bins
    index = np.minimum(((array - low) / width).astype(np.intp), bins - 1)
    return np.bincount(index.ravel(), minlength=bins).astype(np.float64), width


def _otsu(array: NDArray[Any], low: float, high: float) -> float:
    counts, width = _histogram(array, low, high)
    return low + (otsu_bin(counts) + 1) * width


def _mean(array: NDArray[Any], low: float, high: float) -> float:
    return float(array.mean(dtype=np.float64))


def _triangle(array: NDArray[Any], low: float, high: float) -> float:
    """The bin farthest from the line between the histogram's peak and the end of its longer tail."""
    low, high = histogram_quantiles(array, (0.0, 0.9999))
    if not high > low:
        return low
    # Fewer bins than whole numbers between the ends: empty bins would lie farthest from the line.
    counts, width = _histogram(np.minimum(array, high), low, high, 256)
    peak = int(np.argmax(counts))
    occupied = np.flatnonzero(counts)
    end = int(occupied[-1]) if occupied[-1] - peak >= peak - occupied[0] else int(occupied[0])
    if end == peak:
        return low + (peak + 1) * width
    step = 1 if end > peak else -1
    position = np.arange(peak, end + step, step)
    line = counts[peak] + (counts[end] - counts[peak]) * (position - peak) / (end - peak)
    return low + (int(position[np.argmax(line - counts[position])]) + 1) * width


def _li(array: NDArray[Any], low: float, high: float) -> float:
    """Minimum cross-entropy by fixed-point iteration on the histogram, started at the mean."""
    counts, width = _histogram(array, low, high)
    values = np.arange(BINS) + 0.5
    weight, moment = np.cumsum(counts), np.cumsum(counts * values)
    cut = float(moment[-1] / weight[-1])
    for _ in range(1000):
        index = min(max(int(cut), 0), BINS - 2)
        back = moment[index] / max(weight[index], 1.0)
        front = (moment[-1] - moment[index]) / max(weight[-1] - weight[index], 1.0)
        new = (front - back) / (np.log(front) - np.log(back)) if front > back > 0 else cut
        if abs(new - cut) < 0.25:
            break
        cut = new
    return low + cut * width


THRESHOLDS = {"otsu": _otsu, "mean": _mean, "triangle": _triangle, "li": _li}
"""Methods of `global_threshold`: name → function of the image and its extremes."""
