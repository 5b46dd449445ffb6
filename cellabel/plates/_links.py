"""A plate that refers to the arrays of an OME-Zarr plate elsewhere instead of holding a copy of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cellabel.plates._ngff import field_path
from cellabel.plates._verification import Slot, Source, Verified

_Links = dict[str, dict[str, list[list[Any]]]]


def links_of(images: Mapping[Slot, Verified], folder: Path) -> dict[str, Any]:
    """Where every plane of usable images lies, as JSON: the folder, and field → role → (array, plane, sum).

    Args:
        images: what was verified, fields that are kept only.
        folder: under which all of it lies.
    """
    fields: _Links = {}
    for (well, site, role), image in images.items():
        fields.setdefault(field_path(well, site), {})[role] = [
            [source.path.relative_to(folder).as_posix(), source.page, source.crc] for source in image.planes
        ]
    return {"folder": str(folder.resolve()), "fields": fields}


def linked_planes(links: Mapping[str, Any], well: str, site: int) -> dict[str, Sequence[Source]]:
    """Role → the planes of one field, of what `links_of` gave."""
    folder = Path(links["folder"])
    return {
        role: [Source(folder / array, page, False, "", crc) for array, page, crc in planes]
        for role, planes in links["fields"][field_path(well, site)].items()
    }
