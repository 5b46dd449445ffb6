"""Every image decoded once: what can be used, what cannot and why, and a digest of the pixels that can."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from cellabel.errors import InputError
from cellabel.plates._checksums import Checksums
from cellabel.plates._images import ImageError, focus_score, has_not_finite, open_image, read_plane
from cellabel.plates._issues import Effect, Issue
from cellabel.plates.layouts import Plane

Slot = tuple[str, int, str]
"""Well, site and role."""
TRANSMITTED = "transmitted"
_SLAB_BYTES = 2**18
_Value = TypeVar("_Value", str, tuple[int, int])


@dataclass(frozen=True)
class Source:
    """Where a verified plane lies, how the planes of its file are counted, a digest, a sum of its pixels."""

    path: Path
    page: int
    samples_are_planes: bool
    digest: str
    crc: int


@dataclass(frozen=True)
class Verified:
    """One image, or focus series, that can be used, or why it cannot be.

    Attributes:
        planes: its planes from the first z-step to the last, usually one.
        sharpest: which of them is the sharpest.
        shape, dtype: of each of them.
        note: something to know about it ("plane 3 of 7 is the sharpest").
        bad: why the image cannot be used; None where it can.
    """

    planes: tuple[Source, ...] = ()
    sharpest: int = 0
    shape: tuple[int, int] = (0, 0)
    dtype: str = ""
    note: str = ""
    bad: str | None = None


def pixel_digest(image: np.ndarray) -> str:
    """A digest of an image's pixels, shape and type: SHA-256, which processors have instructions for."""
    state = hashlib.sha256(f"{image.shape} {image.dtype.str}".encode())
    state.update(np.ascontiguousarray(image).data)
    return state.hexdigest()


def pixel_crc(image: np.ndarray) -> int:
    """A sum that tells, ten times as fast as a digest, whether a file is still what was verified."""
    import google_crc32c

    rows, crc = max(1, _SLAB_BYTES // max(1, image[0].nbytes)), 0
    for top in range(0, len(image), rows):  # it takes bytes only: a copy of all would cost more than the sum
        crc = google_crc32c.extend(crc, image[top : top + rows].tobytes())
    return int(crc)


def read_verified(source: Source) -> np.ndarray:
    """The pixels of one verified plane, `(H, W)` of the file's type.

    Raises:
        InputError: the file can no longer be read, or has changed since.
    """
    try:
        pixels = read_plane(source.path, source.page, samples_are_planes=source.samples_are_planes)
    except ImageError as error:
        raise InputError(f"{source.path} can no longer be read: {error}; export it again.") from error
    if pixel_crc(pixels) != source.crc:
        raise InputError(
            f"{source.path} has changed since it was verified: wait until it is whole, then import it again."
        )
    return pixels


def n_workers() -> int:
    """Threads for decoding and writing: one a processor, at most eight."""
    return max(
        1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    )


def verify(
    slots: Mapping[Slot, Sequence[Plane]], folder: Path, checksums: Checksums | None = None
) -> dict[Slot, Verified]:
    """Decode every image; wrong sizes and types are told against the plate's majority.

    Files that a list of checksums names are compared with it.

    Memory holds one or two planes a thread, whatever the size of the plate and of its stacks.
    """
    ordered = sorted(slots)
    checksums = checksums or Checksums({})

    def look(slot: Slot) -> Verified:
        return _verify_one(slots[slot], folder, checksums)

    with ThreadPoolExecutor(n_workers()) as threads:
        found = dict(zip(ordered, threads.map(look, ordered), strict=True))
    return _against_majority(found)


def as_issues(images: Mapping[Slot, Verified]) -> list[Issue]:
    """What `verify` found, as issues."""
    issues = []
    for (well, site, role), image in images.items():
        if image.bad is not None:
            issues.append(Issue(well, site, role, image.bad, effect_of_lacking(role)))
        elif image.note:
            issues.append(Issue(well, site, role, image.note))
    return issues


def effect_of_lacking(role: str) -> Effect:
    """What follows where a field has no usable image in this role."""
    return "field quarantined" if role == TRANSMITTED else "stain missing"


def _verify_one(planes: Sequence[Plane], folder: Path, checksums: Checksums) -> Verified:
    """All planes of one field and channel, in the order of z."""
    by_z: dict[int, list[_Look]] = {}
    names: dict[int, str] = {}
    notes: list[str] = []
    for plane in sorted(planes, key=lambda plane: (plane.z, plane.path)):
        name = plane.path.relative_to(folder).as_posix()
        if damage := checksums.damage(plane.path):
            return Verified(bad=f"{name}: {damage}")
        try:
            looks = _look_at(plane, scored=len(planes) > 1)
        except ImageError as error:
            return Verified(bad=f"{name}: {error}")
        twins = by_z.get(plane.z)
        if twins is None:
            by_z[plane.z], names[plane.z] = looks, name
        elif [look.source.digest for look in twins] == [look.source.digest for look in looks]:
            notes.append(f"{name} repeats {names[plane.z]}")
        else:
            return Verified(bad=f"{names[plane.z]} and {name} are two different images of the same thing")
    looks = [look for z in sorted(by_z) for look in by_z[z]]
    if len({(look.shape, look.dtype) for look in looks}) > 1:
        return Verified(bad=f"{names[min(names)]}: its planes differ in size or type")
    best = max(range(len(looks)), key=lambda k: (looks[k].score, -k))
    if len(looks) == len(by_z) > 1:
        steps = sorted(by_z)
        notes.insert(0, f"z-step {steps[best]} of {', '.join(map(str, steps))} is read, the sharpest")
    elif len(looks) > 1:
        file = looks[best].source.path.relative_to(folder).as_posix()
        notes.insert(0, f"plane {best + 1} of {len(looks)} in {file} is read, the sharpest")
    sources = tuple(look.source for look in looks)
    return Verified(sources, best, looks[best].shape, looks[best].dtype, "; ".join(notes))


@dataclass(frozen=True)
class _Look:
    """What one look at a plane found."""

    source: Source
    shape: tuple[int, int]
    dtype: str
    score: float


def _look_at(plane: Plane, *, scored: bool) -> list[_Look]:
    """The plane that is asked for, else all planes of the file; `scored` by their sharpness.

    Raises:
        ImageError: the file cannot be used.
    """
    looks = []
    split = plane.samples_are_planes
    with open_image(plane.path, samples_are_planes=split) as file:
        n = file.n_planes
        if plane.page is not None and (n != plane.of if plane.of else plane.page >= n):
            raise ImageError(f"it holds {n} planes, not {plane.of or plane.page + 1}")
        for page in range(n) if plane.page is None else [plane.page]:
            pixels = file.plane(page)
            if has_not_finite(pixels):
                raise ImageError("it has pixels that are NaN or infinite")
            score = focus_score(pixels) if scored or (plane.page is None and n > 1) else 0.0
            shape = (int(pixels.shape[0]), int(pixels.shape[1]))
            source = Source(plane.path, page, split, pixel_digest(pixels), pixel_crc(pixels))
            looks.append(_Look(source, shape, str(pixels.dtype), score))
    if not looks:
        raise ImageError("it holds no image")
    return looks


def _against_majority(found: dict[Slot, Verified]) -> dict[Slot, Verified]:
    """Images of another size than the plate's, or another type than their channel's, cannot be used."""
    usable = {slot: image for slot, image in found.items() if image.bad is None}
    transmitted = [image for slot, image in usable.items() if slot[2] == TRANSMITTED]
    shape = _majority(image.shape for image in transmitted or usable.values())
    dtypes = {
        role: _majority(image.dtype for slot, image in usable.items() if slot[2] == role)
        for role in {slot[2] for slot in usable}
    }
    checked = dict(found)
    for slot, image in usable.items():
        name = image.planes[0].path.name
        if image.shape != shape:
            size, usual = (" × ".join(map(str, sides)) for sides in (image.shape, shape or ()))
            checked[slot] = replace(image, bad=f"{name}: it is {size} pixels, the plate's images are {usual}")
        elif image.dtype != dtypes[slot[2]]:
            reason = (
                f"{name}: its pixels are {image.dtype}, those of the plate's {slot[2]} are {dtypes[slot[2]]}"
            )
            checked[slot] = replace(image, bad=reason)
    return checked


def _majority(values: Iterable[_Value]) -> _Value | None:
    """The most frequent value; of equally frequent ones the smallest, so that the choice is repeatable."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value)) if counts else None
