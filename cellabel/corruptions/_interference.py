"""Defocus as differential interference contrast shows it: the transfer of a weak phase, out of focus."""

from __future__ import annotations

import math
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cellabel.corruptions._optics import as_dtype, check_optics, image_to_defocus, pupil_phase, reach_px
from cellabel.errors import InputError

_FREQUENCIES = 257
_NODES = 64
_LEAST_TRANSFER = 0.02
"""Of the focused image; what the optics pass less of is noise, and is left as it is."""

_NOISE_UM2 = 0.5
"""Noise over signal where sin x = f² · this: across the shear an image holds nothing to invert, and the phase
of cells falls with f² where the camera's noise does not. Chosen on simulated fields ±3–10 µm away: 1.0 comes
nearer to their pixels, 0.5 to their contrast.
"""


@lru_cache(maxsize=64)
def _partial_transfer(
    defocus_um: float, numerical_aperture: float, wavelength_um: float, condenser_ratio: float
) -> NDArray[np.complex128]:
    """A(z)/A(0) at `_FREQUENCIES` frequencies from 0 to the cut-off, (1 + condenser_ratio)·NA/λ.

    A(f) = mean over the condenser's points s of P*(s)·P(s + f), with P(f) = exp(iΨ(f)) inside the pupil and
    Ψ = 2πz/λ (√(1 − λ²f²) − 1); 1 where A(0) passes next to nothing.
    """
    # points of equal weight over the condenser's disk, in units of NA/λ
    radius = condenser_ratio * np.sqrt((np.arange(_NODES) + 0.5) / _NODES)[:, None]
    angle = (np.arange(_NODES) + 0.5) * 2 * np.pi / _NODES
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    phase = partial(
        pupil_phase,
        defocus_um=defocus_um,
        numerical_aperture=numerical_aperture,
        wavelength_um=wavelength_um,
    )
    ratio = np.ones(_FREQUENCIES, complex)
    own = phase(x**2 + y**2)
    for index, shift in enumerate(np.linspace(0, 1 + condenser_ratio, _FREQUENCIES)):
        moved = (x + shift) ** 2 + y**2
        inside = moved <= 1
        if inside.mean() > _LEAST_TRANSFER:
            ratio[index] = np.exp(1j * (phase(moved[inside]) - own[inside])).mean()
    ratio.flags.writeable = False
    return ratio


def interference_defocus(
    image: NDArray,
    defocus_um: float,
    *,
    pixel_size_um: float,
    numerical_aperture: float,
    wavelength_um: float = 0.546,
    shear_um: float = 0.25,
    shear_axis_degrees: float = 45.0,
    bias_degrees: float = 80.0,
    condenser_ratio: float = 0.6,
) -> NDArray:
    """A DIC image as the microscope would have taken it out of focus.

    In focus DIC shows the slope of the phase along the shear; out of focus also its curvature, in all
    directions, and with a sign: contrast can rise where a blur only takes it away. To first order in the
    phase, with x = πΔ f·û, the image's spectrum is multiplied by

        R(f) = Re A(f) + i · Im A(f) · tan(Γ/2) · cot x,

    A the transfer between condenser and pupil at this defocus over that in focus. Where the shear shows
    nothing (x near 0), cot x is bounded as by a Wiener filter. The direct light, and what the pupil does not
    pass, are unchanged.

    Args:
        image: (H, W) in focus, integers or floats.
        defocus_um: distance from focus, µm; which side is positive depends on the prism's direction.
        pixel_size_um: of the image in the sample, µm.
        numerical_aperture: of the objective, in air (below 1).
        wavelength_um: of the light, µm.
        shear_um: Δ, µm.
        shear_axis_degrees: of û, from x (columns) towards y (rows, downwards).
        bias_degrees: Γ, between 0 and 180.
        condenser_ratio: the condenser's aperture as a share of the objective's (0..1).

    Returns:
        A new array of the same shape and dtype; integers are rounded and clipped to their range.

    Raises:
        InputError: an image that is not (H, W) or not finite, or optics that cannot be.

    Source: the DIC equation of Preza, Snyder & Conchello 1999 (J Opt Soc Am A 16:2185), expanded to first
    order in the phase as Streibl 1985 (J Opt Soc Am A 2:121) does for bright field.
    """
    pixels = image_to_defocus(image, defocus_um)
    check_optics(pixel_size_um, wavelength_um, numerical_aperture)
    if not (shear_um > 0 and 0 < bias_degrees < 180 and 0 < condenser_ratio <= 1):
        raise InputError(
            f"No interference contrast has shear {shear_um!r} µm, bias {bias_degrees!r}° and a condenser of "
            f"{condenser_ratio!r} of the aperture; pass a positive shear, 0–180° and a share up to 1."
        )
    if defocus_um == 0:
        return image.copy()
    margin = reach_px(defocus_um, pixel_size_um, numerical_aperture)
    height, width = (fft.next_fast_len(length + 2 * margin, real=True) for length in image.shape)
    transfer = _transfer(
        (height, width), float(pixel_size_um), float(defocus_um), float(numerical_aperture),
        float(wavelength_um), float(shear_um), float(shear_axis_degrees), float(bias_degrees),
        float(condenser_ratio),
    )  # fmt: skip
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    level = pixels.mean()  # in single precision, what differs from it is exact to a millionth
    padded = np.pad(
        (pixels - level).astype(np.float32),
        ((top, height - image.shape[0] - top), (left, width - image.shape[1] - left)),
        mode="symmetric",
    )
    moved = fft.irfft2(fft.rfft2(padded) * transfer, s=padded.shape)
    inner = moved[top : top + image.shape[0], left : left + image.shape[1]]
    return as_dtype(inner.astype(np.float64) + level, image.dtype)


@lru_cache(maxsize=8)
def _transfer(
    shape: tuple[int, int],
    pixel_size_um: float,
    defocus_um: float,
    numerical_aperture: float,
    wavelength_um: float,
    shear_um: float,
    shear_axis_degrees: float,
    bias_degrees: float,
    condenser_ratio: float,
) -> NDArray[np.complex64]:
    """R(f) on the half spectrum (`rfft2`) of an image of this shape."""
    fy = fft.fftfreq(shape[0], pixel_size_um)[:, None]
    fx = fft.rfftfreq(shape[1], pixel_size_um)[None, :]
    frequency = np.hypot(fy, fx)
    table = _partial_transfer(defocus_um, numerical_aperture, wavelength_um, condenser_ratio)
    nodes = np.linspace(0, (1 + condenser_ratio) * numerical_aperture / wavelength_um, _FREQUENCIES)
    real = np.interp(frequency, nodes, table.real, right=1.0)
    imaginary = np.interp(frequency, nodes, table.imag, right=0.0)
    axis = math.radians(shear_axis_degrees)
    sheared = np.sin(np.pi * shear_um * (fx * math.cos(axis) + fy * math.sin(axis)))
    floor = np.maximum(_NOISE_UM2 * frequency**2, 1e-9)
    cotangent = sheared * np.sqrt(1 - sheared**2) / (sheared**2 + floor**2)
    return (real + 1j * imaginary * math.tan(math.radians(bias_degrees) / 2) * cotangent).astype(np.complex64)
