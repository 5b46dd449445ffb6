"""What every layout takes and gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cellabel.plates._issues import Issue
from cellabel.plates._wells import normal_well

if TYPE_CHECKING:
    from cellabel.plates._metadata import LayoutFile


@dataclass(frozen=True)
class Plane:
    """One image, as its name tells.

    Attributes:
        path: the file, or the folder of a zarr array.
        place: well ("A01") or the name of a position that is still to be given a well.
        site, time, z: numbers as in the name; 1 where the name has none.
        channel: the vendor's key of the channel ("1", "ch2", "bf").
        page: which plane of the file; None where the planes of the file are a focus series.
        of: how many planes the file must hold for `page` to mean what it says; 0 where it says so itself.
        samples_are_planes: the samples of its pixels are planes of a stack, not a colour.
        absent: the vendor's records list it, but there is no such file.
    """

    path: Path
    place: str
    site: int
    channel: str
    time: int = 1
    z: int = 1
    page: int | None = None
    of: int = 1
    samples_are_planes: bool = False
    absent: bool = False


@dataclass
class Found:
    """What a layout makes of a folder.

    Attributes:
        planes: the images.
        why: how the files were recognised, for people.
        names: channel key → the vendor's name of the channel.
        hints: channel key → what else tells its role, the surest first (a dye, "transmission", "461 nm").
        places_are_positions: the places have no well yet.
        left_out: files that the layout knows, and leaves out on purpose.
        sources: the files that were understood, where they are not the paths of `planes`.
    """

    planes: list[Plane]
    why: str
    names: dict[str, str] = field(default_factory=dict)
    hints: dict[str, tuple[str, ...]] = field(default_factory=dict)
    places_are_positions: bool = False
    left_out: set[Path] = field(default_factory=set)
    sources: set[Path] = field(default_factory=set)
    plate_id: str | None = None
    pixel_size_um: float | None = None
    instrument: str | None = None
    acquired_at: datetime | None = None
    issues: list[Issue] = field(default_factory=list)

    @property
    def files(self) -> set[Path]:
        """The files that were understood."""
        return self.sources or {plane.path for plane in self.planes if not plane.absent}

    def tell(self, reason: str, well: str | None = None) -> None:
        """Note something that the reader should know."""
        self.issues.append(Issue(well, None, None, reason))


def aware(text: str) -> datetime | None:
    """An ISO 8601 time in UTC, which is also taken where no zone is told; None where it is none."""
    try:
        # Harmony and CellVoyager write seven decimals of a second.
        taken = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.strip()))
    except ValueError:
        return None
    return taken.astimezone(UTC) if taken.tzinfo else taken.replace(tzinfo=UTC)


_WELL = re.compile(r"(?:(?<![A-Za-z0-9])|(?<=[Ww]ell))([A-Z]{1,2})[/_ -]?(\d{1,2})(?![A-Za-z0-9])")


def find_well(text: str) -> str | None:
    """The well that a name tells by a part of its own ("Well_A01 field 3" is A01), or None."""
    for match in _WELL.finditer(text):
        well = normal_well(match[1] + match[2])
        if well is not None:
            return well
    return None


Layout = Callable[[Path, Sequence[Path], "LayoutFile"], Found | None]
"""`(folder, files, settings)` → what is found, None where no file is named so. Nothing is decoded."""
