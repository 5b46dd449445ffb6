"""Wave optics: the pupil, interference contrast under a condenser, and the transfer of fluorescence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["condenser_points", "dic_image", "fluorescence_transfer", "pupil", "transfer_on_grid"]

Image = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
SourcePoint = tuple[float, float, float]
"""Spatial frequencies fy, fx (1/µm) of one point of the condenser aperture, and its weight."""

_RINGS = {1: (1,), 9: (1, 8), 21: (1, 8, 12)}


def condenser_points(n: int, aperture: float, wavelength_um: float, offset: float = 0.0) -> list[SourcePoint]:
    """Points of equal weight that cover a disk of numerical aperture `aperture`, shifted along x by `offset`.

    Args:
        n: 1, 9 or 21; each ring of points takes the share of the disk's area that its number asks for.
        aperture: numerical aperture of the condenser.
        wavelength_um: of the illumination.
        offset: of the disk from the axis, in the unit of `aperture`.
    """
    points: list[SourcePoint] = []
    placed = 0
    for ring, count in enumerate(_RINGS[n]):
        inner, outer = placed / n, (placed + count) / n
        radius = 0.0 if placed == 0 else aperture * math.sqrt((inner + outer) / 2)
        for k in range(count):
            angle = 2 * math.pi * (k + 0.5 * (ring % 2)) / count
            points.append(
                (
                    radius * math.sin(angle) / wavelength_um,
                    (radius * math.cos(angle) + offset) / wavelength_um,
                    1 / n,
                )
            )
        placed += count
    return points


def pupil(
    fy: NDArray,
    fx: NDArray,
    *,
    numerical_aperture: float,
    wavelength_um: float,
    defocus_um: float = 0.0,
    spherical_waves: float = 0.0,
    coma_waves: float = 0.0,
) -> Spectrum:
    """P(f)·exp(iΨ(f)): 1 for |f| ≤ NA/λ, with Ψ = (2πz/λ)(√(1 − λ²f²) − 1) plus Zernike spherical and coma.

    Args:
        fy: spatial frequencies along y in 1/µm, which broadcast to the pupil's shape.
        fx: spatial frequencies along x.
        numerical_aperture: NA.
        wavelength_um: λ.
        defocus_um: z; its two signs differ once the object has phase.
        spherical_waves: primary spherical aberration in waves.
        coma_waves: coma along x in waves.
    """
    squared = (fy**2 + fx**2) * wavelength_um**2
    rho2 = squared / numerical_aperture**2
    psi = (2 * np.pi * defocus_um / wavelength_um) * (np.sqrt(np.maximum(1 - squared, 0)) - 1)
    if spherical_waves:
        psi = psi + 2 * np.pi * spherical_waves * (6 * rho2**2 - 6 * rho2 + 1)
    if coma_waves:
        psi = psi + 2 * np.pi * coma_waves * (3 * rho2 - 2) * (fx * wavelength_um / numerical_aperture)
    return np.where(rho2 <= 1, np.exp(1j * psi), 0).astype(np.complex64)


def dic_image(
    phase: Image,
    *,
    pixel_size_um: float,
    shear_um: float,
    bias_deg: float,
    azimuth_deg: float = 45.0,
    wavelength_um: float = 0.546,
    numerical_aperture: float | None = None,
    source: Sequence[SourcePoint] = ((0.0, 0.0, 1.0),),
    defocus_um: float = 0.0,
    extinction: float = 0.0,
    absorption: Image | None = None,
    spherical_waves: float = 0.0,
    coma_waves: float = 0.0,
) -> Image:
    """Differential interference contrast of a thin object, 1 where the two beams add up fully.

    I = Σ w_s |F⁻¹{P(f)·exp(iΨ(f))·i·sin(πΔ(f − s)·û + Γ/2)·F[T·exp(2πi s·r)]}|² + ε with T = exp(−μ + iφ).

    Args:
        phase: (H, W) φ in radians, periodic at its borders.
        pixel_size_um: of the grid, not of the camera.
        shear_um: Δ along û.
        bias_deg: Γ.
        azimuth_deg: of û, from x towards y.
        wavelength_um: λ.
        numerical_aperture: None lets every frequency through (P ≡ 1, Ψ ≡ 0).
        source: points of the condenser; rounded to the frequency grid of the image.
        defocus_um: z.
        extinction: ε, light that the crossed polarisers let through.
        absorption: (H, W) μ.
        spherical_waves: of the pupil.
        coma_waves: of the pupil.

    Returns:
        (H, W) float32.

    Source: Preza, Snyder & Conchello 1999 (J Opt Soc Am A 16:2185).
    """
    height, width = phase.shape
    fy = fft.fftfreq(height, pixel_size_um).astype(np.float32)[:, None]
    fx = fft.fftfreq(width, pixel_size_um).astype(np.float32)[None, :]
    azimuth = math.radians(azimuth_deg)
    along = fx * math.cos(azimuth) + fy * math.sin(azimuth)
    wave = np.exp(1j * phase.astype(np.complex64))
    if absorption is not None:
        wave *= np.exp(-absorption)
    # sheared once: with g = f − s the prism acts on g alone, and the shift by s drops out of |·|²
    sheared = fft.fft2(wave, overwrite_x=True) * (
        1j * np.sin(np.pi * shear_um * along + math.radians(bias_deg) / 2)
    )
    rows, columns = _band(height, width, pixel_size_um, numerical_aperture, wavelength_um)
    passed: Spectrum | None = None
    if numerical_aperture is not None:
        passed = pupil(
            rows[:, None] / np.float32(height * pixel_size_um),
            columns[None, :] / np.float32(width * pixel_size_um),
            numerical_aperture=numerical_aperture,
            wavelength_um=wavelength_um,
            defocus_um=defocus_um,
            spherical_waves=spherical_waves,
            coma_waves=coma_waves,
        )
    intensity = np.full((height, width), extinction, np.float32)
    for sy, sx, weight in source:
        shift_y, shift_x = round(sy * height * pixel_size_um), round(sx * width * pixel_size_um)
        block = sheared[np.ix_((rows - shift_y) % height, (columns - shift_x) % width)]
        if passed is not None:
            block *= passed
        field = _inverse(block, rows % height, columns % width, (height, width))
        intensity += np.float32(weight) * (field.real**2 + field.imag**2)
    return intensity


def _band(
    height: int, width: int, pixel_size_um: float, numerical_aperture: float | None, wavelength_um: float
) -> tuple[NDArray, NDArray]:
    """Indices of the frequencies that the pupil passes, along both axes: the rest is never transformed."""
    bands = []
    for n in (height, width):
        reach = (
            n if numerical_aperture is None else int(numerical_aperture / wavelength_um * n * pixel_size_um)
        )
        lower, upper = max(-reach, -(n // 2)), min(reach, (n - 1) // 2)
        bands.append(np.arange(lower, upper + 1))
    return bands[0], bands[1]


def _inverse(block: Spectrum, rows: NDArray, columns: NDArray, shape: tuple[int, int]) -> Spectrum:
    """Inverse transform of a spectrum that is zero outside of `block`."""
    wide = np.zeros((len(rows), shape[1]), np.complex64)
    wide[:, columns] = block
    wide = fft.ifft(wide, axis=1, overwrite_x=True)
    full = np.zeros(shape, np.complex64)
    full[rows] = wide
    return fft.ifft(full, axis=0, overwrite_x=True)


_TABLE = 2048


@lru_cache(maxsize=512)
def fluorescence_transfer(numerical_aperture: float, wavelength_um: float, defocus_um: float) -> Image:
    """Transfer of |F⁻¹{P exp(iΨ(z))}|² against |f|, at `_TABLE` frequencies up to 2NA/λ; 1 at zero."""
    n = 256
    limit = 2 * numerical_aperture / wavelength_um
    pixel_um = 0.45 / limit  # the intensity's band, with room for its interpolation
    frequency = fft.fftfreq(n, pixel_um)
    through = pupil(
        frequency[:, None],
        frequency[None, :],
        numerical_aperture=numerical_aperture,
        wavelength_um=wavelength_um,
        defocus_um=defocus_um,
    )
    spread = np.abs(fft.ifft2(through.astype(np.complex128))) ** 2
    transfer = fft.fft2(spread).real[0, : n // 2]
    table = np.interp(np.linspace(0, limit, _TABLE), frequency[: n // 2], transfer / transfer[0])
    return table.astype(np.float32)


@lru_cache(maxsize=8)
def _radial_index(shape: tuple[int, int], pixel_size_um: float, limit: float) -> NDArray[np.uint16]:
    fy = fft.fftfreq(shape[0], pixel_size_um)[:, None]
    fx = fft.rfftfreq(shape[1], pixel_size_um)[None, :]
    radius = np.hypot(fy, fx) / limit * (_TABLE - 1)
    return np.minimum(np.rint(radius), _TABLE).astype(np.uint16)


def transfer_on_grid(table: Image, shape: tuple[int, int], pixel_size_um: float, limit: float) -> Image:
    """The radial table spread over the half spectrum (`rfft2`) of an image of this shape."""
    return np.append(table, np.float32(0))[_radial_index(shape, pixel_size_um, limit)]
