"""From intensities to a mask: steps 1 to 6 of the recipe."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cellabel.preprocessing import (
    background_and_noise,
    disk,
    global_threshold,
    subtract_background,
    white_tophat,
)
from cellabel.segmentation._canvas import FULL_SCALE, Canvas

__all__ = [
    "fill_holes",
    "local_contrast",
    "normalise",
    "open_and_blur",
    "probability",
    "threshold",
    "top_hat",
    "zero_outside",
]


def _steps(image: NDArray[Any], low: float, gain: float) -> NDArray[np.uint16]:
    """Intensities in whole steps from `low` on; an offset or a gain leaves the steps as they are."""
    if image.dtype in (np.uint8, np.uint16):
        values = np.arange(np.iinfo(image.dtype).max + 1)
        return np.clip(np.rint((values - low) * gain), 0, FULL_SCALE).astype(np.uint16)[image]
    steps = np.subtract(image, low, dtype=np.float64)
    steps *= gain
    return np.clip(np.rint(steps, out=steps), 0, FULL_SCALE, out=steps).astype(np.uint16)


SPARSE = np.array([0.5, 0.7])
"""Shares of the pixels between which the spread of a sparse image's background is read."""
SPARSE_WIDTH = 0.5244005127080407
"""Distance between these quantiles of a normal distribution, in standard deviations."""


def top_hat(canvas: Canvas, *, radius: float) -> Canvas:
    """Keep what is narrower than the disk (`radius`, px), so that spots are judged against their cell."""
    canvas.image = white_tophat(canvas.image, max(radius, 1.0))
    return canvas


def normalise(canvas: Canvas, *, smoothing: float, sparse: bool = False) -> Canvas:
    """Step 1: the image on a scale of whole numbers, smoothed by a Gaussian of σ = `smoothing` px.

    The scale ends at the brightest pixel that has neighbours like it (a 3 × 3 median), so that a hot pixel
    does not press the image into the dark end.

    Args:
        canvas: as it was given, or after a top-hat.
        smoothing: σ, px.
        sparse: whether at least seven tenths of the image are background. The spread of what lies above its
            level is then taken into account too: after a top-hat it is the wider half of the noise.
    """
    image = canvas.image
    kept = image if image.dtype in (np.uint8, np.uint16) else image.astype(np.float32)
    steady = cv2.medianBlur(kept, 3)
    low, high = float(steady.min()), float(steady.max())
    if high > low:
        canvas.work = _steps(image, low, FULL_SCALE / (high - low))
        canvas.floor *= FULL_SCALE / (high - low)
        canvas.fine = gaussian(canvas.work, smoothing / 2)
        canvas.work = canvas.smooth = gaussian(canvas.work, smoothing)
    canvas.level, canvas.noise = background_and_noise(canvas.work)
    if sparse:
        middle, upper = np.searchsorted(np.cumsum(np.bincount(canvas.work.ravel())), SPARSE * image.size)
        canvas.noise = max(canvas.noise, float(upper - middle) / SPARSE_WIDTH)
    return canvas


def threshold(canvas: Canvas, *, method: str = "mean", sigmas: float = 6.0, typical: float = 0.0) -> Canvas:
    """Step 2: one threshold for the image, at least the floor and `sigmas` standard deviations of the noise.

    Args:
        canvas: with intensities.
        method: of `global_threshold`.
        sigmas: least height above the background, in standard deviations of its noise.
        typical: least height, as a share of what is typical of the field's bright pixels; 0 leaves it out. A
            stain and a noiseless prediction of it are then cut alike.
    """
    cut = max(global_threshold(canvas.work, method), canvas.level + max(sigmas * canvas.noise, canvas.floor))
    for _ in range(3 if typical > 0 else 0):
        cut = max(cut, canvas.level + typical * _typical_height(canvas, cut))
    canvas.mask = (canvas.work > cut).astype(np.uint8)
    return canvas


def _typical_height(canvas: Canvas, cut: float) -> float:
    """Mean height above background of what lies above `cut`, every pixel weighted by its own height."""
    tally = np.bincount(canvas.work.ravel(), minlength=FULL_SCALE + 1).astype(np.float64)
    height = np.maximum(np.arange(tally.size) - canvas.level, 0.0)
    weight = np.where(np.arange(tally.size) > cut, tally, 0.0) * height
    return float((weight * height).sum() / weight.sum()) if weight.sum() > 0 else 0.0


def zero_outside(canvas: Canvas) -> Canvas:
    """Step 3: zero the pixels outside the mask."""
    canvas.work = canvas.work * canvas.mask
    return canvas


def local_contrast(
    canvas: Canvas,
    *,
    reach: float,
    share: float,
    sure: float = 1.0,
    edge: float = 0.0,
    ceiling: float = np.inf,
) -> Canvas:
    """Step 4: a pixel belongs to an object if it is bright for its neighbourhood.

    Below `share` of the brightest pixel nearby it does not belong, above `sure` it does, and in between the
    edge
    decides: it belongs if it lies on the upper side of the slope, where the image is above its own blurred
    copy. That is the steepest place, half-way up for a plateau and three fifths up for a small round blob.

    Args:
        canvas: with `work` zero outside the first mask.
        reach: how near, px.
        share: of the height above background that the brightest pixel within `reach` has.
        sure: the same; 1 leaves it all to the edge.
        edge: σ of the box that blurs the copy, px; 0 leaves the edge out.
        ceiling: how many times the median height of the first mask a neighbour's peak counts at most, so that
            a condensed nucleus does not cut up the dim one beside it.
    """
    around = np.ones((2 * max(round(reach), 1) + 1,) * 2, np.uint8)
    highest = _ceiling(canvas, ceiling)
    peak: NDArray[Any] = cv2.dilate(np.minimum(canvas.work, highest), around)
    peak = cv2.blur(peak, around.shape, borderType=cv2.BORDER_REFLECT)
    canvas.mask = canvas.mask * _above(canvas.work, _at_share(peak, canvas.level, share))
    if edge > 0:
        upper = _above(canvas.work, box(canvas.smooth, edge))
        canvas.mask = canvas.mask * (upper | _above(canvas.work, _at_share(peak, canvas.level, sure)))
    return canvas


def _ceiling(canvas: Canvas, times: float) -> np.uint16:
    """So many times the median height of the first mask, as an intensity."""
    if not np.isfinite(times) or not canvas.mask.any():
        return np.uint16(FULL_SCALE)
    tally = np.bincount(canvas.work[canvas.mask > 0])
    median = int(np.searchsorted(np.cumsum(tally), tally.sum() / 2))
    return np.uint16(min(FULL_SCALE, canvas.level + times * (median - canvas.level)))


def _above(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.uint8]:
    """1 where one image is above the other."""
    return (one > other).view(np.uint8)


def _at_share(peak: NDArray[Any], level: float, share: float) -> NDArray[Any]:
    """The intensity that lies at a share of the way from the background's level to the peak."""
    return np.asarray(cv2.addWeighted(peak, share, peak, 0.0, level * (1 - share)))


def fill_holes(canvas: Canvas, *, max_area: float = np.inf) -> Canvas:
    """Step 5: fill holes up to `max_area` px; what touches the image's border is no hole."""
    if max_area >= canvas.mask.size:
        contours, _ = cv2.findContours(canvas.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        canvas.mask = cv2.drawContours(np.zeros_like(canvas.mask), contours, -1, 1, cv2.FILLED)
        return canvas
    count, regions, stats, _ = cv2.connectedComponentsWithStats(1 - canvas.mask, connectivity=4)
    height, width = canvas.mask.shape
    left, top, wide, high, area = (stats[:, column] for column in range(5))
    open_ended = (left == 0) | (top == 0) | (left + wide == width) | (top + high == height)
    fill = ~open_ended & (area <= max_area)
    fill[0] = False
    if count > 1 and fill.any():
        canvas.mask = canvas.mask | fill.astype(np.uint8)[regions]
    return canvas


def open_and_blur(canvas: Canvas, *, radius: float, smoothing: float) -> Canvas:
    """Step 6: opening by a disk of `radius` px, then a Gaussian of σ = `smoothing` px on the outline."""
    if radius >= 1:
        canvas.mask = cv2.morphologyEx(canvas.mask, cv2.MORPH_OPEN, disk(radius))
    if smoothing > 0:
        canvas.mask = (gaussian(canvas.mask * np.uint8(255), smoothing) > 127).astype(np.uint8)
    return canvas


def probability(canvas: Canvas, *, sigmas: float, smoothing: float, radius: float) -> Canvas:
    """A mask from a probability (above one half), or from a raw stain (above the background's noise).

    Floating images within 0 and 1, and integer ones of 0 and 1, are probabilities or masks; anything else is
    a stain.
    """
    image = canvas.image
    if image.min() >= 0 and image.max() <= 1:
        canvas.mask = (image > 0.5).astype(np.uint8)
        canvas.work = canvas.mask.astype(np.uint16) * np.uint16(FULL_SCALE)
        return canvas
    canvas.image = subtract_background(image, radius)
    return threshold(normalise(canvas, smoothing=smoothing), method="mean", sigmas=sigmas)


def gaussian(array: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Gaussian of `sigma` px on whole numbers, where OpenCV is exact: turns and moves commute."""
    if sigma <= 0.2:
        return array
    side = 2 * max(1, round(3 * sigma)) + 1
    return cv2.GaussianBlur(array, (side, side), sigma, borderType=cv2.BORDER_REFLECT)


def box(array: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Mean over a square whose standard deviation is `sigma` px: a faster blur, exact on whole numbers."""
    side = 2 * max(1, round((np.sqrt(12 * sigma**2 + 1) - 1) / 2)) + 1
    return np.asarray(cv2.blur(array, (side, side), borderType=cv2.BORDER_REFLECT))
