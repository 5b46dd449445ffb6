"""Uneven illumination, learnt from a plate's own fields."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.preprocessing._images import require_image

__all__ = ["correct_flat_field", "flat_field"]

GRID = 64
"""Longer side, px, of the small images on which the shading is fitted."""
DEGREE = 4
"""Highest total degree of the polynomials that the shading may be made of."""


def flat_field(fields: Iterable[ArrayLike], *, dark: float = 0.0) -> NDArray[np.float32]:
    """The gain of every pixel, from many fields of one channel, without a reference slide.

    Every field is modelled as its own level times one smooth gain (a polynomial of degree 4), plus sparse
    cells: a rank-1 fit, reweighted so that pixels far from it, cells above all, lose their say.

    Args:
        fields: images (H, W) of one channel and one shape, at least 3; more than about 20 change little.
        dark: the camera's offset, subtracted first, the images' units.

    Returns:
        (H, W) float32 gain with mean 1, always positive: divide by it.

    Raises:
        InputError: fewer than 3 fields, or fewer than 3 with light in them, or fields of several shapes.

    Source: after Peng et al. 2017, Nat Commun 8:14836 (BaSiC), with a fixed smooth basis in place of its
        prior.
    """
    if not isinstance(fields, Iterable):
        raise InputError(f"Illumination needs images of many fields, not {fields!r}; give a list of them.")
    images = [
        require_image(field, f"Field {number} of the illumination") for number, field in enumerate(fields, 1)
    ]
    shapes = {image.shape for image in images}
    if len(images) < 3:
        raise InputError(
            f"Illumination needs at least 3 fields, there are {len(images)}; take more of the plate."
        )
    if len(shapes) > 1:
        raise InputError(
            f"Illumination needs fields of one shape, there are {sorted(shapes)}; sort them by channel."
        )
    height, width = shapes.pop()
    factor = max(height, width, GRID) / GRID
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    stack = np.stack(
        [cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA) for image in images]
    )
    light = stack.astype(np.float64) - dark
    lit = light.mean(axis=(1, 2)) > 0
    if lit.sum() < 3:
        raise InputError(
            f"Illumination needs at least 3 fields brighter than {dark:g}, there are {lit.sum()} "
            f"of {lit.size}; check the channel and the camera's offset."
        )
    gain = _rank_one(light[lit])
    full = cv2.resize(gain.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    full = np.maximum(full, np.float32(0.05))
    return np.asarray(full / full.mean(dtype=np.float64), np.float32)


def correct_flat_field(image: ArrayLike, gain: ArrayLike, *, dark: float = 0.0) -> NDArray[np.float32]:
    """The image as it would be under even light: (image − dark) / gain + dark.

    Args:
        image: (H, W), the camera's units.
        gain: (H, W) from `flat_field`, no unit.
        dark: the camera's offset, the image's units.

    Returns:
        (H, W) float32, the image's units.

    Raises:
        InputError: shapes differ, or the gain is not positive everywhere.
    """
    array, divisor = require_image(image).astype(np.float32), require_image(gain, "The gain")
    if array.shape != divisor.shape:
        raise InputError(
            f"The gain is {divisor.shape}, the image {array.shape}; estimate it from the same channel."
        )
    if divisor.min() <= 0:
        raise InputError("The gain is not positive everywhere; estimate it again from brighter fields.")
    return np.asarray((array - dark) / divisor + dark, np.float32)


def _polynomials(height: int, width: int) -> NDArray[np.float64]:
    """Products of Legendre polynomials up to the total degree, (height · width, terms)."""
    y, x = (
        np.polynomial.legendre.legvander((2 * np.arange(side) + 1) / side - 1, DEGREE)
        for side in (height, width)
    )
    terms = [np.outer(y[:, a], x[:, b]).ravel() for a in range(DEGREE + 1) for b in range(DEGREE + 1 - a)]
    return np.column_stack(terms)


def _rank_one(stack: NDArray[np.float64], rounds: int = 30) -> NDArray[np.float64]:
    """The smooth (h, w) gain whose multiples fit the (n, h, w) stack best, by reweighted least squares."""
    count, height, width = stack.shape
    basis = _polynomials(height, width)
    pixels = stack.reshape(count, -1)
    levels = np.median(pixels, axis=1)
    if not (levels > 0).all():
        levels = np.maximum(pixels.mean(axis=1), np.finfo(np.float64).tiny)
    gain = np.ones(height * width)
    for _ in range(rounds):
        residual = pixels / levels[:, None] - gain
        scale = 1.4826 * np.median(np.abs(residual)) + 1e-9
        # Cells are bright: above the fit a residual of 2 spreads is already suspicious, below it 4 are not.
        distance = np.where(residual > 0, residual / (2 * scale), residual / (4 * scale))
        weight = levels[:, None] ** 2 / (1 + distance**2) ** 2
        total = weight.sum(axis=0)
        target = (weight * pixels / levels[:, None]).sum(axis=0) / total
        normal = basis.T @ (basis * total[:, None]) + 1e-9 * total.sum() * np.eye(basis.shape[1])
        new = basis @ np.linalg.solve(normal, basis.T @ (total * target))
        new = np.maximum(new, 0.05)
        new /= new.mean()
        levels = (weight * pixels * new).sum(axis=1) / (weight * new**2).sum(axis=1)
        levels = np.maximum(levels, np.finfo(np.float64).tiny)
        if np.abs(new - gain).max() < 1e-6:
            break
        gain = new
    return gain.reshape(height, width)
