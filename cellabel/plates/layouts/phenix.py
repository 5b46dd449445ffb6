"""Opera Phenix and Operetta exports: `r<row>c<column>f<field>p<plane>-ch<channel>sk<time>fk1fl1.tiff`.

`Index.xml` or `Index.idx.xml` beside or above the images tells channel names, pixel size, plate and time, and
lists the images that were taken.

Source: Harmony exports as in JUMP-CP and the pediatric cancer atlas; element names as in Harmony's files.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from cellabel.errors import InputError
from cellabel.plates._images import DECODE_ERRORS
from cellabel.plates._metadata import LayoutFile
from cellabel.plates._wells import well_name
from cellabel.plates.layouts._base import Found, Plane, aware

_NAME = re.compile(
    r"r(?P<row>\d{1,2})c(?P<column>\d{1,2})f(?P<field>\d{1,4})p(?P<plane>\d{1,4})-ch(?P<channel>\d{1,2})"
    r"(?:sk(?P<time>\d{1,5}))?(?:fk\d+)?(?:fl\d+)?\.tiff?",
    re.IGNORECASE,
)
_TAG = 65500


def find(folder: Path, files: Sequence[Path], settings: LayoutFile) -> Found | None:
    """The images of one Phenix or Operetta measurement.

    Raises:
        InputError: the images lie in several folders, so that there are several measurements.
    """
    planes: list[Plane] = []
    homes: set[str] = set()
    for path in files:
        match = _NAME.fullmatch(path.name)
        if match is None or not (1 <= int(match["row"]) <= 32 and 1 <= int(match["column"]) <= 48):
            continue
        homes.add(path.relative_to(folder).parent.as_posix())
        planes.append(_plane(path, match))
    if not planes:
        return None
    if len(homes) > 1:
        raise InputError(
            f"{folder} holds images of {len(homes)} Phenix measurements ({', '.join(sorted(homes)[:5])}): "
            "open the folder of one of them."
        )
    found = Found(planes, f"named r<row>c<column>f<field>p<plane>-ch<channel>… ({len(planes)} files)")
    index = [path for path in files if path.name.lower() in ("index.xml", "index.idx.xml")]
    if index:
        _read_index(index[0], found)
    if found.acquired_at is None:
        found.acquired_at = _time_in_tag(planes[0].path)
    return found


def _read_index(path: Path, found: Found) -> None:
    """Channels, pixel size, plate and time; and the images that should be there."""
    known = {plane.path.name for plane in found.planes}
    home = found.planes[0].path.parent
    absent: list[Plane] = []
    try:
        for element in _elements(path, found):
            if element.get("ChannelID"):
                _read_channel(f"ch{element['ChannelID']}", element, found)
            # Only the last part of what the file calls an image is used: no path leaves the folder.
            name = re.split(r"[\\/]", element.get("URL", ""))[-1]
            match = _NAME.fullmatch(name)
            if match is not None and name not in known:
                known.add(name)
                absent.append(_plane(home / name, match, absent=True))
    except (OSError, ValueError, InputError, ElementTree.ParseError) as error:
        found.tell(f"{path.name} cannot be read to its end ({error})")
    if absent:
        found.planes += absent
        found.tell(f"images that {path.name} lists and that are not there: {len(absent)}")
    found.why += f", channels named in {path.name}"


def _elements(path: Path, found: Found) -> Iterator[dict[str, str]]:
    """The texts of every `Image`, and of every `Entry` of a map, freed one after the other."""
    for _event, element in ElementTree.iterparse(path):
        tag, text = element.tag.rpartition("}")[2], (element.text or "").strip()
        if tag in ("Image", "Entry"):
            texts = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in element}
            yield {**dict(element.attrib), **texts}
            element.clear()
        elif tag == "PlateID" and text and found.plate_id is None:
            found.plate_id = text
        elif tag == "InstrumentType" and found.instrument is None:
            found.instrument = text


def _read_channel(key: str, told: Mapping[str, str], found: Found) -> None:
    if told.get("ChannelName"):
        found.names.setdefault(key, told["ChannelName"])
    emission = told.get("MainEmissionWavelength", "")
    hints = [told.get("ChannelType", ""), told.get("IlluminationType", ""), emission and f"{emission} nm"]
    if any(hints):
        found.hints.setdefault(key, tuple(hint for hint in hints if hint))
    if found.pixel_size_um is None and told.get("ImageResolutionX"):
        found.pixel_size_um = float(told["ImageResolutionX"]) * 1e6 or None
    if found.acquired_at is None and told.get("AbsTime"):
        found.acquired_at = aware(told["AbsTime"])


def _plane(path: Path, match: re.Match[str], *, absent: bool = False) -> Plane:
    well = well_name(int(match["row"]), int(match["column"]))
    channel, time, z = f"ch{int(match['channel'])}", int(match["time"] or 1), int(match["plane"])
    return Plane(path, well, int(match["field"]), channel, time, z, absent=absent)


def _time_in_tag(path: Path) -> datetime | None:
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tif:
            tag = tif.pages.first.tags.get(_TAG)
            text = bytes(tag.value).decode("utf-8", "replace") if tag is not None else ""
    except DECODE_ERRORS:
        return None  # a damaged image is told of when its pixels are verified
    match = re.search(r"<AbsTime>([^<]+)</AbsTime>", text)
    return aware(match[1]) if match else None
