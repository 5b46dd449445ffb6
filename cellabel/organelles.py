"""The recipes: one declarative entry an organelle. Lengths are in micrometres, areas in square micrometres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from cellabel.errors import InputError

__all__ = ["ORGANELLES", "REFERENCE_PIXEL_SIZE_UM", "Organelle", "Step", "organelle"]

REFERENCE_PIXEL_SIZE_UM = 0.65
"""The pixel size that is meant where none is given (a 10× objective on a 6.5 µm camera)."""


@dataclass(frozen=True)
class Step:
    """One named operation of a recipe and its parameters; parameters that end in `_um` are lengths.

    `function` is a key of `cellabel.preprocessing.STEPS` or `cellabel.segmentation.STEPS`.
    """

    function: str
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))


@dataclass(frozen=True)
class Organelle:
    """How one stain is prepared, learnt, segmented and measured.

    Attributes:
        name: first part of the asset keys and of the registered model's name.
        prefix: prefix of its feature columns.
        description: one sentence for the graph and the model card.
        stains: channel roles or names that show it, the first one preferred.
        target: "continuous" (the network predicts an intensity) or "binary" (a probability).
        preprocessing: stain → target, before the constant scaling of continuous targets.
        losses: loss name → weight (names of `cellabel.training.LOSSES`).
        segmentation: target or prediction → labels.
        primary_metrics: well features that the promotion gate judges.
        plausible: well feature → (lower, upper) outside of which a table is flagged.
    """

    name: str
    prefix: str
    description: str
    stains: tuple[str, ...]
    target: Literal["continuous", "binary"]
    preprocessing: tuple[Step, ...]
    losses: Mapping[str, float]
    segmentation: tuple[Step, ...]
    primary_metrics: tuple[str, ...]
    plausible: Mapping[str, tuple[float, float]]


ORGANELLES: dict[str, Organelle] = {}


def organelle(name: str | Organelle) -> Organelle:
    """The recipe called `name` (a recipe passes through).

    Raises:
        InputError: no recipe has this name; the known ones are listed.
    """
    if isinstance(name, Organelle):
        return name
    if name not in ORGANELLES:
        raise InputError(f"No organelle is called {name!r}; the recipes are {', '.join(sorted(ORGANELLES))}.")
    return ORGANELLES[name]
