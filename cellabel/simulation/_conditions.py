"""What each field was imaged under: nuisances of instrument, plate, well and site, then drifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from cellabel.simulation._drifts import Drift, drift_weights
from cellabel.simulation._keywords import Culture, Microscope
from cellabel.simulation._physics import STAINS, VARIANCE_COMPONENTS, Physics, Range, family_of
from cellabel.simulation._plan import plate_format, well_position
from cellabel.simulation._randomness import stream

__all__ = ["Instrument", "draw_conditions", "draw_instrument"]

CENTRED = tuple(VARIANCE_COMPONENTS)
"""Nuisances that a condition holds as an offset (or a logarithm) about the nominal value."""


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
class _Edge:
    """What the wells at the plate's border suffer, drawn once a plate; less where wells are large."""

    density: float
    medium_index: float
    focus_um: float

    @classmethod
    def draw(cls, seed: int, n_wells_of_format: int, physics: Physics) -> _Edge:
        rng = stream("edge", seed)
        scale = 1.0 if n_wells_of_format >= 96 else physics.edge_large_wells
        return cls(
            density=scale * float(rng.uniform(*physics.edge_density)),
            medium_index=scale * float(rng.uniform(*physics.edge_index)),
            focus_um=scale * float(rng.uniform(*physics.edge_focus_um) * rng.choice([-1.0, 1.0])),
        )


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
    rows_of_plate, columns_of_plate = plate_format(wells)
    edge = _Edge.draw(seed, rows_of_plate * columns_of_plate, physics)
    plane_rng = stream("plane", seed)
    slope_um, direction = (
        float(plane_rng.uniform(*physics.focus_plane_um)),
        float(plane_rng.uniform(0.0, 2 * np.pi)),
    )
    bleaching = float(stream("bleaching", seed).uniform(*physics.bleaching))
    rows = []
    for well in wells:
        row, column = well_position(well)
        at = (column / max(columns_of_plate - 1, 1) - 0.5, row / max(rows_of_plate - 1, 1) - 0.5)
        border = row in (0, rows_of_plate - 1) or column in (0, columns_of_plate - 1)
        meniscus = float(stream("meniscus", seed, well).uniform(-1.0, 1.0))
        for site in range(1, sites + 1):
            drawn = {
                name: _levels(name, "", microscope, seed, well, site)
                for name in CENTRED
                if name != "stain_yield"
            }
            plane = slope_um * (at[0] * np.cos(direction) + at[1] * np.sin(direction))
            rows.append(
                {
                    "Metadata_Well": well,
                    "Metadata_Site": site,
                    "edge": border,
                    "position_x": at[0],
                    "focus_um": drawn["focus_um"] + plane + border * edge.focus_um,
                    "lamp": float(np.exp(drawn["lamp"])),
                    "bias_deg": drawn["bias_deg"] + 5.0 * meniscus,
                    "medium_index": drawn["medium_index"] + border * edge.medium_index,
                    "density": float(np.exp(drawn["density"]) * (1 + border * edge.density))
                    * culture.density,
                    "background": float(np.exp(drawn["background"])),
                    **{
                        f"yield_{stain}": culture.stain_yield
                        * float(np.exp(_levels("stain_yield", stain, microscope, seed, well, site)))
                        * (1 - bleaching) ** (site - 1)
                        for stain in STAINS
                    },
                }
            )
    conditions = pd.DataFrame(rows)
    conditions = conditions.assign(
        drift=0.0, dust=0.0, vibration_um=0.0, condenser=1.0, decentre=0.0, camera_deg=0.0, mirror=False,
        new_clone=0.0, passages=0.0, dead=0.0, motion_um_min=0.0 if culture.fixed else 0.2,
        unfixed=not culture.fixed,
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


def instrument_record(instrument: Instrument) -> dict[str, object]:
    """The instrument as plain data for parameters.json."""
    return asdict(instrument)
