"""Which fields of the plates can be learnt from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pandas as pd
from numpy.typing import NDArray

from cellabel.errors import InputError
from cellabel.organelles import Organelle

UNLABELLED_ROLES = ("blank", "unstained")
"""Wells without cells or without stain teach nothing about a stain."""

CONTROL_ROLES = ("parental", "high_producer", "reference")
"""Wells whose clone lies on every plate; they can train, but they cannot be new to a model."""


class FieldLike(Protocol):
    """One site of a well."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Channels that the field has."""
        ...

    def image(self, role: str, plane: str = "middle") -> NDArray[Any]:
        """(H, W) of the stored dtype; of a stack, the plane that the recipe names."""
        ...


class WellLike(Protocol):
    """One well."""

    @property
    def fields(self) -> Mapping[int, Any]:
        """Site → field."""
        ...


class LabelledPlate(Protocol):
    """What is asked of a plate here; `cellabel.plates.Plate` has it."""

    @property
    def plate_id(self) -> str:
        """Its name."""
        ...

    @property
    def content_hash(self) -> str:
        """Digest of its images."""
        ...

    @property
    def pixel_size_um(self) -> float | None:
        """Size of a pixel, µm; None where unknown."""
        ...

    @property
    def plan(self) -> pd.DataFrame | None:
        """One row a well (index: its name) with `clone` and `role`, if there is a plan."""
        ...

    @property
    def wells(self) -> Mapping[str, Any]:
        """Name → well."""
        ...

    @property
    def quarantined(self) -> pd.DataFrame:
        """Fields not to be used: Metadata_Well, Metadata_Site, reason."""
        ...


@dataclass(frozen=True, order=True)
class FieldSample:
    """The address of one field, without its pixels.

    Attributes:
        plate_id: plate.
        well: well, "A01".
        site: site in the well, from 1.
        clone: clone in the well; "" where the plan does not say.
        role: "sample", or the control that the plan names.
    """

    plate_id: str
    well: str
    site: int
    clone: str = ""
    role: str = "sample"

    @property
    def key(self) -> tuple[str, str, int]:
        """(plate, well, site)."""
        return self.plate_id, self.well, self.site

    @property
    def place(self) -> tuple[str, str]:
        """(plate, well): what is split never finer than."""
        return self.plate_id, self.well


class LeftOut(NamedTuple):
    """A field that is not used, and why."""

    plate_id: str
    well: str
    site: int
    reason: str


def stain_of(roles: Collection[str], recipe: Organelle) -> str | None:
    """The channel, of those that there are, that shows the recipe's stain, the preferred one first."""
    return next((stain for stain in recipe.stains if stain in roles), None)


def collect(plates: Sequence[LabelledPlate], recipe: Organelle) -> tuple[list[FieldSample], list[LeftOut]]:
    """All fields with transmitted light and the recipe's stain, in order; and those left out.

    Raises:
        InputError: the same plate twice.
    """
    samples, left_out = [], []
    names = [plate.plate_id for plate in plates]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Plate {name!r} is given twice; give each plate once.")
    for plate in plates:
        bad = {
            (str(row["Metadata_Well"]), int(row["Metadata_Site"]))
            for row in plate.quarantined.to_dict("records")
        }
        plan = plate.plan
        for well_name, well in plate.wells.items():
            clone, role = _planned(plan, well_name)
            for site, field in well.fields.items():
                reason = _reason((well_name, site) in bad, role, field.roles, recipe)
                if reason:
                    left_out.append(LeftOut(plate.plate_id, well_name, site, reason))
                else:
                    samples.append(FieldSample(plate.plate_id, well_name, site, clone, role))
    return sorted(samples), sorted(left_out)


def _reason(quarantined: bool, role: str, channels: Sequence[str], recipe: Organelle) -> str:
    if quarantined:
        return "quarantined"
    if role in UNLABELLED_ROLES:
        return f"{role} well"
    if "transmitted" not in channels:
        return "no transmitted-light image"
    if stain_of(channels, recipe) is None:
        return f"no {recipe.name} stain"
    return ""


def _planned(plan: pd.DataFrame | None, well: str) -> tuple[str, str]:
    if plan is None or well not in plan.index:
        return "", "sample"
    row = plan.loc[well]
    clone, role = row.get("clone"), row.get("role")
    return (
        "" if clone is None or pd.isna(clone) else str(clone).strip(),
        "sample" if role is None or pd.isna(role) or not str(role).strip() else str(role).strip(),
    )
