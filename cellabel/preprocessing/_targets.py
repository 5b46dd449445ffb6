"""Stained image → what the network is to predict, by the organelle's recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.organelles import Organelle
from cellabel.organelles import organelle as recipe_of
from cellabel.preprocessing._background import rolling_ball, subtract_background, white_tophat
from cellabel.preprocessing._images import background_and_noise, require_image, to_pixels

__all__ = ["STEPS", "binary_mask", "clear_background", "clip_intensities", "enhance_spots", "prepare_target"]


def prepare_target(
    image: ArrayLike, organelle: str | Organelle, *, pixel_size_um: float | None = None
) -> NDArray[np.float32]:
    """The target of one stained image: background removed, in the stain's own units, or a mask of 0 and 1.

    Nothing is scaled by the image itself: the same cell has the same target in every field. The one constant
    scale of a data set is applied later, and is stored with the model.

    Args:
        image: (H, W), the camera's units.
        organelle: name of the recipe, or a recipe.
        pixel_size_um: size of a pixel, µm; None means 0.65 µm.

    Returns:
        (H, W) float32: for continuous targets intensities above background, never negative; for binary ones
        0 or 1.

    Raises:
        InputError: no such recipe or step, not an image, NaN or infinite values.
    """
    recipe = recipe_of(organelle)
    work = require_image(image, f"The {recipe.name} stain").astype(np.float32)
    for step in recipe.preprocessing:
        if step.function not in STEPS:
            raise InputError(
                f"The recipe {recipe.name!r} asks for the step {step.function!r}; "
                f"there are {', '.join(sorted(STEPS))}."
            )
        work = STEPS[step.function](work, **in_pixels(step.parameters, pixel_size_um))
    return np.maximum(work, np.float32(0.0))


def in_pixels(parameters: Mapping[str, Any], pixel_size_um: float | None) -> dict[str, Any]:
    """A step's parameters, lengths (`_um`) and areas (`_um2`) turned into pixels."""
    side = to_pixels(1.0, pixel_size_um)
    turned: dict[str, Any] = {}
    for name, value in parameters.items():
        if name.endswith("_um2"):
            turned[name.removesuffix("_um2")] = value * side * side
        elif name.endswith("_um"):
            turned[name.removesuffix("_um")] = value * side
        else:
            turned[name] = value
    return turned


def clear_background(
    image: NDArray[np.float32], *, sigmas: float = 3.0, smoothing: float = 1.0, margin: float = 2.0
) -> NDArray[np.float32]:
    """Zero where nothing rises above the background's noise, so that the network need not predict noise.

    Args:
        image: (H, W), background near zero, the stain's units.
        sigmas: height above the background, in standard deviations of the smoothed noise.
        smoothing: σ of the Gaussian under which the noise is judged, px.
        margin: width, px, by which what is kept grows, so that edges keep their slope.

    Returns:
        (H, W) float32, the stain's units.
    """
    smooth = _smoothed(image, smoothing)
    level, noise = background_and_noise(smooth)
    mask: NDArray[Any] = (smooth > level + sigmas * noise).astype(np.uint8)
    # Single pixels of noise pass 3 σ; what survives an opening does not come from noise.
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    if margin > 0:
        reach = round(margin)
        mask = cv2.dilate(mask, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return np.asarray(np.where(mask > 0, image - np.float32(level), np.float32(0)), np.float32)


def enhance_spots(image: NDArray[np.float32], *, radius: float) -> NDArray[np.float32]:
    """What is narrower than the disk, with noise finer than half a pixel's blur removed (the Golgi's stacks).

    Args:
        image: (H, W), the stain's units.
        radius: of the disk, px.

    Returns:
        (H, W) float32, the stain's units, never negative.
    """
    return np.asarray(white_tophat(_smoothed(image, 0.7), max(radius, 1.0)), np.float32)


def clip_intensities(
    image: NDArray[np.float32], *, sigmas: float = 0.0, low: float = 0.0, high: float = np.inf
) -> NDArray[np.float32]:
    """Intensities below a floor become 0, above `high` become `high`.

    Args:
        image: (H, W), the stain's units.
        sigmas: the floor, in standard deviations of the background's noise above its level; 0 leaves it out.
        low: an absolute floor, the stain's units.
        high: the ceiling, the stain's units.

    Returns:
        (H, W) float32, the stain's units.
    """
    floor = low
    if sigmas > 0:
        level, noise = background_and_noise(image)
        floor = max(low, level + sigmas * noise)
    return np.asarray(np.where(image < floor, 0, np.minimum(image, high)), np.float32)


def binary_mask(
    image: NDArray[np.float32],
    *,
    sigmas: float = 6.0,
    smoothing: float = 1.0,
    above_mean: bool = False,
    threshold: float = np.nan,
) -> NDArray[np.float32]:
    """1 where the stain rises above background, 0 elsewhere.

    The threshold follows the noise of the background and not the brightest cells, so that a field without a
    positive cell has an empty mask, and a bright clone does not hide a dim cell.

    Args:
        image: (H, W), the stain's units; a mask of 0 and 1 passes through.
        sigmas: height above the background, in standard deviations of the smoothed noise.
        smoothing: σ of the Gaussian that is applied first, px.
        above_mean: also above the image's mean, where a segmentation of the stain itself cuts: what glows
            about bright cells and in negative ones is then no part of the mask.
        threshold: an absolute threshold instead, the stain's units (from parental wells: mean + 3 SD).

    Returns:
        (H, W) float32, 0 or 1.
    """
    if image.size and image.min() >= 0 and np.isin(image, (0.0, 1.0)).all():
        return image
    smooth = _smoothed(image, smoothing)
    if np.isnan(threshold):
        level, noise = background_and_noise(smooth)
        threshold = level + sigmas * noise
        if above_mean:
            threshold = max(threshold, float(smooth.mean()))
    mask = (smooth > threshold).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.float32)


def _smoothed(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    if sigma <= 0:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3), borderType=cv2.BORDER_REFLECT))


def _top_hat(image: NDArray[np.float32], *, radius: float) -> NDArray[np.float32]:
    return np.asarray(white_tophat(image, radius), np.float32)


def _minus_rolling_ball(image: NDArray[np.float32], *, radius: float) -> NDArray[np.float32]:
    return np.asarray(image - rolling_ball(image, radius), np.float32)


STEPS: dict[str, Callable[..., NDArray[np.float32]]] = {
    "subtract_background": subtract_background,
    "white_tophat": _top_hat,
    "rolling_ball": _minus_rolling_ball,
    "clear_background": clear_background,
    "enhance_spots": enhance_spots,
    "clip_intensities": clip_intensities,
    "binary_mask": binary_mask,
}
"""Operations that a recipe's `preprocessing` can name: (H, W) and parameters in pixels → (H, W) float32."""
