"""The keywords of a simulated plate, typed: what the microscope is, and what grows on the plate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from math import isfinite
from numbers import Integral, Real
from typing import Any

import numpy as np

from cellabel.errors import InputError
from cellabel.simulation._physics import PRESETS, family_of

__all__ = ["Culture", "Microscope", "read_keywords"]


_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((Integral,), "a whole number"),
    "float": ((Real,), "a finite number"),
    "bool": ((bool, np.bool_), "True or False"),
    "str": ((str,), "a text"),
    "datetime": ((datetime,), "a datetime"),
}
"""Annotation → what it takes, and how a person would say so."""


def _require_types(keywords: Microscope | Culture) -> None:
    """Refuse values that are not what their field is annotated as; None where that is allowed."""
    for one in fields(keywords):
        value, (annotation, _, optional) = getattr(keywords, one.name), str(one.type).partition(" | ")
        if value is None and optional:
            continue
        types, words = _TYPES[annotation]
        misread = isinstance(value, bool) and annotation != "bool"
        if misread or not isinstance(value, types) or (isinstance(value, Real) and not isfinite(value)):
            raise InputError(f"{one.name} is {value!r}; give {words}.")


@dataclass(frozen=True)
class Microscope:
    """The instrument that images the plate; None means drawn once for all plates of this `instrument`.

    Attributes:
        preset: "10x" (NA 0.45, 0.65 µm a pixel), "20x" (0.75, 0.325 µm) or "40x" (0.95, 0.1625 µm).
        instrument: name of the instrument; its optics, flat fields and camera are drawn from it.
        family: "a", or "b" (other optics, texture and stain yield, kept out of all tuning).
        numerical_aperture, pixel_size_um: instead of the preset's.
        condenser_ratio: condenser aperture over objective aperture.
        condenser_points: 1, 9 or 21 source points; None is 9 in focus and 21 beyond 2 µm of defocus.
        shear_um, azimuth_deg, bias_deg, extinction: of the Nomarski prism and the polarisers.
        lamp: level of an empty field as a share of the full well.
        background_electrons: camera background of the stains.
        acquired_at: start of the acquisition; None is derived from the seed.
        noise_seed: another draw of the camera's noise on the same truth.
    """

    preset: str = "20x"
    instrument: str = "scope-1"
    family: str = "a"
    numerical_aperture: float | None = None
    pixel_size_um: float | None = None
    condenser_ratio: float | None = None
    condenser_points: int | None = None
    shear_um: float | None = None
    azimuth_deg: float | None = None
    bias_deg: float | None = None
    extinction: float | None = None
    lamp: float | None = None
    background_electrons: float | None = None
    acquired_at: datetime | None = None
    noise_seed: int | None = None

    def __post_init__(self) -> None:
        _require_types(self)
        if self.preset not in PRESETS:
            raise InputError(
                f"No objective preset is called {self.preset!r}; choose one of {', '.join(PRESETS)}."
            )
        family_of(self.family)
        if self.condenser_points not in (None, 1, 9, 21):
            raise InputError(f"condenser_points is {self.condenser_points!r}; choose 1, 9 or 21.")
        for name in ("numerical_aperture", "pixel_size_um", "condenser_ratio", "shear_um", "lamp"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"The microscope's {name} is {value!r}; give a number above 0.")
        for name in ("extinction", "background_electrons"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"The microscope's {name} is {getattr(self, name)!r}; give 0 or more.")
        if self.lamp is not None and self.lamp > 1:
            raise InputError(f"The lamp's level is {self.lamp!r}; give a share of the full well, up to 1.")
        if self.aperture >= 1.0:
            raise InputError(f"The numerical aperture is {self.aperture}; a dry objective stays below 1.")

    @property
    def aperture(self) -> float:
        """Numerical aperture of the objective."""
        return self.numerical_aperture or PRESETS[self.preset].numerical_aperture

    @property
    def pixel_um(self) -> float:
        """Pixel of the camera in the sample, µm."""
        return self.pixel_size_um or PRESETS[self.preset].pixel_size_um


@dataclass(frozen=True)
class Culture:
    """What grows on the plate and how it was laid out and treated.

    Attributes:
        clones: number of clones among the sample wells; their names count from `clone_offset` + 1.
        clone_offset: plates with other offsets carry other clones; parental and reference wells repeat.
        parental, reference, blanks: number of control wells; None chooses by the size of the plate.
        parent: name of the parental line.
        confounded: clones laid out column after column instead of at random.
        passage, day: of the culture.
        confluence: mean covered share of the field, 0.1–0.95.
        density: factor on the number of cells.
        dead: share of dead cells; None draws 1–6 % a plate.
        fixed: fixed cells are smaller, denser and still; living ones round up and move between channels.
        stain_yield: factor on all stains.
        stain_lot: name of the lot of stain.
    """

    clones: int = 6
    clone_offset: int = 0
    parental: int | None = None
    reference: int | None = None
    blanks: int | None = None
    parent: str = "CHO-K1"
    confounded: bool = False
    passage: int = 10
    day: int = 3
    confluence: float = 0.5
    density: float = 1.0
    dead: float | None = None
    fixed: bool = True
    stain_yield: float = 1.0
    stain_lot: str = "lot-1"

    def __post_init__(self) -> None:
        _require_types(self)
        if self.clones < 1 or self.clone_offset < 0:
            raise InputError(
                f"{self.clones} clones from {self.clone_offset} on: give at least 1, counted from 0 or more."
            )
        if not 0.05 <= self.confluence <= 0.95:
            raise InputError(f"The confluence is {self.confluence!r}; give a share between 0.05 and 0.95.")
        if not (self.density > 0 and self.stain_yield >= 0):
            raise InputError(
                f"density {self.density!r} and stain_yield {self.stain_yield!r} are factors above 0."
            )
        if self.dead is not None and not 0 <= self.dead <= 1:
            raise InputError(f"The share of dead cells is {self.dead!r}; give a number between 0 and 1.")
        for name in ("parental", "reference", "blanks"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"The number of {name} wells is {getattr(self, name)}; give 0 or more.")


def read_keywords(keywords: Mapping[str, Any]) -> tuple[Microscope, Culture]:
    """Split the keywords of `simulate_plate` between the microscope and the culture.

    Raises:
        InputError: a keyword that neither knows, or a value out of its range.
    """
    optical = {f.name for f in fields(Microscope)}
    biological = {f.name for f in fields(Culture)}
    unknown = sorted(set(keywords) - optical - biological)
    if unknown:
        raise InputError(
            f"simulate_plate knows no keyword {', '.join(unknown)}; "
            f"the known ones are {', '.join(sorted(optical | biological))}."
        )
    return (
        Microscope(**{name: value for name, value in keywords.items() if name in optical}),
        Culture(**{name: value for name, value in keywords.items() if name in biological}),
    )
