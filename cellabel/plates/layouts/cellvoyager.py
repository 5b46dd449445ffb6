"""Yokogawa CellVoyager exports: `<plate>_<well>_T<time>F<field>L..A..Z<plane>C<channel>.tif` (or `.png`).

`MeasurementData.mlf` beside the images lists every image that was taken, `MeasurementDetail.mrf` tells plate,
time, pixel size and the `.mes` file, which names the channels. Without them the names alone are read.

Source: element names as in CV7000 and CV8000 exports and fractal-uzh-converters' CellVoyager examples.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path

from cellabel.errors import InputError
from cellabel.plates._metadata import LayoutFile
from cellabel.plates._wells import normal_well, well_name
from cellabel.plates.layouts._base import Found, Plane, aware

_NAME = re.compile(
    r"(?P<plate>.+)_(?P<well>[A-Z]{1,2}\d{2})_T(?P<time>\d{1,4})F(?P<field>\d{1,4})L\d{1,3}A\d{1,3}"
    r"Z(?P<z>\d{1,4})C(?P<channel>\d{1,2})\.(?:tiff?|png)",
    re.IGNORECASE,
)
_SKIPPED = ("SC_BP", "DC_")  # shading and dark corrections that the instrument puts beside the images


def find(folder: Path, files: Sequence[Path], settings: LayoutFile) -> Found | None:
    """The images of one CellVoyager measurement.

    Raises:
        InputError: the images lie in several folders, so that there are several measurements.
    """
    named = {path: match for path in files if (match := _NAME.fullmatch(path.name)) is not None}
    if not named:
        return None
    homes = {path.parent for path in named}
    if len(homes) > 1:
        told = ", ".join(sorted(home.relative_to(folder).as_posix() for home in homes)[:5])
        raise InputError(
            f"{folder} holds images of {len(homes)} CellVoyager measurements ({told}): open one of them."
        )
    planes = [plane for path, match in named.items() if (plane := _by_name(path, match)) is not None]
    if not planes:
        return None
    found = Found(planes, f"named <plate>_<well>_T…F…L…A…Z…C… ({len(planes)} files)")
    found.plate_id = next(iter(named.values()))["plate"]
    found.left_out = {p for p in files if p.parent in homes and p.name.startswith(_SKIPPED)}
    beside = {path.name.lower(): path for path in files if path.parent in homes}
    for path in beside.values():
        if path.suffix.lower() == ".mlf":
            _read_records(path, found)
    for path in beside.values():
        if path.suffix.lower() == ".mrf":
            _read_detail(path, beside, found)
    return found


def _by_name(path: Path, match: re.Match[str]) -> Plane | None:
    well = normal_well(match["well"])
    if well is None:
        return None
    site, channel, time, z = (int(match[name]) for name in ("field", "channel", "time", "z"))
    return Plane(path, well, site, str(channel), time, z)


def _read_records(path: Path, found: Found) -> None:
    """Every image that was taken: those of the names that are not listed are no images of the plate."""
    known = {plane.path.name: plane for plane in found.planes}
    listed: list[Plane] = []
    errors = 0
    try:
        for element in _elements(path, "MeasurementRecord"):
            record = _attributes(element)
            if record.get("Type") != "IMG":
                errors += record.get("Type") == "ERR"
                continue
            # Only the last part of what the file calls an image is used: no path leaves the folder.
            name = re.split(r"[\\/]", (element.text or "").strip())[-1]
            plane = Plane(
                path.parent / name,
                well_name(int(record["Row"]), int(record["Column"])),
                int(record["FieldIndex"]),
                str(int(record["Ch"])),
                int(record.get("TimePoint", 1)),
                int(record.get("ZIndex", 1)),
                absent=name not in known,
            )
            listed.append(plane)
    except (OSError, ValueError, KeyError, InputError, ElementTree.ParseError) as error:
        found.tell(f"{path.name} cannot be read to its end ({error}): names alone are read")
        return
    if not listed:
        return
    names = {plane.path.name for plane in listed}
    if unlisted := [plane for plane in found.planes if plane.path.name not in names]:
        found.tell(f"images that {path.name} does not list were left out: {len(unlisted)}")
        found.left_out |= {plane.path for plane in unlisted}
    if errors:
        found.tell(f"{path.name} records {errors} errors of the instrument")
    if lost := sum(plane.absent for plane in listed):
        found.tell(f"images that {path.name} lists and that are not there: {lost}")
    found.planes = listed
    found.why += f", as {path.name} lists them"


def _read_detail(path: Path, beside: dict[str, Path], found: Found) -> None:
    try:
        root = next(_elements(path, "MeasurementDetail"), None)
        if root is None:
            return
        detail = _attributes(root)
        found.acquired_at = aware(detail.get("BeginTime", ""))
        found.instrument = detail.get("TargetSystem") or None
        for element in root.iter():
            own = _attributes(element)
            if _tag(element) == "MeasurementSamplePlate" and own.get("Name"):
                found.plate_id = own["Name"]
            elif _tag(element) == "MeasurementChannel" and found.pixel_size_um is None:
                found.pixel_size_um = float(own["HorizontalPixelDimension"]) or None
        setting = beside.get(re.split(r"[\\/]", detail.get("MeasurementSettingFileName", ""))[-1].lower())
        if setting is not None:
            _read_setting(setting, found)
    except (OSError, ValueError, KeyError, ElementTree.ParseError) as error:
        found.tell(f"{path.name} cannot be read to its end ({error})")


def _read_setting(path: Path, found: Found) -> None:
    """Channel names, and what else tells their roles."""
    for element in _elements(path, "Channel"):
        own = _attributes(element)
        if "Ch" not in own:
            continue
        key = str(int(own["Ch"]))
        if own.get("Target"):
            found.names[key] = own["Target"]
        band = re.match(r"BP(\d{3})", own.get("Acquisition", ""))
        bright = "brightfield" in own.get("Kind", "").lower() or "phase" in own.get("Kind", "").lower()
        found.hints[key] = ("brightfield",) if bright else ((f"{band[1]} nm",) if band else ())
    found.why += f", channels named in {path.name}"


def _elements(path: Path, tag: str) -> Iterator[ElementTree.Element]:
    """Elements of one tag, freed one after the other: the list of a plate has hundreds of thousands."""
    for _event, element in ElementTree.iterparse(path):
        if _tag(element) == tag:
            yield element
            element.clear()


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _attributes(element: ElementTree.Element) -> dict[str, str]:
    return {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
