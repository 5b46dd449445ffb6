"""`plate_plan.csv`: what was put into the wells."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellabel.errors import InputError
from cellabel.plates._wells import normal_well, well_order

if TYPE_CHECKING:
    import pandas as pd

PLAN_FILE = "plate_plan.csv"
PLAN_ROLES = ("sample", "parental", "high_producer", "blank", "unstained", "reference")
PLAN_NUMBERS = ("passage", "day", "replicate", "seeding_density", "order")
PLAN_COLUMNS = (
    "Metadata_Well", "clone", "parent", "passage", "day", "replicate", "role", "seeding_density", "medium",
    "fixation", "stain_lot", "order",
)  # fmt: skip
_MAX_BYTES = 2**24


def read_plan(path: str | Path) -> pd.DataFrame:
    """A plate plan, checked: one row a well, sorted by well, index `Metadata_Well`.

    Known columns are `PLAN_COLUMNS`, all but the first optional; others are kept as text. Columns of
    `PLAN_NUMBERS` become numbers, empty cells missing values; a missing role is "sample".

    Raises:
        InputError: no such file, no table, no column `Metadata_Well`, no well, one that is on no plate or is
            named twice, a role that is not in `PLAN_ROLES`, text where a number belongs.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large for a plate plan: give a table with one row a well.")
        text = path.read_text(encoding="utf-8-sig")
        rows = [
            row for row in csv.reader(text.splitlines(), strict=True) if any(cell.strip() for cell in row)
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}): save it as CSV in UTF-8.") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    if "Metadata_Well" not in header or len(set(header)) != len(header):
        raise InputError(f"{path} must begin with a row of distinct names, Metadata_Well among them.")
    if len(rows) < 2:
        raise InputError(f"{path} names no well: write a row for each, or delete the file.")
    records = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) > len(header):
            raise InputError(
                f"{path}, row {number}: {len(row)} cells under {len(header)} names: mend the row."
            )
        records.append(dict(zip(header, [cell.strip() for cell in row] + [""] * len(header), strict=False)))
    return plan_table(_checked(records, str(path)))


def plan_records(plan: pd.DataFrame) -> list[dict[str, Any]]:
    """A plan as JSON-able records; missing cells are left out."""
    table = plan.reset_index()
    return [
        {str(name): value for name, value in record.items() if value is not None and value == value}
        for record in table.astype(object).to_dict("records")
    ]


def plan_table(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Checked records as a table with index `Metadata_Well`, known columns first."""
    import pandas as pd

    names = {name for record in records for name in record} | {"clone", "role"}
    extra = [name for record in records for name in record if name not in PLAN_COLUMNS]
    columns = [name for name in PLAN_COLUMNS if name in names] + list(dict.fromkeys(extra))
    ordered = sorted(records, key=lambda record: well_order(record["Metadata_Well"]))
    table = pd.DataFrame(
        [{name: record.get(name) for name in columns} for record in ordered], columns=columns
    )
    for name in PLAN_NUMBERS:
        if name in table:
            table[name] = pd.to_numeric(table[name])
    return table.set_index("Metadata_Well")


def plan_wells_not_imaged(plan: pd.DataFrame, wells: Iterable[str]) -> list[str]:
    """Wells of the plan that have no image."""
    imaged = set(wells)
    return [str(well) for well in plan.index if well not in imaged]


def _checked(records: list[dict[str, str]], where: str) -> list[dict[str, Any]]:
    seen: set[str] = set()
    checked = []
    for record in records:
        well = normal_well(record["Metadata_Well"])
        if well is None:
            raise InputError(
                f"{where}: {record['Metadata_Well']!r} is no well of a plate: write wells as A01 or AF48."
            )
        if well in seen:
            raise InputError(f"{where}: well {well} has two rows: keep one of them.")
        seen.add(well)
        role = (record.get("role") or "sample").lower()
        if role not in PLAN_ROLES:
            raise InputError(
                f"{where}: well {well} has the unknown role {role!r}: roles are {', '.join(PLAN_ROLES)}."
            )
        cells = {name: text for name, text in record.items() if text}
        numbers = {name: _number(cells[name], name, well, where) for name in PLAN_NUMBERS if name in cells}
        checked.append({**cells, **numbers, "Metadata_Well": well, "role": role})
    return checked


def _number(text: str, name: str, well: str, where: str) -> int | float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value or abs(value) == float("inf"):
        raise InputError(f"{where}: {name} of well {well} is {text!r}: write a number or leave it empty.")
    return int(value) if value.is_integer() else value
