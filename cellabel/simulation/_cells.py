"""The cells of one field: where they lie and what they are, before anything is rendered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.simulation._clones import Clone
from cellabel.simulation._physics import Physics

__all__ = ["FieldBiology", "draw_cells"]


@dataclass(frozen=True)
class FieldBiology:
    """What decides the cells of one field.

    Attributes:
        extent_um: side of the square region that is populated.
        confluence: share of it that cells would cover side by side; 0 is a blank.
        dead, rounded, doublets: shares of cells.
        area_factor, index_factor: of fixation.
        motion_um_min: speed of living cells.
        well_log_gfp: the well's own shift of expression.
    """

    extent_um: float
    confluence: float
    dead: float
    rounded: float
    doublets: float
    area_factor: float
    index_factor: float
    motion_um_min: float
    well_log_gfp: float


def draw_cells(
    rng: np.random.Generator, clone: Clone, biology: FieldBiology, physics: Physics
) -> pd.DataFrame:
    """One row a cell: position (µm from the region's corner), state, shape, indices, contents.

    DNA content runs from 2 to 4 and correlates with the nuclear area (0.6); log GFP = clone + well + cell +
    β · visible morphology; the visible morphology shows as granularity, texture and height.
    """
    log_area_sd = float(np.sqrt(np.log1p(physics.area_cv**2)))
    median_area = physics.area_um2 * biology.area_factor * float(np.exp(clone.log_size))
    confluence = float(np.clip(biology.confluence, 0.02, 0.95)) if biology.confluence > 0 else 0.0
    covered = confluence * biology.extent_um**2
    n = int(rng.poisson(covered / (median_area * np.exp(log_area_sd**2 / 2))))
    standard = rng.standard_normal((n, 8))
    visible = clone.visible + standard[:, 0]
    state = rng.choice(
        ["dead", "mitotic", "rounded", "adherent"], n, p=_shares(biology.dead, biology.rounded)
    )  # fmt: skip
    dna = np.choose(rng.choice(3, n, p=[0.5, 0.3, 0.2]), [2.0, 2.0 + 2.0 * rng.random(n), 4.0])
    dna = np.where(state == "mitotic", 4.0, dna) * np.exp(0.03 * standard[:, 1])
    cycle = (dna - 2.7) / 0.85
    log_nucleus = np.log(110.0) + clone.log_nucleus + 0.13 * (0.75 * cycle + 0.66 * standard[:, 2])
    negative_logit = np.log(clone.negative / (1 - clone.negative)) - 0.9 * visible
    positive = (rng.random(n) > 1 / (1 + np.exp(-negative_logit))) & clone.producing
    log_gfp = (
        clone.log_gfp
        + biology.well_log_gfp
        + physics.gfp_cell_sd * standard[:, 3]
        + physics.gfp_visible * visible
    )
    cells = pd.DataFrame(
        {
            "state": state,
            "area_um2": median_area * np.exp(log_area_sd * standard[:, 4]),
            "height_um": np.clip(
                np.mean(physics.height_um) * np.exp(0.14 * standard[:, 5] + 0.06 * visible),
                *physics.height_um,
            ),
            "elongation": np.exp(np.abs(0.30 + clone.log_elongation + 0.25 * standard[:, 6])),
            "angle": rng.uniform(0, 2 * np.pi, n),
            "nucleus_um2": np.clip(np.exp(log_nucleus), 80.0, 150.0) * np.sqrt(biology.area_factor),
            "dna": dna,
            "stained_dna": np.where(state == "dead", 0.5, 1.0) * dna,
            "visible": visible,
            "log_gfp": log_gfp,
            "gfp": np.where(positive & (state != "dead"), np.exp(log_gfp), 0.0),
            "er": np.exp(clone.log_er + 0.20 * standard[:, 7] + 0.10 * visible),
            "golgi": np.exp(0.20 * rng.standard_normal(n)),
            "cytoplasm_index": rng.uniform(*physics.cytoplasm_index, n) * biology.index_factor,
            "nucleus_index": rng.uniform(*physics.nucleus_index, n) * biology.index_factor,
            "texture_index": np.clip(
                np.mean(physics.er_texture_index) * np.exp(0.25 * visible), *physics.er_texture_index
            ),
            "vesicles": rng.poisson(physics.vesicles_per_cell * np.exp(0.5 * visible)),
            "nucleoli": rng.integers(1, 5, n),
            "heading": rng.uniform(0, 2 * np.pi, n),
            "speed_um_min": biology.motion_um_min * rng.uniform(0.5, 1.5, n),
        }
    )
    _settle_states(cells, rng)
    positions, doublet = _place(rng, np.sqrt(cells["area_um2"].to_numpy() / np.pi), biology)
    cells["x_um"], cells["y_um"], cells["doublet"] = positions[:, 0], positions[:, 1], doublet
    return cells


def _shares(dead: float, rounded: float) -> list[float]:
    alive = 1 - dead
    return [dead, alive * rounded / 2, alive * rounded / 2, alive * (1 - rounded)]


def _settle_states(cells: pd.DataFrame, rng: np.random.Generator) -> None:
    """Rounded and mitotic cells are spheres of Ø 12–16 µm, dead ones small and dense without organelles."""
    n = len(cells)
    round_diameter, dead_diameter = rng.uniform(12.0, 16.0, n), rng.uniform(8.0, 11.0, n)
    dead_index = rng.uniform(0.055, 0.075, n)
    spherical = cells["state"].isin(["mitotic", "rounded"]).to_numpy()
    dead = (cells["state"] == "dead").to_numpy()
    diameter = np.where(dead, dead_diameter, round_diameter)
    cells["area_um2"] = np.where(spherical | dead, np.pi / 4 * diameter**2, cells["area_um2"])
    cells["height_um"] = np.where(spherical | dead, diameter, cells["height_um"])
    cells["nucleus_um2"] = np.minimum(cells["nucleus_um2"], 0.55 * cells["area_um2"])
    cells.loc[dead, ["er", "golgi", "vesicles"]] = (0.05, 0.0, 0)
    cells["cytoplasm_index"] = np.where(dead, dead_index, cells["cytoplasm_index"])
    cells["nucleus_index"] = np.where(dead, dead_index + 0.01, cells["nucleus_index"])


def _place(
    rng: np.random.Generator, radius_um: NDArray, biology: FieldBiology
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Clustered positions that keep a distance, and which cells were set as one of a touching pair."""
    n = len(radius_um)
    positions = np.zeros((n, 2))
    doublet = np.zeros(n, bool)
    parents = rng.uniform(0, biology.extent_um, (max(1, n // 6), 2))
    crowding = 0.95 - 0.35 * biology.confluence
    paired = rng.random(n) < biology.doublets / 2
    for i in range(n):
        if i and paired[i] and not doublet[i - 1]:
            angle = rng.uniform(0, 2 * np.pi)
            reach = 0.85 * (radius_um[i] + radius_um[i - 1])
            positions[i] = positions[i - 1] + reach * np.array([np.cos(angle), np.sin(angle)])
            doublet[i - 1 : i + 1] = True
            continue
        best = -np.inf
        for _ in range(24):
            if rng.random() < 0.5:
                place = parents[rng.integers(len(parents))] + rng.normal(0, 22.0, 2)
            else:
                place = rng.uniform(0, biology.extent_um, 2)
            if not (place >= 0).all() or not (place < biology.extent_um).all():
                continue
            apart = np.hypot(*(positions[:i] - place).T) / (crowding * (radius_um[:i] + radius_um[i]))
            closest = float(apart.min()) if i else np.inf
            if closest > best:
                best, positions[i] = closest, place
            if closest >= 1:
                break
    return positions, doublet
