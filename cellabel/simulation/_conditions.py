"""What each field was imaged under: nuisances of instrument, plate, well and site, then drifts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cellabel.simulation._drifts import Drift, drift_weights
from cellabel.simulation._keywords import Culture, Microscope
from cellabel.simulation._physics import STAINS, VARIANCE_COMPONENTS, Physics, Range, family_of
from cellabel.simulation._plan import plate_format, well_position
from cellabel.simulation._randomness import stream

__all__ = ["Instrument", "draw_conditions", "draw_instrument"]


@dataclass(frozen=True)
class Instrument:
    """Constants of one microscope, the same for all of its plates."""

    name: str
    condenser_ratio: float
    shear_um: float
    azimuth_deg: float
    bias_deg: float
    extinction: float
    spherical_waves: float
    coma_waves: float
    lamp: float
    read_noise_electrons: float
    response_nonuniformity: float
    crosstalk: float
    chromatic_um: tuple[float, ...]
    registration_px: tuple[tuple[float, float], ...]
    vignetting: tuple[float, float]
    tilt: tuple[tuple[float, float], tuple[float, float]]


def draw_instrument(microscope: Microscope, physics: Physics) -> Instrument:
    """The constants of the microscope's instrument: the given ones, the others drawn from its name."""
    rng = stream("instrument", microscope.instrument, microscope.family)

    def draw(ends: Range, given: float | None = None) -> float:
        value = float(rng.uniform(*ends))  # drawn in any case: a given value leaves the other constants alone
        return value if given is None else float(given)

    constants = {
        "condenser_ratio": draw(physics.condenser_ratio, microscope.condenser_ratio),
        "shear_um": draw(physics.shear_um, microscope.shear_um),
        "azimuth_deg": draw((44.0, 46.0), microscope.azimuth_deg),
        "bias_deg": draw(physics.bias_deg, microscope.bias_deg),
        "extinction": draw(physics.extinction, microscope.extinction),
        "spherical_waves": draw(physics.spherical_waves),
        "coma_waves": draw(physics.coma_waves),
        "lamp": physics.lamp_full_well if microscope.lamp is None else microscope.lamp,
        "read_noise_electrons": draw(physics.read_noise_electrons),
        "response_nonuniformity": draw(physics.response_nonuniformity),
        "crosstalk": draw(physics.crosstalk),
    }
    chromatic = tuple(draw(physics.chromatic_um) for _ in STAINS)
    reach = physics.registration_px
    registration = tuple((float(y), float(x)) for y, x in rng.uniform(-reach, reach, (len(STAINS), 2)))
    vignetting = (draw(physics.vignetting), draw(physics.vignetting))
    tilts = rng.uniform(*physics.illumination_tilt, (2, 1)) * rng.choice([-1.0, 1.0], (2, 2)) / 2
    return Instrument(
        name=microscope.instrument,
        **constants,
        chromatic_um=chromatic,
        registration_px=registration,
        vignetting=vignetting,
        tilt=((float(tilts[0, 0]), float(tilts[0, 1])), (float(tilts[1, 0]), float(tilts[1, 1]))),
    )


def _levels(name: str, stain: str, microscope: Microscope, seed: int, well: str, site: int) -> float:
    """Sum of one nuisance's draws at its four levels."""
    component = VARIANCE_COMPONENTS[name]
    scope = (microscope.family, microscope.instrument)
    return float(
        component.instrument * stream("nuisance", name, stain, *scope).standard_normal()
        + component.plate * stream("nuisance", name, stain, "plate", seed).standard_normal()
        + component.well * stream("nuisance", name, stain, "well", seed, well).standard_normal()
        + component.site * stream("nuisance", name, stain, "site", seed, well, site).standard_normal()
    )


@dataclass(frozen=True)
class _Layout:
    """What position does to a well: the plane of focus, the border and the meniscus, drawn once a plate."""

    rows: int
    columns: int
    slope_um: tuple[float, float]
    edge_density: float
    edge_index: float
    edge_focus_um: float

    @classmethod
    def draw(cls, wells: Sequence[str], seed: int, physics: Physics) -> _Layout:
        rows, columns = plate_format(wells)
        rng = stream("plane", seed)
        slope, direction = float(rng.uniform(*physics.focus_plane_um)), float(rng.uniform(0.0, 2 * np.pi))
        rng = stream("edge", seed)
        # large wells are imaged far from their wall
        scale = 1.0 if rows * columns >= 96 else physics.edge_large_wells
        return cls(
            rows,
            columns,
            slope_um=(slope * float(np.cos(direction)), slope * float(np.sin(direction))),
            edge_density=scale * float(rng.uniform(*physics.edge_density)),
            edge_index=scale * float(rng.uniform(*physics.edge_index)),
            edge_focus_um=scale * float(rng.uniform(*physics.edge_focus_um) * rng.choice([-1.0, 1.0])),
        )

    def well(self, name: str, seed: int, physics: Physics) -> dict[str, Any]:
        """Offsets of one well: focus_um, medium_index, bias_deg, and the factor on its density."""
        row, column = well_position(name)
        x, y = column / max(self.columns - 1, 1) - 0.5, row / max(self.rows - 1, 1) - 0.5
        border = row in (0, self.rows - 1) or column in (0, self.columns - 1)
        return {
            "edge": border,
            "position_x": x,
            "focus_um": x * self.slope_um[0] + y * self.slope_um[1] + border * self.edge_focus_um,
            "medium_index": border * self.edge_index,
            "bias_deg": physics.meniscus_deg * float(stream("meniscus", seed, name).uniform(-1.0, 1.0)),
            "density": 1 + border * self.edge_density,
        }


def draw_conditions(
    plan: pd.DataFrame,
    sites: int,
    microscope: Microscope,
    culture: Culture,
    drifts: Sequence[Drift],
    seed: int,
) -> pd.DataFrame:
    """One row a field: where it lies in its plate and everything that varies between fields.

    Returns:
        Metadata_Well, Metadata_Site, edge, drift (share 0–1 of the drift's size), focus_um, lamp (factor),
        bias_deg (offset), medium_index (offset), density, background and yield_<stain> (factors), dust
        (spots), vibration_um, condenser (factor), decentre, camera_deg, mirror, new_clone, passages, dead,
        motion_um_min, unfixed.
    """
    physics = family_of(microscope.family)
    wells = list(plan["Metadata_Well"])
    layout = _Layout.draw(wells, seed, physics)
    bleaching = float(stream("bleaching", seed).uniform(*physics.bleaching))
    rows = []
    for well in wells:
        place = layout.well(well, seed, physics)
        for site in range(1, sites + 1):
            row = {"Metadata_Well": well, "Metadata_Site": site, **place}
            for name in ("focus_um", "bias_deg", "medium_index"):
                row[name] += _levels(name, "", microscope, seed, well, site)
            for name in ("lamp", "density", "background"):
                row[name] = row.get(name, 1.0) * math.exp(_levels(name, "", microscope, seed, well, site))
            row["density"] *= culture.density
            for stain in STAINS:
                log_yield = _levels("stain_yield", stain, microscope, seed, well, site)
                bleached = (1 - bleaching) ** (site - 1)
                row[f"yield_{stain}"] = culture.stain_yield * math.exp(log_yield) * bleached
            rows.append(row)
    conditions = pd.DataFrame(rows).assign(
        drift=0.0, dust=0.0, vibration_um=0.0, condenser=1.0, decentre=0.0, camera_deg=0.0, mirror=False,
        new_clone=0.0, passages=0.0, dead=0.0, unfixed=not culture.fixed,
        motion_um_min=0.0 if culture.fixed else physics.living_motion_um_min,
    )  # fmt: skip
    for drift in drifts:
        weight = conditions["Metadata_Well"].map(drift_weights(drift, wells)).to_numpy(float)
        _apply(conditions, drift, weight, physics)
    return conditions


def _apply(conditions: pd.DataFrame, drift: Drift, weight: np.ndarray, physics: Physics) -> None:
    """Change the drifted columns in place; `weight` is the share of the size in each field."""
    conditions["drift"] = np.maximum(conditions["drift"], weight)
    size = drift.size * weight
    added = {"defocus": "focus_um", "bias": "bias_deg", "dust": "dust", "vibration": "vibration_um"}
    added |= {"decentre": "decentre", "new_clone": "new_clone", "passage": "passages", "mass_death": "dead"}
    if drift.kind in added:
        conditions[added[drift.kind]] += size
    elif drift.kind in ("lamp", "density"):
        conditions[drift.kind] *= 1 + size
    elif drift.kind == "tilt":
        conditions["focus_um"] += size * conditions["position_x"]
    elif drift.kind == "medium":
        conditions["medium_index"] += (drift.size - physics.medium_index) * weight
    elif drift.kind == "condenser":
        conditions["condenser"] *= drift.size**weight
    elif drift.kind == "camera":
        conditions.loc[weight > 0, "camera_deg"] += drift.size
    elif drift.kind == "mirror":
        conditions.loc[weight > 0, "mirror"] = True
    else:
        conditions["motion_um_min"] += size
        conditions.loc[weight > 0, "unfixed"] = True
