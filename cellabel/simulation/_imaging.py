"""From maps to exposures: what the microscope makes of a scene under one field's conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, special

from cellabel.simulation._camera import Camera, camera_counts, illumination, make_camera
from cellabel.simulation._conditions import Instrument
from cellabel.simulation._keywords import Microscope
from cellabel.simulation._optics import condenser_points, dic_image, fluorescence_transfer, transfer_on_grid
from cellabel.simulation._physics import STAINS, Physics
from cellabel.simulation._randomness import stream
from cellabel.simulation._scene import Scene

__all__ = ["Grid", "Station", "expose_field", "make_station", "oriented"]

Image = NDArray[np.float32]
Conditions = Mapping[str, Any]

MARGIN_PX = 64
_SLABS_UM = ((0.0, 2.0), (2.0, 4.0), (4.0, 100.0))
_SLAB_FOCUS_UM = (-1.5, 0.5, 2.5)
"""Height of each slab's middle above the nominal focus, 2.5 µm above the glass."""


@dataclass(frozen=True)
class Grid:
    """The fine grid of a field: half the camera's pixel, with a margin of at least `MARGIN_PX` around."""

    size: int
    pixel_um: float

    @property
    def n(self) -> int:
        """Side of the grid, a fast length for transforms, even so that the field lies in its middle."""
        n = 2 * self.size + 2 * MARGIN_PX
        while n % 2 or fft.next_fast_len(n, real=True) != n:
            n += 1
        return n

    @property
    def fine_um(self) -> float:
        """Pixel of the fine grid, µm."""
        return self.pixel_um / 2

    @property
    def start(self) -> int:
        """First fine row and column of the field."""
        return (self.n - 2 * self.size) // 2

    def crop(self, image: NDArray) -> NDArray:
        """The field's part of a fine map."""
        return image[self.start : self.start + 2 * self.size, self.start : self.start + 2 * self.size]

    def binned(self, image: Image) -> Image:
        """Mean over 2 × 2 fine pixels of the field."""
        return self.crop(image).reshape(self.size, 2, self.size, 2).mean((1, 3))


@dataclass(frozen=True)
class Station:
    """The instrument set up for one plate: everything that its fields share."""

    grid: Grid
    microscope: Microscope
    physics: Physics
    instrument: Instrument
    camera: Camera
    flat_transmitted: Image
    flat_stains: Image
    background_electrons: float
    background_slope: tuple[float, float]
    dust_seed: int


def make_station(
    microscope: Microscope, physics: Physics, instrument: Instrument, size: int, seed: int
) -> Station:
    """Set up the instrument: the sensor and the flat fields are its own, the background is the plate's."""
    camera = make_camera(
        stream("camera", instrument.name, microscope.family, size),
        size,
        nonuniformity=instrument.response_nonuniformity,
        hot_pixels=physics.hot_pixels,
        read_noise_electrons=instrument.read_noise_electrons,
        offset_counts=physics.offset_counts,
        electrons_per_count=physics.electrons_per_count,
        full_well_electrons=physics.full_well_electrons,
    )
    rng = stream("background", seed)
    background = float(rng.uniform(*physics.background_electrons))
    slope = rng.uniform(-0.2, 0.2, 2)
    return Station(
        grid=Grid(size, microscope.pixel_um),
        microscope=microscope,
        physics=physics,
        instrument=instrument,
        camera=camera,
        flat_transmitted=illumination(size, instrument.vignetting[0], instrument.tilt[0]),
        flat_stains=illumination(size, instrument.vignetting[1], instrument.tilt[1]),
        background_electrons=background
        if microscope.background_electrons is None
        else microscope.background_electrons,
        background_slope=(float(slope[0]), float(slope[1])),
        dust_seed=seed,
    )


def expose_field(
    station: Station, scene: Scene, conditions: Conditions, stains: Sequence[str], rng: np.random.Generator
) -> list[NDArray[np.uint16]]:
    """All channels of one field, transmitted light first.

    Args:
        station: the instrument, set up for the plate.
        scene: the field's maps.
        conditions: the field's row of `draw_conditions` with its well's row of the plan.
        stains: channels after the first.
        rng: of the camera's noise.
    """
    electrons = [_transmitted(station, scene, conditions), *_stains(station, scene, conditions, stains)]
    return [
        camera_counts(np.ascontiguousarray(oriented(image, conditions)), station.camera, rng)
        for image in electrons
    ]


def oriented(image: NDArray, conditions: Conditions) -> NDArray:
    """The image as a turned or mirrored camera sees it."""
    turned = np.rot90(image, int(conditions["camera_deg"] // 90))
    return turned[:, ::-1] if conditions["mirror"] else turned


def _transmitted(station: Station, scene: Scene, conditions: Conditions) -> Image:
    """Expected electrons of the DIC image; `lamp` is the level of an empty field at the nominal bias."""
    instrument, physics, aperture = station.instrument, station.physics, station.microscope.aperture
    path = scene.path_um - np.float32(conditions["medium_index"]) * scene.thickness_um
    phase = (2 * np.pi / physics.dic_wavelength_um) * _tapered(path)
    condenser = min(instrument.condenser_ratio * conditions["condenser"], 1.0) * aperture
    points = station.microscope.condenser_points or (9 if abs(conditions["focus_um"]) < 2.0 else 21)
    intensity = dic_image(
        phase.astype(np.float32),
        pixel_size_um=station.grid.fine_um,
        shear_um=instrument.shear_um,
        azimuth_deg=instrument.azimuth_deg,
        bias_deg=instrument.bias_deg + conditions["bias_deg"],
        wavelength_um=physics.dic_wavelength_um,
        numerical_aperture=aperture,
        source=condenser_points(
            points, condenser, physics.dic_wavelength_um, conditions["decentre"] * aperture
        ),
        defocus_um=conditions["focus_um"],
        extinction=instrument.extinction,
        spherical_waves=instrument.spherical_waves,
        coma_waves=instrument.coma_waves,
    )
    if conditions["vibration_um"] > 0:
        intensity = _shaken(fft.rfft2(intensity), conditions, station)
    empty = np.sin(np.radians(instrument.bias_deg) / 2) ** 2 + instrument.extinction
    level = instrument.lamp * physics.full_well_electrons * conditions["lamp"] / empty
    image = station.grid.binned(intensity) * np.float32(level) * station.flat_transmitted
    return image * _dust(station, round(conditions["dust"]))


def _tapered(path: Image) -> Image:
    """Bring the path to 0 at the grid's border, where the transforms wrap around."""
    n, width = len(path), MARGIN_PX // 4
    edge = np.ones(n, np.float32)
    edge[:width] = np.sin(np.linspace(0, np.pi / 2, width)) ** 2
    edge[-width:] = edge[:width][::-1]
    return path * edge[:, None] * edge[None, :]


def _dust(station: Station, spots: int) -> Image:
    """Transmission of dust near an image of the field: soft spots of 3–12 pixels with a bright rim."""
    size = station.grid.size
    passed = np.ones((size, size), np.float32)
    y, x = np.ogrid[:size, :size]
    for spot in range(spots):
        rng = stream("dust", station.dust_seed, spot)
        row, column = rng.uniform(0, size, 2)
        radius, depth = rng.uniform(3.0, 12.0), rng.uniform(0.15, 0.5)
        away = np.hypot(y - row, x - column) / radius
        passed *= (1 - depth / (1 + away**8) + 0.25 * depth * np.exp(-(((away - 1.35) / 0.25) ** 2))).astype(
            np.float32
        )
    return passed


def _shaken(spectrum: NDArray, conditions: Conditions, station: Station) -> Image:
    """Sinusoidal motion along x during the exposure, of the given amplitude: transfer J₀(2πf·amplitude)."""
    n, fine_um = station.grid.n, station.grid.fine_um
    transfer = special.j0(2 * np.pi * fft.rfftfreq(n, fine_um) * conditions["vibration_um"]).astype(
        np.float32
    )
    return fft.irfft2(spectrum * transfer[None, :], (n, n))


def _stains(station: Station, scene: Scene, conditions: Conditions, stains: Sequence[str]) -> list[Image]:
    """Expected electrons of each stain: three slabs through the objective, and what adds to them."""
    signals = {stain: _blurred_stain(station, scene, conditions, stain) for stain in stains}
    haze = station.grid.binned(ndimage.uniform_filter(scene.thickness_um, 5)) / 6
    size = station.grid.size
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    slope_y, slope_x = station.background_slope
    background = station.background_electrons * conditions["background"] * (
        1 + slope_y * axis[:, None] + slope_x * axis[None, :]
    )  # fmt: skip
    by_colour = sorted(stains, key=lambda stain: station.physics.emission_um[stain])
    images = []
    for stain in stains:
        place = by_colour.index(stain)
        leak = station.instrument.crosstalk * signals[by_colour[place - 1]] if place else 0.0
        light = signals[stain] + leak + station.physics.autofluorescence_electrons * haze
        images.append((light * station.flat_stains + background).astype(np.float32))
    return images


def _blurred_stain(station: Station, scene: Scene, conditions: Conditions, stain: str) -> Image:
    physics, aperture, grid = station.physics, station.microscope.aperture, station.grid
    emission, index = physics.emission_um[stain], STAINS.index(stain)
    light = scene.stains[stain]
    shape, limit = light.shape, 2 * aperture / emission
    spectrum = np.zeros((grid.n, grid.n // 2 + 1), np.complex64)
    for share, height in zip(_slab_shares(scene, stain), _SLAB_FOCUS_UM, strict=True):
        defocus = conditions["focus_um"] + station.instrument.chromatic_um[index] - height
        table = fluorescence_transfer(aperture, emission, round(defocus, 1))
        spectrum += fft.rfft2(light * share) * transfer_on_grid(table, shape, grid.fine_um, limit)
    dy, dx = station.instrument.registration_px[index]
    ramps = [
        np.exp(-2j * np.pi * f * d * 2).astype(np.complex64)
        for f, d in ((fft.fftfreq(grid.n), dy), (fft.rfftfreq(grid.n), dx))
    ]
    spectrum *= ramps[0][:, None] * ramps[1][None, :]
    image = (
        _shaken(spectrum, conditions, station)
        if conditions["vibration_um"] > 0
        else fft.irfft2(spectrum, shape)
    )
    scale = physics.peak_electrons[stain] * conditions[f"yield_{stain}"]
    return np.maximum(grid.binned(image), 0) * np.float32(scale)


def _slab_shares(scene: Scene, stain: str) -> list[Image]:
    """Share of a stain's light that comes from each slab, pixel by pixel."""
    if stain == "golgi":
        return [np.float32(share) * np.ones((1, 1), np.float32) for share in (0.2, 0.5, 0.3)]
    bottom, height = (0.7, scene.nucleus_um) if stain == "nuclei" else (0.0, scene.thickness_um)
    per_um = 1 / np.maximum(height, np.float32(0.1))
    top = height + np.float32(bottom)
    return [
        np.maximum(np.minimum(top, np.float32(upper)) - np.float32(max(lower, bottom)), 0) * per_um
        for lower, upper in _SLABS_UM
    ]
