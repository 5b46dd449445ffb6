"""Acquisition → plate in the store: all of it, or nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from upath import UPath

from cellabel.errors import InputError
from cellabel.plates._acquisition import Acquisition, open_acquisition
from cellabel.plates._links import links_of
from cellabel.plates._plan import plan_records
from cellabel.plates._plate import PLATE_SUFFIX, Plate, open_plate
from cellabel.plates._registration import plate_offsets
from cellabel.plates._verification import TRANSMITTED, n_workers
from cellabel.plates._writer import PlateWriter, own_attributes, write_group
from cellabel.stores import PlateStore, check_plate_id, plate_store

BY_IMPORT = "import"
"""Value of a record's `quarantined_by` where the import itself refused the plate."""


class QuarantinedPlate(InputError):
    """A plate that is stored but must not be used; the message says why and what to do."""


def import_plate(
    acquisition_or_folder: Acquisition | str | os.PathLike[str],
    store: PlateStore | str | os.PathLike[str],
    *,
    plate_id: str | None = None,
    max_bad_share: float = 0.25,
    channels: Mapping[str, str] | None = None,
    link: bool = False,
) -> Plate:
    """Verify an acquisition and store it as one OME-Zarr plate.

    The version is the content: the same content again writes nothing; another content becomes the new current
    version once it is whole. Fields without a usable transmitted-light image are left out and listed in
    `Plate.quarantined`; a missing stain leaves the field unlabelled there.

    Args:
        acquisition_or_folder: what `open_acquisition` gives, or a folder for it.
        store: a `PlateStore`, or its path or URL.
        plate_id: another id than the acquisition's own.
        max_bad_share: the share of quarantined fields above which the whole plate is quarantined.
        channels: channel name → role, as `open_acquisition` takes it; only for a folder.
        link: refer to the arrays of a plate that is OME-Zarr already instead of copying them. They are
            compared with what was verified whenever they are read. A plate that was copied stays so.

    Raises:
        QuarantinedPlate: too many fields cannot be used; the plate is stored with status "quarantined", so
            that it can be released, or replaced by a better export.
        InputError: the acquisition cannot be read, the id cannot be used, the disk is full; or `link` of
            images that are not OME-Zarr, or from a store on another machine.
    """
    if not 0 <= max_bad_share <= 1:
        raise InputError(f"max_bad_share is {max_bad_share}: give a share between 0 and 1.")
    if isinstance(acquisition_or_folder, Acquisition):
        acquisition = acquisition_or_folder
    else:
        acquisition = open_acquisition(acquisition_or_folder, channels=channels)
    store = plate_store(store)
    if link:
        _check_link(acquisition, store)
    name = check_plate_id(acquisition.plate_id if plate_id is None else plate_id)
    reason = _why_quarantined(acquisition, name, max_bad_share)
    known = store.record(name)
    same = known is not None and known.get("content_hash") == acquisition.content_hash
    if known is not None and same and (link or not known.get("linked")) and _is_whole(store, name):
        return _stored_already(store, name, known, reason)
    record = {**_record(acquisition, reason), "linked": link}
    version = acquisition.content_hash[:20] + ("-linked" if link else "")
    with store.write(name, version, record) as scratch:
        _write(acquisition, name, scratch / f"{name}{PLATE_SUFFIX}", link=link)
    if reason:
        raise QuarantinedPlate(reason)
    return open_plate(store, name)


def _check_link(acquisition: Acquisition, store: PlateStore) -> None:
    if acquisition.layout != "ome_zarr":
        raise InputError(
            f"{acquisition.folder} cannot be linked, as it is read as {acquisition.layout}: only plates that "
            "are OME-Zarr already can; import it without linking."
        )
    if not isinstance(store.root, Path):
        raise InputError(
            f"{acquisition.folder} cannot be linked from {store.root}, which other machines read: "
            "import it without linking."
        )


def _why_quarantined(acquisition: Acquisition, name: str, max_bad_share: float) -> str:
    """One sentence, or "" where enough fields can be used."""
    bad, total = len(acquisition.quarantined), len(acquisition.fields)
    if bad < total and bad / total <= max_bad_share:
        return ""
    where, why = next(iter(acquisition.quarantined.items()))
    images = list(acquisition.images.values())
    if images and not any(image.planes for image in images):
        return (
            f"Plate {name} is quarantined: none of the {len(images)} files can be read as an image "
            f"({images[0].bad}); export it again."
        )
    if TRANSMITTED not in acquisition.channels:
        return (
            f"Plate {name} is quarantined: none of its channels ({', '.join(acquisition.channels)}) is known "
            "as transmitted light; name it in acquisition.json or layout.yaml and import again, or image it "
            "with transmitted light."
        )
    return (
        f"Plate {name} is quarantined: {bad} of {total} fields have no usable transmitted-light image "
        f"(well {where[0]} site {where[1]}: {why}); export it again, or release it."
    )


def _stored_already(store: PlateStore, name: str, known: dict[str, Any], reason: str) -> Plate:
    """The same content again: released plates stay released, quarantined ones quarantined."""
    if known.get("status") == "quarantined":
        if known.get("quarantined_by") != BY_IMPORT or reason:
            raise QuarantinedPlate(reason or str(known.get("reason")))
        store.update_record(name, status="accepted", reason="", quarantined_by="")
    return open_plate(store, name)


def _is_whole(store: PlateStore, name: str) -> bool:
    record = store.record(name)
    return record is not None and bool(record.get("version")) and store.has(name, str(record["version"]))


def _record(acquisition: Acquisition, reason: str) -> dict[str, Any]:
    return {
        "status": "quarantined" if reason else "accepted",
        "reason": reason,
        "quarantined_by": BY_IMPORT if reason else "",
        "content_hash": acquisition.content_hash,
        "acquired_at": acquisition.acquired_at.isoformat() if acquisition.acquired_at else None,
        "instrument": acquisition.instrument,
        "pixel_size_um": acquisition.pixel_size_um,
        "channels": acquisition.channels,
        "n_fields": len(acquisition.fields) - len(acquisition.quarantined),
        "n_quarantined": len(acquisition.quarantined),
    }


def _registration(acquisition: Acquisition, fields: Sequence[tuple[str, int]]) -> dict[str, Any]:
    def read(key: tuple[str, int], role: str) -> np.ndarray | None:
        image = acquisition.images.get((*key, role))
        return acquisition.image(*key, role) if image is not None and image.bad is None else None

    found = plate_offsets(fields, acquisition.channels, read, TRANSMITTED)
    return {role: offset.as_json() for role, offset in found.items()}


def _write(acquisition: Acquisition, name: str, path: UPath, *, link: bool) -> None:
    """Write, or link, the fields that can be used."""
    fields = [key for key in acquisition.fields if key not in acquisition.quarantined]
    attributes = {
        "registration": _registration(acquisition, fields),
        "content_hash": acquisition.content_hash,
        "acquired_at": acquisition.acquired_at.isoformat() if acquisition.acquired_at else None,
        "instrument": acquisition.instrument,
        "plan": plan_records(acquisition.plan) if acquisition.plan is not None else None,
        "quarantined": [[*key, reason] for key, reason in acquisition.quarantined.items()],
    }
    usable = {slot: image for slot, image in acquisition.images.items() if image.bad is None}
    dtypes = {slot[2]: image.dtype for slot, image in usable.items()}
    focus: dict[tuple[str, int], dict[str, tuple[int, int]]] = {key: {} for key in fields}
    for (well, site, role), image in usable.items():
        if (well, site) in focus:
            focus[well, site][role] = (len(image.planes), image.sharpest)
    has_series = any(count > 1 for roles in focus.values() for count, _ in roles.values())
    series = focus if has_series else None
    if link:
        kept = {slot: image for slot, image in usable.items() if slot[:2] in focus}
        own = own_attributes(
            name, fields, acquisition.channels, acquisition.pixel_size_um, acquisition.missing, dtypes, series
        )
        links = links_of(kept, acquisition.folder)
        write_group(path, {"cellabel": {**attributes, **own, "links": links}})
        return
    with PlateWriter(
        path,
        name,
        fields=fields,
        channels=acquisition.channels,
        pixel_size_um=acquisition.pixel_size_um,
        attributes=attributes,
        missing=acquisition.missing,
        dtypes=dtypes,
        focus=series,
    ) as writer:
        _copy(acquisition, fields, writer)


def _copy(acquisition: Acquisition, fields: Sequence[tuple[str, int]], writer: PlateWriter) -> None:
    """Stream the fields through a few threads; memory holds one field a thread."""

    def write(key: tuple[str, int]) -> None:
        lacking = acquisition.missing.get(key, {})
        roles = [role for role in acquisition.channels if role not in lacking]
        writer.write_field(*key, {role: acquisition.stack(*key, role) for role in roles})

    with ThreadPoolExecutor(n_workers()) as threads:
        for _ in threads.map(write, fields):
            pass
