"""Defocus by the optics: the incoherent transfer function of a defocused pupil."""

from __future__ import annotations

import math
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy import fft, optimize, special

from cellabel.corruptions._optics import as_dtype, check_optics, image_to_defocus, pupil_phase, reach_px
from cellabel.errors import InputError
from cellabel.severities import SEVERITIES


@lru_cache(maxsize=64)
def _relative_transfer(
    defocus_um: float, numerical_aperture: float, wavelength_um: float
) -> NDArray[np.float64]:
    """OTF(defocus) / OTF(focus) at 257 frequencies from 0 to the cut-off, 2 NA / λ.

    The OTF is the autocorrelation of the pupil exp(iΨ), Ψ(f) = 2πz/λ (√(1 − λ²f²) − 1); it is real because
    the pupil is even, and the ratio never exceeds 1.
    """
    spread = 2 * np.pi * abs(defocus_um) / wavelength_um * (1 - math.sqrt(1 - numerical_aperture**2))
    nodes = int(min(512, 64 + 8 * spread))  # the phase turns by less than a radian from node to node
    half = nodes // 2  # x and y ≥ 0 suffice by symmetry
    x, y = np.meshgrid((np.arange(half) + 0.5) / half, (np.arange(nodes) + 0.5) / nodes, indexing="ij")
    phase = partial(
        pupil_phase,
        defocus_um=defocus_um,
        numerical_aperture=numerical_aperture,
        wavelength_um=wavelength_um,
    )
    ratio = np.ones(257)
    for index, shift in enumerate(np.linspace(0, 1, 257)[:-1]):
        # The overlap of two unit disks that lie 2·shift apart, mapped to the rectangle that bounds it.
        u, v = x * (1 - shift), y * math.sqrt(1 - shift**2)
        one, other = (u + shift) ** 2 + v**2, (u - shift) ** 2 + v**2
        inside = (one <= 1) & (other <= 1)
        ratio[index] = np.cos(phase(one[inside]) - phase(other[inside])).mean()
    ratio.flags.writeable = False
    return ratio


@lru_cache(maxsize=256)
def equivalent_radius_px(
    defocus_um: float, *, pixel_size_um: float, numerical_aperture: float, wavelength_um: float = 0.546
) -> float:
    """Radius (px) of the disk that blurs most like a defocused pupil.

    The two transfer functions are closest, in least squares up to the pixel's own limit, for images whose
    power falls with the square of the frequency, as that of natural images does.

    Args:
        defocus_um: distance from focus, µm.
        pixel_size_um: of the image in the sample, µm.
        numerical_aperture: of the objective, in air.
        wavelength_um: of the light, µm.

    Raises:
        InputError: optics that cannot be.
    """
    check_optics(pixel_size_um, wavelength_um, numerical_aperture)
    cutoff = 2 * numerical_aperture / wavelength_um
    frequency = np.linspace(0.004, 0.5, 125)  # cycles a pixel
    ratio = _relative_transfer(abs(float(defocus_um)), float(numerical_aperture), float(wavelength_um))
    pupil = np.interp(frequency / pixel_size_um / cutoff, np.linspace(0, 1, ratio.size), ratio)
    radii = np.linspace(0, 12, 481)[1:]
    argument = 2 * np.pi * radii[:, None] * frequency
    disk = 2 * special.j1(argument) / argument
    misfit = ((disk - pupil) ** 2 / frequency).sum(axis=1)
    nothing = ((1 - pupil) ** 2 / frequency).sum()
    return 0.0 if nothing <= misfit.min() else float(radii[int(misfit.argmin())])


def severity_of_radius(radius_px: float) -> float:
    """Where a blur's radius lies among the severities of table 5, going on beyond the last one."""
    table = SEVERITIES["defocus"]
    severities = sorted(table)
    radii = [table[one] for one in severities]
    beyond = max(0.0, radius_px - radii[-1]) / (radii[-1] - radii[-2])
    return float(np.interp(radius_px, radii, severities)) + beyond


@lru_cache(maxsize=64)
def depth_of_severity(
    severity: float, *, pixel_size_um: float, numerical_aperture: float, wavelength_um: float = 0.546
) -> float:
    """Distance from focus (µm) at which a pupil blurs most like the disk of a severity of table 5.

    Args:
        severity: above 0; beyond the table's last one as `severity_of_radius` goes on.
        pixel_size_um: of the image in the sample, µm.
        numerical_aperture: of the objective, in air.
        wavelength_um: of the light, µm.

    Raises:
        InputError: optics that cannot be, or a severity that no defocus up to 12 depths of field reaches.
    """
    check_optics(pixel_size_um, wavelength_um, numerical_aperture)

    def above(depth: float) -> float:
        radius = equivalent_radius_px(
            depth,
            pixel_size_um=pixel_size_um,
            numerical_aperture=numerical_aperture,
            wavelength_um=wavelength_um,
        )
        return severity_of_radius(radius) - severity

    deepest = 12 * wavelength_um / numerical_aperture**2
    if not (severity > 0 and above(deepest) >= 0):
        raise InputError(
            f"No defocus up to {deepest:.0f} µm blurs like severity {severity!r} of table 5 on pixels of "
            f"{pixel_size_um:g} µm; give a severity above 0 and below {above(deepest) + severity:.1f}."
        )
    return float(optimize.brentq(above, 0.0, deepest, xtol=deepest / 500))


def pupil_defocus(
    image: NDArray,
    defocus_um: float,
    *,
    pixel_size_um: float,
    numerical_aperture: float,
    wavelength_um: float = 0.546,
) -> NDArray:
    """The image blurred as an incoherent microscope with a circular pupil blurs it out of focus.

    The image is taken to be in focus, so the transfer function relative to focus is applied and a defocus of
    0 changes nothing; +z and −z are the same here (in true DIC they are not). Borders are reflected.

    Args:
        image: (H, W), integers or floats.
        defocus_um: distance from focus, µm.
        pixel_size_um: of the image in the sample, µm.
        numerical_aperture: of the objective, in air (below 1).
        wavelength_um: of the light, µm.

    Returns:
        A new array of the same shape and dtype; integers are rounded and clipped to their range.

    Raises:
        InputError: an image that is not (H, W) or not finite, or optics that cannot be.

    Source: Goodman, Introduction to Fourier Optics, section 6.4 (aberrated incoherent systems).
    """
    pixels = image_to_defocus(image, defocus_um)
    check_optics(pixel_size_um, wavelength_um, numerical_aperture)
    if defocus_um == 0:
        return image.copy()
    margin = reach_px(defocus_um, pixel_size_um, numerical_aperture)
    padded = np.pad(pixels, margin, mode="symmetric")
    height, width = padded.shape
    frequency = np.hypot(
        fft.fftfreq(height, pixel_size_um)[:, None], fft.rfftfreq(width, pixel_size_um)[None, :]
    )
    ratio = _relative_transfer(float(defocus_um), float(numerical_aperture), float(wavelength_um))
    cutoff = 2 * numerical_aperture / wavelength_um
    # Beyond the cut-off there is no image, only noise that the optics never saw: it passes.
    transfer = np.interp(frequency / cutoff, np.linspace(0, 1, ratio.size), ratio)
    blurred = fft.irfft2(fft.rfft2(padded) * transfer, s=padded.shape)[margin:-margin, margin:-margin]
    return as_dtype(blurred, image.dtype)
