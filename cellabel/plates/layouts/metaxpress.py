"""MetaXpress and ImageXpress exports: `<plate>_<well>_s<site>_w<channel>[GUID].tif` and an `.HTD` file.

Time points and z-steps lie in folders `TimePoint_<t>/ZStep_<z>`; `ZStep_0` holds projections and is left out
where there are planes. Thumbnails (`_thumb`) are no images.

Source: the exports in BBBC039 and fractal-uzh-converters' ImageXpress examples.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cellabel.errors import InputError
from cellabel.plates._images import DECODE_ERRORS
from cellabel.plates._issues import Issue
from cellabel.plates._metadata import LAYOUT_FILE, LayoutFile
from cellabel.plates._wells import normal_well, row_name
from cellabel.plates.layouts._base import Found, Plane

_GUID = r"[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}"
_WELL = r"(?:(?P<plate>.+)_)?(?P<well>[A-Z]{1,2}\d{1,2})"
_END = rf"(?P<thumb>_thumb)?(?:{_GUID})?\.tiff?"
_SITE, _CHANNEL = r"_s(?P<site>\d{1,4})", r"_w(?P<channel>\d{1,2}?)"
# A channel "w1" reads like a well of row W: a name is first read with site or channel behind the well.
_NAMES = tuple(
    re.compile(_WELL + suffix + _END, re.IGNORECASE) for suffix in (f"{_SITE}(?:{_CHANNEL})?", _CHANNEL, "")
)
_TIME = re.compile(r"TimePoint_(\d+)", re.IGNORECASE)
_STEP = re.compile(r"ZStep_(\d+)", re.IGNORECASE)


def find(folder: Path, files: Sequence[Path], settings: LayoutFile) -> Found | None:
    """The images of one MetaXpress plate.

    Raises:
        InputError: the folder holds several plates.
    """
    planes: list[Plane] = []
    homes: dict[tuple[str, str], int] = {}
    thumbnails: set[Path] = set()
    wanted = settings.only.get("plate")
    for path in files:
        name = _read_name(path.name)
        if name is None:
            continue
        if name["thumb"]:
            thumbnails.add(path)
            continue
        home, time, z = _steps(path.relative_to(folder).parent)
        if wanted and wanted not in (home, name["plate"]):
            continue
        home_key = (home, name["plate"] or "")
        homes[home_key] = homes.get(home_key, 0) + 1
        channel = str(int(name.get("channel") or 1))
        planes.append(Plane(path, name["well"], int(name.get("site") or 1), channel, time, z))
    if not planes:
        return None
    if len(homes) > 1:
        names = ", ".join(sorted({"/".join(part for part in home if part) for home in homes})[:5])
        raise InputError(
            f"{folder} holds images of {len(homes)} MetaXpress plates ({names}): open the folder of one, "
            f"or choose one in a {LAYOUT_FILE} with `layout: metaxpress` and `only: {{plate: …}}`."
        )
    kept = _without_projections(planes)
    found = Found(kept, f"named <plate>_<well>_s<site>_w<channel> ({len(planes)} files)")
    if thumbnails:
        found.issues.append(Issue(None, None, None, f"thumbnails that were left out: {len(thumbnails)}"))
    if n_left := len(planes) - len(kept):
        reason = f"projections (ZStep_0) that were left out, as there are planes: {n_left}"
        found.issues.append(Issue(None, None, None, reason))
    found.left_out = thumbnails | {plane.path for plane in planes}
    _read_htd(files, found)
    _read_tags(found)
    return found


def _read_name(file_name: str) -> dict[str, str] | None:
    """The parts of a file's name, the well in its normal form; a bare "A01.tif" is not one of these names."""
    for pattern in _NAMES:
        if match := pattern.fullmatch(file_name):
            well = normal_well(match["well"])
            bare = pattern is _NAMES[-1] and not match["plate"]
            return {**match.groupdict(default=""), "well": well} if well and not bare else None
    return None


def _steps(parent: Path) -> tuple[str, int, int]:
    """The folder of the plate, time point and z-step of a file."""
    home, time, z = [], 1, 1
    for part in parent.parts:
        if match := _TIME.fullmatch(part):
            time = int(match[1])
        elif match := _STEP.fullmatch(part):
            z = int(match[1])
        else:
            home.append(part)
    return "/".join(home), time, z


def _without_projections(planes: list[Plane]) -> list[Plane]:
    stepped = {(p.place, p.site, p.channel, p.time) for p in planes if p.z > 0}
    return [p for p in planes if p.z > 0 or (p.place, p.site, p.channel, p.time) not in stepped]


def _read_htd(files: Sequence[Path], found: Found) -> None:
    """Names of the wavelengths, and the wells and sites that should be there."""
    htds = sorted((path for path in files if path.suffix.lower() == ".htd"), key=lambda path: len(path.parts))
    if not htds:
        return
    try:
        lines = htds[0].read_text(encoding="latin-1").splitlines()
        content = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in _rows(lines)}
    except (OSError, csv.Error) as error:
        found.issues.append(Issue(None, None, None, f"{htds[0].name} cannot be read ({error})"))
        return
    found.why += f", wavelengths named in {htds[0].name}"
    seen = {plane.channel for plane in found.planes}
    for key, values in content.items():
        number = re.fullmatch(r"WaveName(\d+)", key)
        if number and values and values[0]:
            if number[1] in seen:
                found.names[number[1]] = values[0]
            else:
                reason = f"{htds[0].name} names wavelength {number[1]} ({values[0]}), no image shows it"
                found.issues.append(Issue(None, None, values[0], reason))
    wells = {plane.place for plane in found.planes}
    for row, column in _selected(content):
        well = f"{row_name(row)}{column + 1:02d}"
        if well not in wells:
            found.issues.append(
                Issue(well, None, None, f"{htds[0].name} selects this well, no image shows it")
            )


def _rows(lines: list[str]) -> list[list[str]]:
    return [row for row in csv.reader(lines, skipinitialspace=True) if row]


def _selected(content: dict[str, list[str]]) -> list[tuple[int, int]]:
    return [
        (int(number[1]) - 1, column)
        for key, values in content.items()
        if (number := re.fullmatch(r"WellsSelection([1-9]|[12]\d|3[0-2])", key))
        for column, value in enumerate(values[:48])
        if value.upper() == "TRUE"
    ]


def _read_tags(found: Found) -> None:
    """Pixel size, time, instrument and missing channel names from the images' own tags, if readable."""
    first = {plane.channel: plane.path for plane in reversed(found.planes)}
    for channel, path in sorted(first.items()):
        tags = _metaseries(path)
        if not tags:
            continue
        plane = tags.get("PlaneInfo", {})
        name = plane.get("_IllumSetting_")
        if isinstance(name, str) and name:
            found.names.setdefault(channel, name)
        size = plane.get("spatial-calibration-x")
        calibrated = plane.get("spatial-calibration-state") and plane.get("spatial-calibration-units") == "um"
        if found.pixel_size_um is None and calibrated and isinstance(size, float) and 0 < size <= 1000:
            found.pixel_size_um = size
        taken = plane.get("acquisition-time-local")
        if found.acquired_at is None and isinstance(taken, datetime):
            found.acquired_at = taken.replace(tzinfo=UTC)
            reason = "the images tell their time without a zone: it is taken as UTC"
            found.issues.append(Issue(None, None, None, reason))
        serial = plane.get("Instrument Serial Number")
        if found.instrument is None and isinstance(serial, str) and serial:
            found.instrument = f"ImageXpress {serial}"


def _metaseries(path: Path) -> dict[str, Any] | None:
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tif:
            return tif.metaseries_metadata if tif.is_metaseries else None
    except DECODE_ERRORS:
        return None  # a damaged image is told of when its pixels are verified
