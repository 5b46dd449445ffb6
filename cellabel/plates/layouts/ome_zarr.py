"""Plates that are OME-Zarr HCS already: NGFF 0.4 (zarr v2) and 0.5 (zarr v3), whoever wrote them.

Source: https://ngff.openmicroscopy.org/0.4/ and /0.5/.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from cellabel.errors import InputError
from cellabel.plates._images import ImageError
from cellabel.plates._metadata import LayoutFile
from cellabel.plates._wells import normal_well
from cellabel.plates._zarr_images import is_zarr, ome_attributes
from cellabel.plates.layouts._base import Found, Plane

_MICROMETRES = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "meter": 1e6, "angstrom": 1e-4}


def find(folder: Path, files: Sequence[Path], settings: LayoutFile) -> Found | None:
    """The images of one OME-Zarr plate.

    Raises:
        InputError: several plates, or one whose metadata cannot be used.
    """
    homes = [path for path in files if path.is_dir() and is_zarr(path)]
    try:
        stated = {home: ome_attributes(home).get("plate") for home in homes}
        plates = {home: plate for home, plate in stated.items() if isinstance(plate, dict)}
        if not plates:
            return None
        if len(plates) > 1:
            names = ", ".join(sorted(home.name for home in plates)[:5])
            raise InputError(f"{folder} holds {len(plates)} OME-Zarr plates ({names}): open one of them.")
        ((home, plate),) = plates.items()
        return _read(home, plate)
    except (ImageError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"The OME-Zarr plate in {folder} has metadata that cannot be used ({error!r}): write it again."
        ) from error


def _read(home: Path, plate: dict[str, Any]) -> Found:
    found = Found([], "", sources={home})
    series = _own(home).get("focus", {})
    for entry in plate["wells"]:
        parts = _inside(entry["path"])
        well = normal_well("".join(parts))
        if well is None:
            raise ValueError(f"{entry['path']!r} is no well")
        group = home.joinpath(*parts)
        images = [_inside(image["path"]) for image in ome_attributes(group).get("well", {}).get("images", [])]
        if not images:
            found.tell("the well has no images", well)
        for site, image in zip(_sites([parts[-1] for parts in images]), images, strict=True):
            depths = {role: int(n) for role, (n, _) in series.get("/".join((*parts, *image)), {}).items()}
            found.planes += _planes(group.joinpath(*image), well, site, depths, found)
    version = str(plate.get("version") or ome_attributes(home).get("version") or "unknown")
    n_fields = len({(plane.place, plane.site) for plane in found.planes})
    found.why = f"an OME-Zarr plate of NGFF {version} ({n_fields} fields)"
    name = str(plate.get("name") or "")
    found.plate_id = name or home.resolve().name.removesuffix(".zarr")
    if not found.planes:
        raise ValueError("no well has an image")
    return found


def _inside(path: object) -> tuple[str, ...]:
    """The parts of a path in the plate; none may lead out of it."""
    parts = tuple(str(path).strip("/").split("/"))
    if any(part in ("", ".", "..") or "\\" in part for part in parts):
        raise ValueError(f"{path!r} is no path in the plate")
    return parts


def _sites(names: Sequence[str]) -> list[int]:
    """Numbers of images: their names where those are distinct numbers (from 1), else their order."""
    if all(name.isdecimal() for name in names) and len({int(name) for name in names}) == len(names):
        least = min((int(name) for name in names), default=1)
        return [int(name) + (1 if least == 0 else 0) for name in names]
    return list(range(1, len(names) + 1))


def _planes(image: Path, well: str, site: int, depths: Mapping[str, int], found: Found) -> Iterator[Plane]:
    """The planes of one field; `depths` tells how many of a role are not padding, where that is known."""
    attributes = ome_attributes(image)
    multiscale = attributes["multiscales"][0]
    axes = [axis["name"] if isinstance(axis, dict) else str(axis) for axis in multiscale["axes"]]
    if axes[-2:] != ["y", "x"] or set(axes[:-2]) - {"t", "c", "z"}:
        raise ValueError(f"axes {axes} are not read")
    dataset = multiscale["datasets"][0]
    array = image.joinpath(*_inside(dataset["path"]))
    shape = _shape(array)
    if shape is None:
        found.tell(f"site {site} has no array {dataset['path']!r}", well)
        return
    if len(shape) != len(axes):
        raise ValueError(f"an array of shape {shape} has not the axes {axes}")
    labels = [str(channel.get("label") or "") for channel in attributes.get("omero", {}).get("channels", [])]
    lacking = _own(image).get("missing", {})
    if found.pixel_size_um is None:
        found.pixel_size_um = _pixel_size(multiscale, dataset)
    leading = shape[:-2]
    for page, at in enumerate(product(*(range(side) for side in leading))):
        place = dict(zip(axes, at, strict=False))
        c = place.get("c", 0)
        label = labels[c] if c < len(labels) and labels[c] else f"channel {c + 1}"
        if label in lacking or place.get("z", 0) >= depths.get(label, math.inf):
            continue
        # By its name, as fields may hold their channels in different orders.
        key = label if labels.count(label) == 1 else f"c{c + 1}"
        yield Plane(
            array, well, site, key, place.get("t", 0) + 1, place.get("z", 0) + 1, page, math.prod(leading)
        )


def _shape(array: Path) -> tuple[int, ...] | None:
    for name in ("zarr.json", ".zarray"):
        path = array / name
        if path.is_file():
            return tuple(int(side) for side in json.loads(path.read_bytes())["shape"])
    return None


def _own(group: Path) -> dict[str, Any]:
    """What this platform's own plates keep with a plate or field."""
    path = group / "zarr.json"
    content = json.loads(path.read_bytes()) if path.is_file() else {}
    own = content.get("attributes", {}).get("cellabel", {})
    return own if isinstance(own, dict) else {}


def _pixel_size(multiscale: dict[str, Any], dataset: dict[str, Any]) -> float | None:
    axis = multiscale["axes"][-1]
    factor = _MICROMETRES.get(str(axis.get("unit")) if isinstance(axis, dict) else "")
    scales = [
        transformation["scale"][-1]
        for holder in (dataset, multiscale)
        for transformation in holder.get("coordinateTransformations", [])
        if transformation.get("type") == "scale"
    ]
    size = math.prod(float(scale) for scale in scales) * (factor or 0)
    return size if scales and 0 < size <= 1000 else None
