"""More or less light, by counting photons: another physics than table 5's gain and offset of grey values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellabel.corruptions._table import full_scale_of
from cellabel.errors import InputError

FULL_WELL = 65_535
"""Electrons at the instrument's full scale; a 16-bit camera then counts one electron a grey value."""


def exposure(image: NDArray, share: float, *, full_scale: float | None = None, seed: int = 0) -> NDArray:
    """The image as a lamp (or a shutter) that gives `share` of the light would have made it.

    Less light thins the electrons at random (of n electrons share·n stay, with the variance
    share·(1 − share)·n), so that what is dark drowns in shot noise; more light saturates at the full scale.
    The camera's offset and read noise are neglected.

    Args:
        image: (..., H, W), raw, before any normalisation.
        share: of the light; 1 changes nothing.
        full_scale: the instrument's range, as in `corrupt`.
        seed: of the shot noise.

    Returns:
        A new array of the same shape and dtype.

    Raises:
        InputError: a share that is not positive, or as in `corrupt`.
    """
    if not share > 0:
        raise InputError(f"A share of {share!r} of the light makes no image: give a number above 0.")
    scale = full_scale_of(image, full_scale)
    electrons = np.clip(image.astype(np.float64), 0, None) * (FULL_WELL / scale)
    if not np.isfinite(electrons).all():
        raise InputError("The image holds NaN or infinite pixels; repair it before changing its light.")
    counted = electrons * share
    if share < 1:
        spread = np.sqrt(counted * (1 - share))
        counted = np.clip(
            counted + spread * np.random.default_rng(seed).standard_normal(image.shape), 0, None
        )
    changed = np.minimum(counted * (scale / FULL_WELL), scale)
    if np.issubdtype(image.dtype, np.integer):
        changed = np.rint(changed)
    return changed.astype(image.dtype)
