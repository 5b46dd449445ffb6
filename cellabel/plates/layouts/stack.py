"""Multi-channel TIFF stacks, each with a JSON of the same name that lists its channels.

`X.tif` holds the planes, `X.json` tells `{"channels": ["brightfield", …], "spatial_calibration": 0.31}`.

Source: celldetective's datasets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellabel.plates._metadata import LayoutFile
from cellabel.plates.layouts._base import Found, Plane, find_well

_MAX_BYTES = 2**20


def find(folder: Path, files: Sequence[Path], settings: LayoutFile) -> Found | None:
    """The stacks that have a list of channels beside them."""
    known = set(files)
    described: dict[Path, tuple[list[str], dict[str, Any]]] = {}
    for path in files:
        beside = path.with_suffix(".json")
        if path.suffix.lower() in (".tif", ".tiff") and beside in known:
            content = _content(beside)
            if content is not None:
                described[path] = ([str(name) for name in content["channels"]], content)
    if not described:
        return None
    places = {path: path.relative_to(folder).with_suffix("").as_posix() for path in described}
    wells = {path: find_well(path.stem) for path in described}
    told = all(wells.values()) and len(set(wells.values())) == len(wells)
    planes = [
        Plane(
            path,
            (wells[path] or "") if told else places[path],
            1,
            name,
            page=page,
            of=len(names),
            samples_are_planes=True,
        )
        for path, (names, _) in described.items()
        for page, name in enumerate(names)
    ]
    found = Found(
        planes,
        f"stacks with a JSON of channel names beside them ({len(described)} files)",
        places_are_positions=not told,
    )
    sizes = {_size(content.get("spatial_calibration")) for _, content in described.values()} - {None}
    if len(sizes) == 1:
        found.pixel_size_um = sizes.pop()
    elif sizes:
        found.tell(f"the stacks tell {len(sizes)} different pixel sizes: none is taken")
    return found


def _content(path: Path) -> dict[str, Any] | None:
    """What a JSON file tells, when it lists channels by distinct names."""
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    names = content.get("channels") if isinstance(content, dict) else None
    usable = isinstance(names, list) and names and len({str(name) for name in names}) == len(names)
    return content if usable else None


def _size(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value <= 1000 else None
