"""The two small files that people and programs put beside images: acquisition.json and layout.yaml."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellabel.errors import InputError

ACQUISITION_FILE = "acquisition.json"
LAYOUT_FILE = "layout.yaml"
_MAX_BYTES = 2**22


class Described(BaseModel):
    """What either file may say about the whole acquisition."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True, allow_inf_nan=False)

    plate_id: str | None = Field(None, description="The plate's id.")
    acquired_at: datetime | None = Field(None, description="When the images were taken, ISO 8601.")
    instrument: str | None = Field(None, description="Which microscope took them.")
    pixel_size_um: float | None = Field(None, gt=0, le=1000, description="Side of a pixel, µm.")


class AcquisitionFile(Described):
    """`acquisition.json`: what the program that took the images says about them. Other keys are let be."""

    channels: dict[str, str] = Field({}, description="Channel number or name → role.")


class LayoutFile(Described):
    """`layout.yaml`: how a person says that the files are to be read."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

    layout: str | None = Field(None, description="The layout to use; regex where a pattern is given.")
    pattern: str | None = Field(
        None,
        description="Regular expression that matches the whole file name (or the whole path below the "
        "folder, if it contains a slash), with named groups: well, or row and column, or position; site, "
        "time, channel, z, plate.",
    )
    planes: list[str] = Field(
        [], description="Channels of the planes of a file that holds several, in order."
    )
    wells: dict[str, str] | Literal["sorted"] = Field(
        "sorted", description="Position → well; otherwise positions are assigned wells in sorted order."
    )
    only: dict[str, str | list[str]] = Field(
        {}, description="Group name → value (or values) that are read, to choose one of several plates."
    )
    channels: dict[str, str | None] = Field({}, description="Channel → role; null leaves the channel out.")


_Record = TypeVar("_Record", bound=Described)


def read_acquisition_file(folder: Path) -> AcquisitionFile | None:
    """`acquisition.json` of a folder, or None where there is none.

    Raises:
        InputError: it is not JSON, or a value in it cannot be used.
    """
    path = folder / ACQUISITION_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): mend or delete it.") from error
    return _checked(AcquisitionFile, content, path)


def read_layout_file(path: Path) -> LayoutFile:
    """A `layout.yaml`.

    Raises:
        InputError: it is not YAML, or a value in it cannot be used.
    """
    import yaml

    try:
        content = yaml.safe_load(_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML ({' '.join(str(error).split())}): mend it.") from error
    return _checked(LayoutFile, content if content is not None else {}, path)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(
                f"{path} is larger than {_MAX_BYTES // 2**20} MB: this is no description of images."
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): write it as UTF-8 text.") from error


def _checked(kind: type[_Record], content: Any, path: Path) -> _Record:
    if not isinstance(content, dict):
        raise InputError(
            f"{path} must hold names and values, not a {type(content).__name__}: see plates/README.md."
        )
    try:
        record = kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise InputError(f"{path} cannot be used: {where}: {first['msg']}; mend it.") from error
    if record.acquired_at is not None:
        naive = record.acquired_at.tzinfo is None  # a time without a zone is taken as UTC
        taken = record.acquired_at.replace(tzinfo=UTC) if naive else record.acquired_at
        record.acquired_at = taken.astimezone(UTC)
    return record
