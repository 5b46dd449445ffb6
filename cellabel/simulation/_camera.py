"""The camera: photons to counts, with the faults of its sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Camera", "camera_counts", "illumination"]

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """A scientific CMOS camera; `response` and `dark` are (H, W) maps that belong to the sensor."""

    response: Image
    dark: Image
    read_noise_electrons: float = 1.6
    offset_counts: float = 100.0
    electrons_per_count: float = 0.46
    full_well_electrons: float = 30_000.0


def make_camera(
    rng: np.random.Generator, size: int, *, nonuniformity: float, hot_pixels: float, **constants: float
) -> Camera:
    """A sensor of (size, size) pixels: response 1 ± nonuniformity, some hot pixels of 50–500 electrons."""
    response = 1 + nonuniformity * rng.standard_normal((size, size), np.float32)
    dark = np.full((size, size), 0.5, np.float32)
    n_hot = int(rng.binomial(size * size, hot_pixels))
    dark.reshape(-1)[rng.integers(0, size * size, n_hot)] = rng.uniform(50, 500, n_hot)
    return Camera(response, dark, **constants)


def camera_counts(electrons: Image, camera: Camera, rng: np.random.Generator) -> NDArray[np.uint16]:
    """One exposure: Poisson(response · signal + dark) + N(0, read noise), clipped to full well and 16 bit.

    Args:
        electrons: (H, W) expected signal.
        camera: the sensor.
        rng: of the noise.

    Returns:
        (H, W) uint16.
    """
    expected = np.maximum(electrons, 0) * camera.response + camera.dark
    collected = np.minimum(rng.poisson(expected).astype(np.float32), camera.full_well_electrons)
    collected += camera.read_noise_electrons * rng.standard_normal(electrons.shape, np.float32)
    counts = np.rint(collected / camera.electrons_per_count + camera.offset_counts)
    return np.clip(counts, 0, 65535).astype(np.uint16)


def illumination(size: int, vignetting: float, tilt: tuple[float, float]) -> Image:
    """Flat field of mean about 1: falls quadratically by `vignetting` to the corners, and tilts by `tilt`."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    y, x = axis[:, None], axis[None, :]
    return (1 + vignetting / 3 - vignetting * (y**2 + x**2) / 2 + tilt[0] * y / 2 + tilt[1] * x / 2).astype(
        np.float32
    )
