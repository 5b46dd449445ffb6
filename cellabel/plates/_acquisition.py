"""A folder of images as an instrument left it, read by one of the layouts. Nothing is written."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellabel.errors import InputError
from cellabel.plates._checksums import Checksums, check_metadata, read_checksums
from cellabel.plates._folders import IMAGE_SUFFIXES, acquisition_files, image_files
from cellabel.plates._issues import Issue
from cellabel.plates._metadata import (
    LAYOUT_FILE,
    AcquisitionFile,
    LayoutFile,
    read_acquisition_file,
    read_layout_file,
)
from cellabel.plates._places import give_wells, times_to_sites
from cellabel.plates._plan import PLAN_FILE, plan_records, plan_wells_not_imaged, read_plan
from cellabel.plates._roles import channel_roles, role_order
from cellabel.plates._verification import (
    TRANSMITTED,
    Slot,
    Verified,
    as_issues,
    effect_of_lacking,
    read_verified,
    verify,
)
from cellabel.plates._wells import well_order
from cellabel.plates.layouts import LAYOUTS, Found, Plane
from cellabel.stores import check_plate_id

if TYPE_CHECKING:
    import pandas as pd

STORED_FORMAT = 3
"""Enters the content hash, so that plates are written anew when the way in which they are stored changes."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What a folder of images holds. Opening lists the files; asking for `issues` decodes them.

    Attributes:
        folder: where it lies.
        layout, explanation: the layout that reads it, and why that one.
        plate_id: from acquisition.json or layout.yaml, the vendor's files, else the folder's name.
        wells: imaged wells, row by row.
        fields: `(well, site)` of every field, bad ones included.
        channels: roles, `transmitted` first; an unknown channel keeps its own name.
        pixel_size_um: side of a pixel, µm; None where nobody tells.
        acquired_at: aware datetime, or None.
        instrument: which microscope; "" where nobody tells.
        plan: the plate plan, index `Metadata_Well`, or None.
    """

    folder: Path
    layout: str
    explanation: str
    plate_id: str
    wells: list[str]
    fields: list[tuple[str, int]]
    channels: list[str]
    pixel_size_um: float | None
    acquired_at: datetime | None
    instrument: str
    plan: pd.DataFrame | None
    listing_issues: list[Issue] = field(repr=False)
    slots: dict[Slot, list[Plane]] = field(repr=False)
    checksums: Checksums = field(repr=False)

    @cached_property
    def images(self) -> dict[Slot, Verified]:
        """Every image after one look at its pixels, in the order of `fields` and `channels`."""
        found = verify(self.slots, self.folder, self.checksums)
        return {
            (well, site, role): found[well, site, role]
            for well, site in self.fields
            for role in self.channels
            if (well, site, role) in found
        }

    @cached_property
    def issues(self) -> list[Issue]:
        """All that is wrong or worth knowing; every image is decoded once to find it."""
        missing = [
            Issue(well, site, role, "no image", effect_of_lacking(role))
            for well, site in self.fields
            for role in self._expected
            if (well, site, role) not in self.slots
        ]
        return self.listing_issues + sorted(missing + as_issues(self.images), key=lambda issue: issue.order)

    @cached_property
    def quarantined(self) -> dict[tuple[str, int], str]:
        """Fields without a usable transmitted-light image, and why."""
        reasons = {}
        for well, site in self.fields:
            image = self.images.get((well, site, TRANSMITTED))
            if image is None:
                reasons[well, site] = "no transmitted-light image"
            elif image.bad is not None:
                reasons[well, site] = image.bad
        return reasons

    @cached_property
    def missing(self) -> dict[tuple[str, int], dict[str, str]]:
        """Fields that are kept but lack stains: role → why."""
        lacking: dict[tuple[str, int], dict[str, str]] = {}
        for well, site in self.fields:
            if (well, site) in self.quarantined:
                continue
            for role in self.channels:
                image = self.images.get((well, site, role))
                if image is None or image.bad is not None:
                    lacking.setdefault((well, site), {})[role] = (image and image.bad) or "no image"
        return lacking

    @cached_property
    def content_hash(self) -> str:
        """A digest of pixels, roles, plan and what is known of the acquisition.

        It does not depend on names or times of files and folders, nor on how the files were compressed.
        """
        content = {
            "format": STORED_FORMAT,
            "pixel_size_um": self.pixel_size_um,
            "acquired_at": self.acquired_at.isoformat() if self.acquired_at else None,
            "instrument": self.instrument,
            "channels": self.channels,
            "plan": plan_records(self.plan) if self.plan is not None else None,
            "images": [
                [*slot, image.sharpest, *(plane.digest for plane in image.planes)]
                for slot, image in self.images.items()
                if image.bad is None
            ],
            "quarantined": sorted([*key, reason] for key, reason in self.quarantined.items()),
            "missing": sorted([*key, sorted(roles.items())] for key, roles in self.missing.items()),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def image(self, well: str, site: int, channel: str) -> np.ndarray:
        """The image of one field in one role (of a focus series the sharpest), `(H, W)` of the file's type.

        Raises:
            InputError: no such field or channel, or the image cannot be used.
        """
        found = self._usable(well, site, channel)
        return read_verified(found.planes[found.sharpest])

    def stack(self, well: str, site: int, channel: str) -> Planes:
        """All planes of one field in one role, read one by one when asked for.

        Raises:
            InputError: no such field or channel, or the image cannot be used.
        """
        return Planes(self._usable(well, site, channel))

    def _usable(self, well: str, site: int, channel: str) -> Verified:
        if (well, site, channel) not in self.slots:
            has = f"channels {', '.join(self.channels)}" if (well, site) in self.fields else "no such field"
            raise InputError(f"{self.folder} holds no {channel} image of well {well} site {site} ({has}).")
        verified = self.images[well, site, channel]
        if verified.bad is not None:
            raise InputError(
                f"The {channel} image of well {well} site {site} cannot be used: {verified.bad}."
            )
        return verified

    @property
    def _expected(self) -> list[str]:
        return self.channels if TRANSMITTED in self.channels else [TRANSMITTED, *self.channels]


class Planes(Sequence[np.ndarray]):
    """The planes of one field in one role, `(H, W)` each, decoded when asked for.

    Raises (when a plane is asked for):
        InputError: it can no longer be read, or has changed since it was verified.
    """

    def __init__(self, verified: Verified) -> None:
        self._verified = verified

    def __len__(self) -> int:
        return len(self._verified.planes)

    def __getitem__(self, z: Any) -> Any:
        return read_verified(self._verified.planes[z])


def open_acquisition(
    folder: str | PathLike[str],
    layout: str | PathLike[str] | None = None,
    *,
    channels: Mapping[str, str] | None = None,
) -> Acquisition:
    """Find the images of one plate in a folder; nothing is written.

    Args:
        folder: the folder; files in `truth/`, hidden files and links are left out.
        layout: a name in `LAYOUTS`, or the path of a `layout.yaml` that lies elsewhere. Without it, a
            `layout.yaml` in the folder decides, else the vendor layout that names most of the files.
        channels: channel name → role, where neither `layout.yaml` nor `acquisition.json` tells it.

    Raises:
        InputError: no folder, no images, no layout that knows their names, several plates, a plate id that
            cannot be used, or an unusable acquisition.json, layout.yaml or plate_plan.csv.
    """
    _require_path(folder, "folder of an acquisition")
    folder = Path(folder)
    files = acquisition_files(folder)
    candidates = image_files(files)
    if not candidates:
        raise InputError(
            f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}, OME-Zarr): name the folder that the "
            "instrument wrote."
        )
    checksums = read_checksums(folder, files)
    check_metadata(checksums, folder, files)
    settings, forced = _settings(folder, layout)
    record = read_acquisition_file(folder) or AcquisitionFile()
    name, found = _find(folder, files, candidates, settings, forced)
    give_wells(found, settings)
    times_to_sites(found)
    roles = channel_roles(found, settings, record, folder, channels or {})
    slots: dict[Slot, list[Plane]] = defaultdict(list)
    places: set[tuple[str, int]] = set()
    for plane in found.planes:
        if plane.channel in roles:
            places.add((plane.place, plane.site))
            if not plane.absent:
                slots[plane.place, plane.site, roles[plane.channel]].append(plane)
    if not slots:
        raise InputError(f"{folder} holds no images of the channels that {LAYOUT_FILE} names.")
    fields = sorted(places, key=lambda key: (well_order(key[0]), key[1]))
    wells = list(dict.fromkeys(well for well, _ in fields))
    _tell_left_out(found, candidates)
    for reason in checksums.gaps(folder, {plane.path for plane in found.planes if not plane.absent}):
        found.tell(reason)
    return Acquisition(
        folder=folder,
        layout=name,
        explanation=found.why,
        plate_id=_plate_id(folder, settings, record, found),
        wells=wells,
        fields=fields,
        channels=sorted(set(roles.values()) & {slot[2] for slot in slots}, key=role_order),
        pixel_size_um=settings.pixel_size_um or record.pixel_size_um or found.pixel_size_um,
        acquired_at=settings.acquired_at or record.acquired_at or found.acquired_at,
        instrument=settings.instrument or record.instrument or found.instrument or "",
        plan=_plan(folder, wells, found),
        listing_issues=found.issues,
        slots=dict(slots),
        checksums=checksums,
    )


def _require_path(given: object, what: str) -> None:
    if not isinstance(given, str | PathLike):
        raise InputError(f"{given!r} is no {what}: give its path.")


def _settings(folder: Path, given: str | PathLike[str] | None) -> tuple[LayoutFile, str | None]:
    """What layout.yaml says, and the layout that is asked for."""
    path = folder / LAYOUT_FILE
    if given is not None:
        _require_path(given, "name of a layout and no layout file")
    layout = None if given is None else str(given)
    if layout is not None and layout not in LAYOUTS:
        if not layout.endswith((".yaml", ".yml")):
            raise InputError(
                f"No layout is called {layout!r}: there are {', '.join(LAYOUTS)}, or name a yaml file."
            )
        path, layout = Path(layout), None
        if not path.is_file():
            raise InputError(f"There is no layout file {path}: give the path of a layout.yaml.")
    settings = read_layout_file(path) if path.is_file() else LayoutFile()
    asked = layout or settings.layout or ("regex" if settings.pattern else None)
    if asked is not None and asked not in LAYOUTS:
        raise InputError(f"{path} asks for the layout {asked!r}: there are {', '.join(LAYOUTS)}.")
    return settings, asked


def _find(
    folder: Path, files: Sequence[Path], candidates: Sequence[Path], settings: LayoutFile, forced: str | None
) -> tuple[str, Found]:
    example = candidates[0].relative_to(folder).as_posix()
    if forced is not None:
        found = LAYOUTS[forced](folder, files, settings)
        if found is None:
            raise InputError(
                f"{folder} holds no image that is named as the layout {forced} names them "
                f"(there is {example!r}): choose another layout or mend the pattern."
            )
        found.why = f"{forced}, as asked for: {found.why}"
        return forced, found
    tried = [name for name in LAYOUTS if name != "regex"]
    all_found: dict[str, Found] = {}
    for name in tried:
        if (found := LAYOUTS[name](folder, files, settings)) is not None:
            all_found[name] = found
            if len(found.files) == len(candidates):
                break  # the layouts that follow open files, which takes long for a large plate
    counts = {name: len(found.files) for name, found in all_found.items()}
    if not counts:
        raise InputError(
            f"{folder} holds no image that one of the layouts {', '.join(tried)} knows (as {example!r}): "
            f"describe the names in a {LAYOUT_FILE} (see plates/README.md)."
        )
    best = max(counts, key=lambda name: counts[name])
    chosen = all_found[best]
    others = [f"{name} only {count}" for name, count in counts.items() if name != best]
    chosen.why = f"{best}: {chosen.why} of {len(candidates)} image files" + "".join(f"; {o}" for o in others)
    return best, chosen


def _tell_left_out(found: Found, candidates: Sequence[Path]) -> None:
    known = found.files | found.left_out
    if others := [path.name for path in candidates if path not in known]:
        shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        reason = f"image files that were not read, as they are named otherwise: {len(others)} ({shown})"
        found.issues.append(Issue(None, None, None, reason))


def _plate_id(folder: Path, settings: LayoutFile, record: AcquisitionFile, found: Found) -> str:
    told = settings.plate_id or record.plate_id
    if told is not None:
        return check_plate_id(told)
    name = found.plate_id or folder.resolve().name
    usable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-")[:100] or "plate"
    if usable != name:
        found.issues.append(
            Issue(None, None, None, f"the plate is called {usable}, as {name!r} cannot name a plate")
        )
    return usable


def _plan(folder: Path, wells: Sequence[str], found: Found) -> pd.DataFrame | None:
    path = folder / PLAN_FILE
    if not path.is_file():
        return None
    plan = read_plan(path)
    absent = plan_wells_not_imaged(plan, wells)
    if len(absent) == len(plan):
        raise InputError(
            f"{path} names none of the imaged wells ({', '.join(wells[:5])}): it is another plate's plan."
        )
    found.issues += [
        Issue(well, None, None, f"{PLAN_FILE} names this well, no image shows it") for well in absent
    ]
    unplanned = [well for well in wells if well not in plan.index]
    found.issues += [Issue(well, None, None, f"imaged, but not in {PLAN_FILE}") for well in unplanned]
    return plan
