"""What every layout takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cellabel.plates._issues import Issue

if TYPE_CHECKING:
    from cellabel.plates._metadata import LayoutFile


@dataclass(frozen=True)
class Plane:
    """One image, as its name tells.

    Attributes:
        path: the file.
        place: well ("A01") or the name of a position that is still to be given a well.
        site, time, z: numbers as in the name; 1 where the name has none.
        channel: the vendor's key of the channel ("1", "ch2", "bf").
        page: which plane of the file; None where the planes of the file are a focus series.
        of: how many planes the file must hold for `page` to mean what it says.
    """

    path: Path
    place: str
    site: int
    channel: str
    time: int = 1
    z: int = 1
    page: int | None = None
    of: int = 1


@dataclass
class Found:
    """What a layout makes of a folder.

    Attributes:
        planes: the images.
        why: how the files were recognised, for people.
        names: channel key → the vendor's name of the channel.
        places_are_positions: the places have no well yet.
        left_out: files that the layout knows, and leaves out on purpose.
    """

    planes: list[Plane]
    why: str
    names: dict[str, str] = field(default_factory=dict)
    places_are_positions: bool = False
    left_out: set[Path] = field(default_factory=set)
    plate_id: str | None = None
    pixel_size_um: float | None = None
    instrument: str | None = None
    acquired_at: datetime | None = None
    issues: list[Issue] = field(default_factory=list)


Layout = Callable[[Path, Sequence[Path], "LayoutFile"], Found | None]
"""`(folder, files, settings)` → what is found, None where no file is named so. Nothing is decoded."""
