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

from cellabel.plates._images import ImageError, focus_score, has_not_finite, open_image
from cellabel.plates._issues import Effect, Issue
from cellabel.plates.layouts import Plane

Slot = tuple[str, int, str]
"""Well, site and role."""
TRANSMITTED = "transmitted"
_Value = TypeVar("_Value", str, tuple[int, int])


@dataclass(frozen=True)
class Verified:
    """One image that can be used: where its pixels lie, their shape, type and digest; or why it cannot be.

    Attributes:
        page: the plane of the file.
        samples_are_planes: how the planes of the file are counted (see `open_image`).
        note: something to know about it ("plane 3 of 7 is the sharpest").
        bad: why the image cannot be used; None where it can.
    """

    path: Path | None
    page: int = 0
    samples_are_planes: bool = False
    shape: tuple[int, int] = (0, 0)
    dtype: str = ""
    digest: str = ""
    note: str = ""
    bad: str | None = None


def pixel_digest(image: np.ndarray) -> str:
    """A digest of an image's pixels, shape and type."""
    state = hashlib.blake2b(f"{image.shape} {image.dtype.str}".encode(), digest_size=20)
    state.update(np.ascontiguousarray(image).data)
    return state.hexdigest()


def n_workers() -> int:
    """Threads for decoding and writing: one a processor, at most eight."""
    return max(
        1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    )


def verify(slots: Mapping[Slot, Sequence[Plane]], folder: Path) -> dict[Slot, Verified]:
    """Decode every image; wrong sizes and types are told against the plate's majority.

    Memory holds one or two images a thread, whatever the size of the plate.
    """
    ordered = sorted(slots)
    with ThreadPoolExecutor(n_workers()) as threads:
        found = dict(
            zip(ordered, threads.map(lambda slot: _verify_one(slots[slot], folder), ordered), strict=True)
        )
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


def _verify_one(planes: Sequence[Plane], folder: Path) -> Verified:
    """The sharpest of the planes of one field and channel."""
    by_z: dict[int, Verified] = {}
    scores: dict[int, float] = {}
    notes: list[str] = []
    for plane in sorted(planes, key=lambda plane: (plane.z, plane.path)):
        name = plane.path.relative_to(folder).as_posix()
        image, score = _best_plane(plane, name)
        if image.bad is not None:
            return image
        twin = by_z.get(plane.z)
        if twin is not None and twin.path is not None:
            other = twin.path.relative_to(folder).as_posix()
            if twin.digest != image.digest:
                return Verified(None, bad=f"{other} and {name} are two different images of the same thing")
            notes.append(f"{name} repeats {other}")
            continue
        by_z[plane.z], scores[plane.z] = image, score
    best = max(by_z, key=lambda z: (scores[z], -z))
    chosen = by_z[best]
    if len(by_z) > 1:
        notes.append(f"z-step {best} of {', '.join(map(str, sorted(by_z)))} is read, the sharpest")
    return replace(chosen, note="; ".join([part for part in (chosen.note, *notes) if part]))


def _best_plane(plane: Plane, name: str) -> tuple[Verified, float]:
    """The plane that the name asks for, else the sharpest of the file."""
    best, best_score = Verified(None, bad=f"{name}: it holds no image"), -1.0
    named = plane.page is not None
    try:
        with open_image(plane.path, samples_are_planes=named) as file:
            n = file.n_planes
            if named and n != plane.of:
                return Verified(None, bad=f"{name}: it holds {n} planes, not {plane.of}"), 0.0
            for page in range(n) if plane.page is None else [plane.page]:
                pixels = file.plane(page)
                if has_not_finite(pixels):
                    return Verified(None, bad=f"{name}: it has pixels that are NaN or infinite"), 0.0
                score = focus_score(pixels)
                if score > best_score:
                    shape = (int(pixels.shape[0]), int(pixels.shape[1]))
                    best_score = score
                    best = Verified(plane.path, page, named, shape, str(pixels.dtype), pixel_digest(pixels))
    except ImageError as error:
        return Verified(None, bad=f"{name}: {error}"), 0.0
    if not named and n > 1 and best.bad is None:
        best = replace(best, note=f"plane {best.page + 1} of {n} in {name} is read, the sharpest")
    return best, best_score


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
        name = image.path.name if image.path else ""
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
