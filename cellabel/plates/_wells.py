"""Well names: "A01" to "AF48", the wells of plates with up to 1536 of them."""

from __future__ import annotations

import re

from cellabel.errors import InputError

_WELL = re.compile(r"([A-Za-z]{1,2})[-_ ]?(\d{1,3})")
_ROWS, _COLUMNS = 32, 48


def row_name(row: int) -> str:
    """The letters of row `row` (0 is "A", 25 "Z", 26 "AA")."""
    return chr(65 + row) if row < 26 else "A" + chr(65 + row - 26)


def well_name(row: int, column: int) -> str:
    """The name of the well in row `row` and column `column`, both counted from 1.

    Raises:
        InputError: no plate has such a row or column.
    """
    if not (1 <= row <= _ROWS and 1 <= column <= _COLUMNS):
        raise InputError(
            f"Row {row}, column {column} is on no plate: the largest has {_ROWS} × {_COLUMNS} wells."
        )
    return f"{row_name(row - 1)}{column:02d}"


def split_well(well: str) -> tuple[str, str]:
    """Row and column of a well name: "A01" is ("A", "01")."""
    row = well.rstrip("0123456789")
    return row, well[len(row) :]


def normal_well(text: str) -> str | None:
    """`text` as a well name ("a1" is "A01"), or None where it is none."""
    found = _WELL.fullmatch(text.strip())
    if found is None:
        return None
    letters, column = found.group(1).upper(), int(found.group(2))
    row = ord(letters[-1]) - 64 if len(letters) == 1 else ord(letters[-1]) - 64 + 26
    if (len(letters) == 2 and letters[0] != "A") or not (1 <= row <= _ROWS and 1 <= column <= _COLUMNS):
        return None
    return f"{letters}{column:02d}"


def row_index(well: str) -> int:
    """The row of a well name, counted from 0."""
    letters, _ = split_well(well)
    return ord(letters) - 65 if len(letters) == 1 else ord(letters[-1]) - 65 + 26


def column_index(well: str) -> int:
    """The column of a well name, counted from 0."""
    return int(split_well(well)[1]) - 1


def well_order(well: str) -> tuple[int, int]:
    """A key that sorts wells row by row."""
    return row_index(well), column_index(well)


def successive_wells(count: int) -> list[str]:
    """The first `count` wells, row by row, of the smallest plate (96, 384 or 1536 wells) that has as many.

    Raises:
        InputError: no plate has as many wells.
    """
    for rows, columns in ((8, 12), (16, 24), (32, 48)):
        if count <= rows * columns:
            return [well_name(1 + k // columns, 1 + k % columns) for k in range(count)]
    raise InputError(f"{count} positions are more than a plate has wells: name their wells in layout.yaml.")
