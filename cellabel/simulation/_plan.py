"""Which wells there are, and what grows in each."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cellabel.errors import InputError
from cellabel.simulation._keywords import Culture
from cellabel.simulation._randomness import stream

__all__ = ["WellPosition", "draw_plan", "plate_format", "well_names", "well_position"]

REFERENCE_CLONE = "REF-1"
SEEDING_DENSITY = 20_000
"""Cells a square centimetre at a density of 1."""

_FORMATS = ((1, 1), (1, 2), (2, 2), (2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24))
_WELL = re.compile(r"^([A-P])(0[1-9]|1\d|2[0-4])$")

WellPosition = tuple[int, int]


def well_position(name: str) -> WellPosition:
    """Row and column of a well, both from 0.

    Raises:
        InputError: not a well of a 384-well plate, written as "A01".
    """
    match = _WELL.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise InputError(f"{name!r} is not a well; write a row A–P and a column 01–24, such as 'A01'.")
    return ord(match[1]) - ord("A"), int(match[2]) - 1


def plate_format(names: Sequence[str]) -> tuple[int, int]:
    """Rows and columns of the smallest common plate that has all these wells."""
    positions = [well_position(name) for name in names]
    rows = 1 + max(row for row, _ in positions)
    columns = 1 + max(column for _, column in positions)
    return next(size for size in _FORMATS if size[0] >= rows and size[1] >= columns)


def well_names(wells: int | Sequence[str]) -> list[str]:
    """Names in plate order: the first wells of the smallest plate that has so many, or the given ones.

    Raises:
        InputError: fewer than 1 or more than 384 wells, a name that is no well, or a name twice.
    """
    if isinstance(wells, bool) or not isinstance(wells, int | np.integer):
        if isinstance(wells, str | float) or not isinstance(wells, Sequence) or not wells:
            raise InputError(
                f"wells is {wells!r}; give a number of wells or a list of names such as ['A01', 'B02']."
            )
        if len(set(wells)) < len(wells):
            raise InputError("A well is named twice in wells; name each once.")
        return sorted(wells, key=well_position)
    if not 1 <= wells <= 384:
        raise InputError(f"wells is {wells}; a plate has between 1 and 384 wells.")
    _, columns = next(size for size in _FORMATS if size[0] * size[1] >= wells)
    return [f"{chr(ord('A') + i // columns)}{i % columns + 1:02d}" for i in range(int(wells))]


def _roles(n_wells: int, culture: Culture) -> tuple[int, int, int]:
    """Number of parental, reference and blank wells; the choice by size leaves most wells to the clones."""
    controls = max(1, n_wells // 12) if n_wells >= 4 else 0
    parental = controls if culture.parental is None else culture.parental
    reference = controls if culture.reference is None else culture.reference
    blanks = (1 if n_wells >= 24 else 0) if culture.blanks is None else culture.blanks
    if parental + reference + blanks > n_wells:
        raise InputError(
            f"{parental} parental, {reference} reference and {blanks} blank wells do not fit "
            f"into {n_wells} wells; ask for fewer controls or more wells."
        )
    return parental, reference, blanks


def draw_plan(names: Sequence[str], culture: Culture, seed: int) -> pd.DataFrame:
    """The plate plan, one row a well in plate order.

    Returns:
        Metadata_Well, clone, parent, passage, day, replicate, role, seeding_density (cells/cm²), medium,
        fixation, stain_lot, order (of the acquisition, from 1).

    Raises:
        InputError: more control wells than wells.
    """
    parental, reference, blanks = _roles(len(names), culture)
    n_samples = len(names) - parental - reference - blanks
    contents = [("parental", culture.parent, i + 1) for i in range(parental)]
    contents += [("reference", REFERENCE_CLONE, i + 1) for i in range(reference)]
    contents += [("blank", "", i + 1) for i in range(blanks)]
    contents += [
        ("sample", f"CL{culture.clone_offset + i % culture.clones + 1:03d}", i // culture.clones + 1)
        for i in range(n_samples)
    ]
    if culture.confounded:
        contents.sort(key=lambda content: (content[0], content[1], content[2]))
        placed = sorted(range(len(names)), key=lambda i: well_position(names[i])[::-1])
        by_well = dict(zip(placed, contents, strict=True))
        contents = [by_well[i] for i in range(len(names))]
    else:
        contents = [contents[i] for i in stream("plan", seed).permutation(len(contents))]
    density = round(SEEDING_DENSITY * culture.density)
    rows = [
        {
            "Metadata_Well": name,
            "clone": clone,
            "parent": "" if role in ("blank", "parental") else culture.parent,
            "passage": culture.passage,
            "day": culture.day,
            "replicate": replicate,
            "role": role,
            "seeding_density": 0 if role == "blank" else density,
            "medium": "CD-CHO",
            "fixation": "PFA 4 %" if culture.fixed else "none",
            "stain_lot": culture.stain_lot,
            "order": i + 1,
        }
        for i, (name, (role, clone, replicate)) in enumerate(zip(names, contents, strict=True))
    ]
    return pd.DataFrame(rows)
