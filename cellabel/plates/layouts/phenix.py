"""Opera Phenix and Operetta exports: `r<row>c<column>f<field>p<plane>-ch<channel>sk<time>fk1fl1.tiff`.

`Index.xml` or `Index.idx.xml` beside or above the images tells channel names, pixel size, plate and time.

Source: Harmony exports as in JUMP-CP and the pediatric cancer atlas; element names as in Harmony's files.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cellabel.errors import InputError
from cellabel.plates._images import DECODE_ERRORS
from cellabel.plates._issues import Issue
from cellabel.plates._metadata import LayoutFile
from cellabel.plates._wells import well_name
from cellabel.plates.layouts._base import Found, Plane

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
        well = well_name(int(match["row"]), int(match["column"]))
        channel, time, z = f"ch{int(match['channel'])}", int(match["time"] or 1), int(match["plane"])
        planes.append(Plane(path, well, int(match["field"]), channel, time, z))
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
    """Channel names, pixel size, plate and time; reading stops when all are known."""
    wanted = {plane.channel for plane in found.planes}
    channel = None
    try:
        for _event, element in ElementTree.iterparse(path):
            tag, text = element.tag.rpartition("}")[2], (element.text or "").strip()
            if tag == "ChannelID":
                channel = f"ch{text}"
            elif tag == "ChannelName" and channel in wanted:
                found.names.setdefault(channel or "", text)
            elif tag == "ImageResolutionX" and found.pixel_size_um is None:
                found.pixel_size_um = float(text) * 1e6 or None
            elif tag == "AbsTime" and found.acquired_at is None:
                found.acquired_at = _aware(text)
            elif tag == "PlateID" and text and found.plate_id is None:
                found.plate_id = text
            elif tag == "InstrumentType" and found.instrument is None:
                found.instrument = text
            element.clear()
            if found.acquired_at and found.pixel_size_um and wanted <= set(found.names):
                break
    except (OSError, ValueError, ElementTree.ParseError) as error:
        found.issues.append(Issue(None, None, None, f"{path.name} cannot be read to its end ({error})"))
    found.why += f", channels named in {path.name}"


def _time_in_tag(path: Path) -> datetime | None:
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tif:
            tag = tif.pages.first.tags.get(_TAG)
            text = bytes(tag.value).decode("utf-8", "replace") if tag is not None else ""
    except DECODE_ERRORS:
        return None  # a damaged image is told of when its pixels are verified
    match = re.search(r"<AbsTime>([^<]+)</AbsTime>", text)
    return _aware(match[1]) if match else None


def _aware(text: str) -> datetime | None:
    """An ISO 8601 time; Harmony writes seven decimals of a second."""
    try:
        taken = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.strip()))
    except ValueError:
        return None
    return taken.astimezone(UTC) if taken.tzinfo else taken.replace(tzinfo=UTC)
