"""Table 5 of the method: three corruptions, by severity."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from numbers import Real

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellabel.errors import InputError
from cellabel.severities import SEVERITIES, amount_of

Array = NDArray[np.floating]

DESTROYED_SHARE = 0.5
"""Above this share of clipped pixels a case counts as "information destroyed"."""


@lru_cache(maxsize=64)
def defocus_kernel(radius: float) -> Array:
    """The blur of a disk, seen by square pixels: disk ⊗ pixel square, integrated over each pixel.

    A weight is the mean, over the disk, of the overlap of two unit squares. Plain area coverage of the disk
    would leave a radius of 0.5 px without effect.

    Args:
        radius: of the disk, px.

    Returns:
        (2k + 1, 2k + 1) float64, read-only, sum 1.
    """
    if radius == 0:
        kernel = np.ones((1, 1))
    else:
        half = math.ceil(radius + 1) - 1
        offsets = np.arange(-half, half + 1)
        # Nodes that thicken towards the rim of the disk; along y the integral has a closed form.
        angle = (np.arange(4096) + 0.5) * np.pi / 4096
        x, chord = radius * np.cos(angle), radius * np.sin(angle)
        along_x = np.clip(1 - np.abs(offsets[:, None] - x), 0, None)
        along_y = _overlap_integral(chord - offsets[:, None]) - _overlap_integral(-chord - offsets[:, None])
        kernel = (along_x * np.sin(angle)) @ along_y.T
        kernel = (kernel + kernel.T) / 2
        kernel /= kernel.sum()
    kernel.flags.writeable = False
    return kernel


def _overlap_integral(t: Array) -> Array:
    """∫ max(0, 1 − |u|) du from −∞ to t."""
    t = np.clip(t, -1, 1)
    return 0.5 + t - np.sign(t) * t**2 / 2


def _defocus(image: Array, radius: float, full_scale: float) -> Array:
    kernel = defocus_kernel(radius)
    return ndimage.convolve(image, kernel.reshape((1,) * (image.ndim - 2) + kernel.shape), mode="reflect")


def _contrast(image: Array, gain: float, full_scale: float) -> Array:
    return gain * image


def _brightness(image: Array, bias: float, full_scale: float) -> Array:
    return image + bias * full_scale / 255


_FUNCTIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "defocus": _defocus,
    "contrast": _contrast,
    "brightness": _brightness,
}


def corrupt(image: NDArray, kind: str, severity: int, *, full_scale: float | None = None) -> NDArray:
    """The image as a badly set microscope would have delivered it (method, table 5).

    Contrast is gain · x and brightness x + bias · full_scale / 255, both about zero and clipped to
    [0, full_scale]; defocus convolves with a disk and the pixel's square, borders reflected. Integers are
    rounded.

    Args:
        image: (..., H, W), raw, before any normalisation.
        kind: one of `KINDS`.
        severity: a column of table 5 (defocus 0…5, contrast and brightness −5…5); 0 changes nothing.
        full_scale: the instrument's range; where not given, 255 for uint8 and 65535 for uint16. Other dtypes
            need it.

    Returns:
        A new array of the same shape and dtype.

    Raises:
        InputError: unknown kind or severity, no full scale, not an image, or pixels that are not finite.
    """
    amount = amount_of(kind, severity)
    scale = full_scale_of(image, full_scale)
    if amount == SEVERITIES[kind][0]:
        return image.copy()
    corrupted = _FUNCTIONS[kind](_finite(image), amount, scale)
    if kind != "defocus":
        corrupted = np.clip(corrupted, 0, scale)
    if np.issubdtype(image.dtype, np.integer):
        corrupted = np.rint(corrupted)
    return corrupted.astype(image.dtype)


def clipped_share(image: NDArray, kind: str, severity: int, *, full_scale: float | None = None) -> float:
    """Share of pixels whose value `corrupt` cuts off at 0 or at the full scale (0…1).

    Report it with every result on corrupted images; above `DESTROYED_SHARE` the image holds too little to
    judge by. Arguments and errors are those of `corrupt`.
    """
    amount = amount_of(kind, severity)
    scale = full_scale_of(image, full_scale)
    if kind == "defocus" or amount == SEVERITIES[kind][0]:
        return 0.0
    corrupted = _FUNCTIONS[kind](_finite(image), amount, scale)
    return float(np.mean((corrupted < 0) | (corrupted > scale)))


def full_scale_of(image: NDArray, full_scale: float | None = None) -> float:
    """The instrument's range of an image: as given, else 255 for uint8 and 65535 for uint16.

    Raises:
        InputError: not an image array, no full scale known for its dtype, or one that the dtype cannot hold.
    """
    if not isinstance(image, np.ndarray) or image.ndim < 2 or image.size == 0:
        raise InputError("A corruption needs an image, an array of shape (height, width); hand it one.")
    if not (np.issubdtype(image.dtype, np.integer) or np.issubdtype(image.dtype, np.floating)):
        raise InputError(
            f"A corruption needs grey values, not {image.dtype}; convert the image to integers or floats."
        )
    if full_scale is None:
        if image.dtype.kind != "u" or image.dtype.itemsize > 2:  # in either byte order
            raise InputError(
                f"The instrument's range is unknown for {image.dtype} pixels; pass full_scale, e.g. 65535."
            )
        return float(np.iinfo(image.dtype).max)
    if not (isinstance(full_scale, Real) and math.isfinite(full_scale) and full_scale > 0):
        raise InputError(f"full_scale is {full_scale!r}; pass the instrument's range, a positive number.")
    if np.issubdtype(image.dtype, np.integer) and full_scale > np.iinfo(image.dtype).max:
        raise InputError(
            f"full_scale {full_scale:g} does not fit an image of {image.dtype}; "
            f"pass at most {np.iinfo(image.dtype).max}."
        )
    return float(full_scale)


def _finite(image: NDArray) -> Array:
    pixels = image.astype(np.float64)
    if not np.isfinite(pixels).all():
        raise InputError("The image holds NaN or infinite pixels; repair it before corrupting it.")
    return pixels
