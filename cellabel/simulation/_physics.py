"""The frozen numbers of the simulator: two families, and the hash that is printed with every result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType

from cellabel.errors import InputError

__all__ = [
    "FAMILIES",
    "PRESETS",
    "STAINS",
    "VARIANCE_COMPONENTS",
    "Physics",
    "Preset",
    "family_of",
    "parameters_hash",
]

Range = tuple[float, float]

STAINS = ("nuclei", "er", "golgi", "gfp")


@dataclass(frozen=True)
class Preset:
    """An objective on a 6.5 µm camera."""

    numerical_aperture: float
    pixel_size_um: float


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {"10x": Preset(0.45, 0.65), "20x": Preset(0.75, 0.325), "40x": Preset(0.95, 0.1625)}
)


@dataclass(frozen=True)
class VarianceComponent:
    """Standard deviations of one nuisance at its four levels (natural logarithms where `log`)."""

    instrument: float
    plate: float
    well: float
    site: float
    log: bool = False


VARIANCE_COMPONENTS: Mapping[str, VarianceComponent] = MappingProxyType(
    {
        "focus_um": VarianceComponent(0.1, 0.2, 0.2, 0.5),
        "lamp": VarianceComponent(0.05, 0.03, 0.01, 0.01, log=True),
        "bias_deg": VarianceComponent(0.0, 2.0, 3.0, 1.0),
        "medium_index": VarianceComponent(0.0, 0.0004, 0.0003, 0.0001),
        "density": VarianceComponent(0.0, 0.15, 0.20, 0.15, log=True),
        "background": VarianceComponent(0.10, 0.15, 0.10, 0.05, log=True),
        "stain_yield": VarianceComponent(0.05, 0.15, 0.07, 0.02, log=True),
    }
)


@dataclass(frozen=True)
class Physics:
    """Optics, cells, stains and camera of one family; pairs are the ends of uniform distributions.

    Refractive indices are differences from the medium's 1.337; lengths in µm, areas in µm², signals in e⁻.
    """

    rendering: int = 1
    """Counted up with every change of a number or formula outside of this class that moves an image."""

    # the plate: focus plane, µm across it, and what its outermost wells suffer (µm of focus, index, density)
    focus_plane_um: Range = (0.0, 1.5)
    edge_focus_um: Range = (1.0, 2.0)
    edge_index: Range = (0.001, 0.003)
    edge_density: Range = (-0.2, 0.2)
    edge_large_wells: float = 0.25
    meniscus_deg: float = 5.0
    # transmitted light
    dic_wavelength_um: float = 0.546
    medium_index: float = 1.337
    condenser_ratio: Range = (0.5, 0.7)
    shear_um: Range = (0.20, 0.30)
    bias_deg: Range = (60.0, 90.0)
    extinction: Range = (0.01, 0.03)
    spherical_waves: Range = (0.0, 0.08)
    coma_waves: Range = (0.0, 0.08)
    lamp_full_well: float = 0.30
    # cells
    area_um2: float = 350.0
    area_cv: float = 0.35
    height_um: Range = (4.0, 8.0)
    rounded: Range = (0.05, 0.10)
    dead: Range = (0.01, 0.06)
    doublets: Range = (0.05, 0.20)
    cytoplasm_index: Range = (0.025, 0.040)
    nucleus_index: Range = (0.015, 0.030)
    nucleolus_index: Range = (0.040, 0.050)
    vesicle_index: Range = (0.06, 0.12)
    vesicles_per_cell: float = 9.0
    er_texture_index: Range = (0.003, 0.008)
    er_texture_length_um: float = 0.7
    golgi_index: Range = (0.005, 0.008)
    golgi_extent_um: Range = (3.5, 5.0)
    golgi_thickness_um: float = 2.5
    golgi_angle_sd: float = 0.20
    golgi_diffuse: float = 0.40
    lookalikes_per_cell: float = 0.4
    nucleus_offset: float = 0.24
    # what the stains show
    er_texture_contrast: float = 0.35
    er_visible_r2: float = 0.45
    gfp_clone_sd: float = 0.6
    gfp_well_sd: float = 0.1
    gfp_cell_sd: float = 0.5
    gfp_visible: float = 0.42
    gfp_negative: Range = (0.05, 0.60)
    productivity_noise: Range = (0.30, 0.15)
    # fluorescence
    emission_um: Mapping[str, float] = field(
        default_factory=lambda: {"nuclei": 0.46, "er": 0.60, "golgi": 0.65, "gfp": 0.51}
    )
    peak_electrons: Mapping[str, float] = field(
        default_factory=lambda: {"nuclei": 2800.0, "er": 1200.0, "golgi": 250.0, "gfp": 350.0}
    )
    background_electrons: Range = (60.0, 160.0)
    autofluorescence_electrons: float = 12.0
    crosstalk: Range = (0.0, 0.03)
    registration_px: float = 1.0
    chromatic_um: Range = (0.0, 0.6)
    bleaching: Range = (0.02, 0.05)
    # illumination and camera
    vignetting: Range = (0.05, 0.20)
    illumination_tilt: Range = (0.0, 0.10)
    read_noise_electrons: Range = (1.4, 2.5)
    response_nonuniformity: Range = (0.005, 0.010)
    hot_pixels: float = 1e-4
    offset_counts: float = 100.0
    electrons_per_count: float = 0.46
    full_well_electrons: float = 30_000.0
    # fixation: area and index of fixed cells relative to living ones, which move and round up
    fixed_area: Range = (0.85, 0.95)
    fixed_index: Range = (1.1, 1.3)
    living_motion_um_min: float = 0.2
    living_rounded: float = 0.05


_A = Physics()
_B = replace(
    _A,
    condenser_ratio=(0.35, 0.45),
    shear_um=(0.15, 0.19),
    bias_deg=(95.0, 110.0),
    extinction=(0.03, 0.05),
    lamp_full_well=0.38,
    area_um2=380.0,
    er_texture_length_um=0.95,
    er_visible_r2=0.35,
    vesicles_per_cell=14.0,
    golgi_extent_um=(2.5, 4.0),
    peak_electrons={"nuclei": 1900.0, "er": 650.0, "golgi": 160.0, "gfp": 250.0},
    background_electrons=(150.0, 300.0),
    crosstalk=(0.02, 0.05),
    registration_px=2.0,
    vignetting=(0.15, 0.20),
    read_noise_electrons=(2.2, 2.5),
)

FAMILIES: Mapping[str, Physics] = MappingProxyType({"a": _A, "b": _B})


def family_of(name: str) -> Physics:
    """The configuration family called `name`.

    Raises:
        InputError: no family has this name.
    """
    if name not in FAMILIES:
        raise InputError(f"No simulator family is called {name!r}; choose one of {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def parameters_hash(family: str = "a") -> str:
    """Twelve hexadecimal digits that change with any number of the family, to be printed with every result.

    Raises:
        InputError: no family has this name.
    """
    content = {
        "physics": asdict(family_of(family)),
        "presets": {name: asdict(preset) for name, preset in PRESETS.items()},
        "variance": {name: asdict(component) for name, component in VARIANCE_COMPONENTS.items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
