"""Nikon ND2 and Leica LIF files, which hold many fields each: read by bioio, when it is installed.

A scene's name, else the file's, tells the well ("A01", "A/1", "WellA01_…"); otherwise files are positions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cellabel.errors import InputError
from cellabel.plates._bioio import READERS, container_planes, container_reader
from cellabel.plates._images import DECODE_ERRORS
from cellabel.plates._metadata import LayoutFile
from cellabel.plates.layouts._base import Found, Plane, find_well


def find(folder: Path, files: Sequence[Path], settings: LayoutFile) -> Found | None:
    """The scenes of the ND2 and LIF files of one plate.

    Raises:
        InputError: the package that reads such files is not installed.
    """
    found = Found([], "")
    for path in files:
        if path.suffix.lower() in READERS:
            try:
                _read(path, found)
            except InputError:
                raise
            except DECODE_ERRORS as error:
                found.left_out.add(path)
                found.tell(f"{path.name} cannot be read ({' '.join(str(error).split())[:120]})")
    if not found.planes:
        return None
    wells = {plane.place: find_well(plane.place) for plane in found.planes}
    if all(wells.values()):
        found.planes = [replace(plane, place=wells[plane.place] or "") for plane in found.planes]
    else:
        found.places_are_positions = True
    found.planes = _numbered(found.planes)
    found.why = f"scenes of ND2 or LIF files ({len(found.files)} files)"
    return found


def _read(path: Path, found: Found) -> None:
    reader = container_reader(path)
    places = list(container_planes(reader))
    names = {scene: _scene_name(str(reader.scenes[scene]), path) for scene in {at.scene for at in places}}
    labels: dict[int, list[str]] = {}
    for scene in names:
        reader.set_scene(scene)
        labels[scene] = [str(name) for name in reader.channel_names or []]
        size = reader.physical_pixel_sizes.X
        if found.pixel_size_um is None and size and 0 < size <= 1000:
            found.pixel_size_um = float(size)
    for page, at in enumerate(places):
        own = labels[at.scene]
        channel = own[at.channel] if at.channel < len(own) else str(at.channel + 1)
        found.planes.append(
            Plane(path, names[at.scene], at.scene + 1, channel, at.time + 1, at.z + 1, page, len(places))
        )


def _scene_name(scene: str, path: Path) -> str:
    """The scene where its name tells a well, else the file."""
    return scene if find_well(scene) else path.stem


def _numbered(planes: list[Plane]) -> list[Plane]:
    """Sites of one place numbered from 1, by file and scene."""
    numbers: dict[tuple[str, Path, int], int] = {}
    counts: Counter[str] = Counter()
    for plane in planes:
        key = (plane.place, plane.path, plane.site)
        if key not in numbers:
            counts[plane.place] += 1
            numbers[key] = counts[plane.place]
    return [replace(plane, site=numbers[plane.place, plane.path, plane.site]) for plane in planes]
