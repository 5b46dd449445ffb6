"""ICS images, one file a plane: position by folder, channel, time and pixel size by the header's history.

Files whose names end in `Z<stage height>` are steps of one focus series.

Source: the headers that GCI's and Nikon's writers leave ("history type", "history cube", "history extents").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cellabel.plates._ics import IcsHeader, read_ics_header
from cellabel.plates._images import ImageError
from cellabel.plates._metadata import LayoutFile
from cellabel.plates.layouts._base import Found, Plane, find_well

_HEIGHT = re.compile(r"Z(-?\d+(?:\.\d+)?)$", re.IGNORECASE)


def find(folder: Path, files: Sequence[Path], settings: LayoutFile) -> Found | None:
    """The ICS images of one plate."""
    headers: dict[Path, IcsHeader] = {}
    damaged = 0
    for path in files:
        if path.suffix.lower() == ".ics":
            try:
                headers[path] = read_ics_header(path)
            except (ImageError, OSError):
                damaged += 1
    if not headers:
        return None
    places = {path: _place(path, folder) for path in headers}
    wells = {place: find_well(place) for place in places.values()}
    told = all(wells.values()) and len(set(wells.values())) == len(wells)
    steps = _steps(headers, places)
    planes = [
        Plane(path, (wells[places[path]] or "") if told else places[path], 1, _channel(header), z=steps[path])
        for path, header in headers.items()
    ]
    found = Found(planes, f"ICS images ({len(planes)} files)", places_are_positions=not told)
    if damaged:
        found.tell(f"ICS files whose header cannot be read: {damaged}")
    _read_history(headers, found)
    return found


def _place(path: Path, folder: Path) -> str:
    parent = path.relative_to(folder).parent.as_posix()
    return parent if parent != "." else folder.resolve().name


def _channel(header: IcsHeader) -> str:
    kind, cube = header.get("history", "type"), header.get("history", "cube")
    return cube if cube and cube != "empty" else kind or "1"


def _steps(headers: dict[Path, IcsHeader], places: dict[Path, str]) -> dict[Path, int]:
    """Heights in names → steps 1, 2, … within each position and channel."""
    heights: dict[tuple[str, str], list[tuple[float, str, Path]]] = {}
    for path, header in headers.items():
        match = _HEIGHT.search(path.stem)
        key = (places[path], _channel(header))
        heights.setdefault(key, []).append((float(match[1]) if match else 0.0, path.name, path))
    return {
        path: number
        for series in heights.values()
        for number, (_, _, path) in enumerate(sorted(series), start=1)
    }


def _read_history(headers: dict[Path, IcsHeader], found: Found) -> None:
    for header in headers.values():
        extents, sizes = header.get("history", "extents").split(), header.get("history", "dimensions").split()
        metres = header.get("history", "units").split()[:1] == ["m"]
        if found.pixel_size_um is None and metres and extents and sizes:
            try:
                found.pixel_size_um = round(float(extents[0]) / int(sizes[0]) * 1e6, 6) or None
            except (ValueError, ZeroDivisionError):
                found.pixel_size_um = None
        found.instrument = found.instrument or header.get("history", "microscope_id") or None
        try:
            taken = datetime.strptime(header.get("history", "created on"), "%H:%M:%S %d\\%m\\%y")
        except ValueError:
            continue
        found.acquired_at = min(found.acquired_at or taken.replace(tzinfo=UTC), taken.replace(tzinfo=UTC))
    if found.acquired_at is not None:
        found.tell("the images tell their time without a zone: it is taken as UTC")
