"""What every kind of defocus checks of its arguments and does with its result."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cellabel.errors import InputError


def check_optics(pixel_size_um: float, wavelength_um: float, numerical_aperture: float) -> None:
    """Refuse optics that cannot be.

    Raises:
        InputError: a length that is not positive, or an aperture outside of 0..1.
    """
    if not (pixel_size_um > 0 and wavelength_um > 0 and 0 < numerical_aperture < 1):
        raise InputError(
            f"No air objective has pixel size {pixel_size_um!r} µm, wavelength {wavelength_um!r} µm and "
            f"numerical aperture {numerical_aperture!r}; pass positive lengths and an aperture below 1."
        )


def pupil_phase(
    rho_squared: NDArray[np.float64], defocus_um: float, numerical_aperture: float, wavelength_um: float
) -> NDArray[np.float64]:
    """Ψ = 2πz/λ (√(1 − NA²ρ²) − 1) where the pupil's radius is 1: what defocus adds to the wave, radians."""
    root = np.sqrt(np.clip(1 - numerical_aperture**2 * rho_squared, 0, None))
    return 2 * np.pi * defocus_um / wavelength_um * (root - 1)


def reach_px(defocus_um: float, pixel_size_um: float, numerical_aperture: float) -> int:
    """How far light goes astray out of focus, px, and a little more: the margin that an image needs."""
    slope = numerical_aperture / math.sqrt(1 - numerical_aperture**2)
    return math.ceil(abs(defocus_um) * slope / pixel_size_um) + 16


def image_to_defocus(image: NDArray, defocus_um: float) -> NDArray[np.float64]:
    """The image as float64.

    Raises:
        InputError: not (H, W), or the image or its defocus is not finite.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 2 or image.size == 0:
        raise InputError("Defocus needs one image, an array of shape (height, width); hand it one.")
    pixels = image.astype(np.float64)
    if not (np.isfinite(pixels).all() and math.isfinite(defocus_um)):
        raise InputError(
            "The image or the defocus holds NaN or infinite values; repair them before blurring."
        )
    return pixels


def as_dtype(pixels: NDArray[np.float64], dtype: np.dtype) -> NDArray:
    """Pixels in the dtype of the image they were made of; integers rounded and clipped to their range."""
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        pixels = np.clip(np.rint(pixels), limits.min, limits.max)
    return pixels.astype(dtype)
