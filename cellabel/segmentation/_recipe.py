"""An organelle's recipe, step by step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.organelles import Organelle
from cellabel.organelles import organelle as recipe_of
from cellabel.preprocessing import in_pixels, require_image
from cellabel.segmentation import _masks, _objects, _split
from cellabel.segmentation._canvas import Canvas

__all__ = ["STEPS", "core_share", "segment"]

STEPS: dict[str, Callable[..., Canvas]] = {
    "top_hat": _masks.top_hat,
    "normalise": _masks.normalise,
    "global_threshold": _masks.threshold,
    "zero_outside": _masks.zero_outside,
    "local_threshold": _masks.local_contrast,
    "fill_holes": _masks.fill_holes,
    "open_and_blur": _masks.open_and_blur,
    "probability": _masks.probability,
    "separate": _objects.separate,
    "split_touching": _split.split_touching,
    "trim": _objects.trim,
    "keep_core": _objects.keep_core,
    "drop_dim": _objects.drop_dim,
    "drop_small": _objects.drop_small,
}
"""Operations that a recipe's `segmentation` can name: a canvas and parameters in pixels → the canvas."""


def segment(
    image: ArrayLike,
    organelle: str | Organelle = "nuclei",
    *,
    pixel_size_um: float | None = None,
    floor: float = 0.0,
    core: float | None = None,
) -> NDArray[np.int32]:
    """The objects in a stained image, in a prepared target, or in a predicted one.

    Scale and offset of the intensities do not matter: what counts is the height above the background, in
    parts of the image's own range and of its noise. A field in which nothing rises above the noise has no
    objects.

    Args:
        image: (H, W), any intensity units; for a binary organelle a probability, a mask of 0 and 1, or the
            stain.
        organelle: name of the recipe, or a recipe.
        pixel_size_um: size of a pixel, µm; None means 0.65 µm.
        floor: least height of an object above the background, the image's units. A prediction has no noise
            that would say what is nothing: give the recipe's floor times the model's target scale.
        core: how far objects are cut to their bright core where the recipe asks for it, 0 (not) to 1
            (wholly); None: as far as this field's objects are small soft balls. A prediction is smoother than
            the stain: give what the stains that it was learnt from say, see `core_share`.

    Returns:
        (H, W) int32: 0 is background, objects are 1..n without gaps, in no particular order.

    Raises:
        InputError: no such recipe or step, not an image, NaN or infinite values, a floor below 0, a core
            that is no share.

    Source: the method's Algorithm 2, with the splitting of touching nuclei after it.
    """
    return _segmented(image, recipe_of(organelle), pixel_size_um, floor, core).labels


def core_share(
    image: ArrayLike, organelle: str | Organelle = "nuclei", *, pixel_size_um: float | None = None
) -> float | None:
    """How far `segment` cuts this stain's objects to their core, 0 to 1; None where nothing asks for it.

    Args:
        image: (H, W), the stain or the prepared target.
        organelle: name of the recipe, or a recipe.
        pixel_size_um: size of a pixel, µm; None means 0.65 µm.

    Raises:
        InputError: as `segment`.
    """
    return _segmented(image, recipe_of(organelle), pixel_size_um, 0.0, None).core


def _segmented(
    image: ArrayLike, recipe: Organelle, pixel_size_um: float | None, floor: float, core: float | None
) -> Canvas:
    if not (np.isfinite(floor) and floor >= 0):
        raise InputError(f"A floor of {floor} is no height; give a number from 0 on, in the image's units.")
    if core is not None and not 0 <= core <= 1:
        raise InputError(f"A core of {core} is no share; give a number from 0 to 1.")
    canvas = Canvas.of(require_image(image, f"The {recipe.name} image"), float(floor), core)
    for step in recipe.segmentation:
        if step.function not in STEPS:
            raise InputError(
                f"The recipe {recipe.name!r} asks for the step {step.function!r}; "
                f"there are {', '.join(sorted(STEPS))}."
            )
        canvas = STEPS[step.function](canvas, **in_pixels(step.parameters, pixel_size_um))
    return canvas
