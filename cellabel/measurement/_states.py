"""Live, dead, mitotic, doublet: the chance of each, from how a cell differs from its plate's usual one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["BODILESS", "STATE_MODELS", "StateModel", "state_features", "state_probabilities"]

NUCLEAR = ("log_area", "log_intensity", "log_texture", "form_factor", "eccentricity", "closeness")
BODILESS = NUCLEAR
"""Features where no stain shows the cells' bodies."""
BODILY = (*NUCLEAR, "log_cell_area", "log_body", "cell_form_factor")


@dataclass(frozen=True)
class StateModel:
    """Logistic models on `state_features`: each a row of weights, for the features, their squares and 1.

    Attributes:
        features: names, in order.
        dead, mitotic: against live cells, together a softmax.
        doublet: against single cells.
    """

    features: tuple[str, ...]
    dead: tuple[float, ...]
    mitotic: tuple[float, ...]
    doublet: tuple[float, ...]


def state_features(cells: pd.DataFrame) -> pd.DataFrame:
    """How every cell differs from the median cell of the table (give a whole plate).

    Args:
        cells: rows of `join_cells`.

    Returns:
        Natural logarithms of ratios to the median (log_…), else differences from it; limited to ± 4. Features
        whose columns are missing or constant are 0.
    """
    body = next((name for name in ("Er", "Actin") if f"Cells_Intensity_MeanIntensity_{name}" in cells), None)
    mean = cells["Nuclei_Intensity_MeanIntensity"]
    columns = {
        "log_area": _log(cells["Nuclei_AreaShape_AreaUm2"]),
        "log_intensity": _log(mean),
        "log_texture": _log(cells["Nuclei_Intensity_StdIntensity"] / mean.where(mean > 0)),
        "form_factor": cells["Nuclei_AreaShape_FormFactor"].clip(upper=1.5),
        "eccentricity": cells["Nuclei_AreaShape_Eccentricity"],
        "closeness": -_log(cells["Cells_Neighbors_FirstClosestRatio"]),
    }
    if body is not None:
        columns |= {
            "log_cell_area": _log(cells["Cells_AreaShape_AreaUm2"]),
            "log_body": _log(cells[f"Cells_Intensity_MeanIntensity_{body}"]),
            "cell_form_factor": cells["Cells_AreaShape_FormFactor"].clip(upper=1.5),
        }
    table = pd.DataFrame(columns, index=cells.index).astype(float)
    return (table - table.median()).clip(-4, 4).fillna(0.0)


def state_probabilities(cells: pd.DataFrame) -> pd.DataFrame:
    """The chance of each cell to be live (neither dead nor mitotic), dead, mitotic; and to be one of a pair.

    Columns: live, dead, mitotic (they add up to 1), doublet.
    """
    features = state_features(cells)
    model = STATE_MODELS["bodily" if "log_body" in features else "bodiless"]
    design = _design(features[list(model.features)].to_numpy())
    dead, mitotic, doublet = (design @ np.asarray(row) for row in (model.dead, model.mitotic, model.doublet))
    top = np.maximum(np.maximum(dead, mitotic), 0.0)
    parts = np.exp(np.stack([-top, dead - top, mitotic - top], axis=1))
    shares = parts / parts.sum(axis=1, keepdims=True)
    table = pd.DataFrame(shares, columns=["live", "dead", "mitotic"], index=cells.index)
    return table.assign(doublet=1 / (1 + np.exp(-np.clip(doublet, -50, 50))))


def _design(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([values, values**2, np.ones((len(values), 1))])


def _log(values: pd.Series) -> pd.Series:
    return np.log(values.where(values > 0))


STATE_MODELS: Mapping[str, StateModel] = {
    "bodily": StateModel(
        features=BODILY,
        dead=(
            -1.258, 3.085, -0.204, 0.715, -0.633, 0.475, -1.398, -0.878, 0.844,
            -1.233, 1.150, -0.040, -0.001, -0.140, 0.118, 0.217, 1.959, 0.241, -7.580,
        ),
        mitotic=(
            -1.543, 3.621, -0.033, 0.524, -0.383, 0.008, -0.383, 0.960, 0.544,
            -0.049, 2.579, -0.041, -0.026, -0.066, -0.018, -0.811, 0.940, 0.113, -6.072,
        ),
        doublet=(
            0.439, 0.024, -0.026, -0.362, 0.056, 2.736, 0.005, 0.139, -0.992,
            -0.581, 0.238, 0.094, 0.110, -0.053, 0.258, 0.401, -0.290, 0.112, -2.206,
        ),
    ),
    "bodiless": StateModel(
        features=BODILESS,
        dead=(
            -4.972, 3.624, 0.860, 3.397, -2.091, 0.636,
            -0.806, 0.008, -0.275, -0.052, -0.678, -0.372, -5.261,
        ),
        mitotic=(
            -2.470, 4.181, 0.155, 1.246, -0.813, -0.157,
            -1.294, 2.668, -0.178, -0.050, -0.227, -0.401, -5.772,
        ),
        doublet=(
            0.461, -0.018, -0.073, -0.393, 0.121, 2.761,
            -0.143, 0.256, 0.120, 0.111, -0.060, 0.288, -2.175,
        ),
    ),
}  # fmt: skip
"""Fitted by `tests/benchmarks/cell_states.py --fit` on 1,534 cells of 5 simulated, stained plates."""
