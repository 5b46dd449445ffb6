"""OME-TIFF: the OME-XML in the files tells plate, wells, fields, channels, planes and pixel size.

Images that no plate names get their well from their own name, else they are positions.

Source: the OME data model, https://docs.openmicroscopy.org/ome-model/6.3.1/
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from cellabel.errors import InputError
from cellabel.plates._images import DECODE_ERRORS, MAX_PLANES
from cellabel.plates._metadata import LAYOUT_FILE, LayoutFile
from cellabel.plates._wells import well_name
from cellabel.plates.layouts._base import Found, Plane, aware, find_well

_MICROMETRES = {"µm": 1.0, "μm": 1.0, "nm": 1e-3, "mm": 1e3, "m": 1e6, "": 1.0}
_Place = tuple[str, int]


def find(folder: Path, files: Sequence[Path], settings: LayoutFile) -> Found | None:
    """The images of one plate of OME-TIFF files.

    Raises:
        InputError: the files describe several plates.
    """
    tiffs = [path for path in files if path.suffix.lower() in (".tif", ".tiff")]
    if not tiffs or _description(tiffs[0]) is None:
        return None
    beside = {path.name: path for path in tiffs}
    found = Found([], "")
    seen: set[str] = set()
    plates: set[str] = set()
    places: dict[str, _Place] = {}
    wanted = settings.only.get("plate")
    number = 0
    for path in tiffs:
        text = _description(path)
        if text is None or (text in seen and "FileName=" in text):  # each file may describe the whole set
            found.left_out |= {path} if text is None else set()
            continue
        number += 1
        seen.add(text)
        try:
            root = ElementTree.fromstring(text)
        except (ElementTree.ParseError, ValueError) as error:
            found.tell(f"the OME-XML of {path.name} cannot be read ({error})")
            continue
        for plate in _all(root, "Plate"):
            name = plate.get("Name") or plate.get("ID") or "plate"
            if wanted and name not in (wanted if isinstance(wanted, list) else [wanted]):
                continue
            plates.add(name)
            places |= {f"{number} {image}": place for image, place in _places(plate)}
        _read_images(root, number, path, beside, places, found)
    if not found.planes:
        return None
    if len(plates) > 1:
        raise InputError(
            f"{folder} holds OME-TIFF images of {len(plates)} plates ({', '.join(sorted(plates)[:5])}): "
            f"choose one in a {LAYOUT_FILE} with `layout: ome_tiff` and `only: {{plate: …}}`."
        )
    found.plate_id = next(iter(plates), None)
    if plates:
        named = {place for place, _ in places.values()}
        others = [plane for plane in found.planes if plane.place not in named]
        found.planes = [plane for plane in found.planes if plane.place in named]
        if others:
            found.tell(f"planes of images that belong to no well of the plate were left out: {len(others)}")
    else:
        _wells_by_name(found)
    found.planes = list(dict.fromkeys(found.planes))
    found.sources = {plane.path for plane in found.planes}
    found.left_out |= set(tiffs) - found.sources
    told = f"plate {found.plate_id}" if plates else "no plate"
    found.why = f"OME-TIFF whose OME-XML names {told} ({len(found.sources)} files)"
    return found if found.planes else None


def _description(path: Path) -> str | None:
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tif:
            return tif.ome_metadata
    except DECODE_ERRORS:
        return None  # a damaged image is told of when its pixels are verified


def _all(element: ElementTree.Element, tag: str) -> Iterator[ElementTree.Element]:
    return (one for one in element.iter() if one.tag.rpartition("}")[2] == tag)


def _places(plate: ElementTree.Element) -> Iterator[tuple[str, _Place]]:
    """Image id → well and site, as the plate's wells refer to them."""
    for well in _all(plate, "Well"):
        name = well_name(int(well.get("Row", -1)) + 1, int(well.get("Column", -1)) + 1)
        for site, sample in enumerate(_all(well, "WellSample"), start=1):
            for image in _all(sample, "ImageRef"):
                yield image.get("ID", ""), (name, site)


def _read_images(
    root: ElementTree.Element,
    number: int,
    path: Path,
    beside: dict[str, Path],
    places: dict[str, _Place],
    found: Found,
) -> None:
    """The planes of every image that one OME-XML describes."""
    first = 0
    for image in _all(root, "Image"):
        pixels = next(_all(image, "Pixels"), None)
        if pixels is None:
            continue
        name = image.get("Name", "")
        own = name if find_well(name) or not name else f"{path.stem} {name}"
        place = places.get(f"{number} {image.get('ID', '')}") or (own or path.stem, 1)
        keys = _channels(pixels, found)
        sizes = {axis: int(pixels.get(f"Size{axis}", 1)) for axis in "CZT"}
        if not all(1 <= side <= MAX_PLANES for side in sizes.values()):
            raise InputError(f"{path} claims {sizes} planes in its OME-XML: export it again.")
        count = 0
        for at, file, ifd in _stored(pixels, sizes, path, first):
            home = beside.get(file)
            key = keys[at["C"]] if at["C"] < len(keys) else f"{at['C'] + 1}"
            target = home if home is not None else path.parent / file
            plane = Plane(target, *place, key, at["T"] + 1, at["Z"] + 1, page=ifd, of=0, absent=home is None)
            found.planes.append(plane)
            count += 1
        first += count
        if found.pixel_size_um is None and pixels.get("PhysicalSizeX"):
            factor = _MICROMETRES.get(pixels.get("PhysicalSizeXUnit", ""), 0.0)
            size = float(pixels.get("PhysicalSizeX", 0)) * factor
            found.pixel_size_um = size if 0 < size <= 1000 else None
        taken = next(_all(image, "AcquisitionDate"), None)
        if found.acquired_at is None and taken is not None and taken.text:
            found.acquired_at = aware(taken.text)


def _channels(pixels: ElementTree.Element, found: Found) -> list[str]:
    """Keys of the channels in order; their names and what else tells their roles are noted."""
    keys = []
    for number, channel in enumerate(_all(pixels, "Channel"), start=1):
        name = channel.get("Name") or ""
        key = name or f"{number}"
        emission, method = channel.get("EmissionWavelength"), channel.get("ContrastMethod", "")
        hints = (
            "transmitted" if channel.get("IlluminationType") == "Transmitted" else "",
            channel.get("Fluor", ""),
            "" if method.lower() == "fluorescence" else method,
            f"{emission} nm" if emission else "",
        )
        keys.append(key)
        found.hints.setdefault(key, tuple(hint for hint in hints if hint))
    return keys


def _stored(
    pixels: ElementTree.Element, sizes: dict[str, int], path: Path, first: int
) -> Iterator[tuple[dict[str, int], str, int]]:
    """Channel, z and time of every plane, and the file and page in which it lies."""
    order = [axis for axis in pixels.get("DimensionOrder", "XYZCT")[2:] if axis in sizes]
    order += [axis for axis in "ZCT" if axis not in order]
    every = [
        dict(zip(reversed(order), at, strict=True))
        for at in product(*(range(sizes[axis]) for axis in reversed(order)))
    ]
    blocks = list(_all(pixels, "TiffData"))
    if not any(block.get("IFD") or block.get("FirstC") or len(block) for block in blocks):
        yield from ((at, path.name, first + k) for k, at in enumerate(every))
        return
    numbers = {tuple(sorted(at.items())): k for k, at in enumerate(every)}
    for block in blocks:
        start = {axis: int(block.get(f"First{axis}", 0)) for axis in "CZT"}
        begin = numbers.get(tuple(sorted(start.items())), 0)
        single = bool(block.get("FirstC") or block.get("FirstZ") or block.get("FirstT"))
        count = int(block.get("PlaneCount", 1 if single or block.get("IFD") else len(every)))
        uuid = next(_all(block, "UUID"), None)
        # Only the last part of what the file calls another file is used: no path leaves the folder.
        file = (uuid.get("FileName") or path.name) if uuid is not None else path.name
        file = file.replace("\\", "/").rsplit("/", 1)[-1]
        for k in range(max(0, min(count, len(every) - begin))):
            yield every[begin + k], file, int(block.get("IFD", 0)) + k


def _wells_by_name(found: Found) -> None:
    """Images that no plate names: wells by their names when every one tells another, else positions."""
    wells = {plane.place: find_well(plane.place) for plane in found.planes}
    if all(wells.values()) and len(set(wells.values())) == len(wells):
        found.planes = [
            Plane(**{**plane.__dict__, "place": wells[plane.place] or ""}) for plane in found.planes
        ]
    else:
        found.places_are_positions = True
