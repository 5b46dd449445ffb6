"""The metadata of NGFF 0.5 (OME-Zarr, zarr v3), as JSON-able dictionaries.

Source: https://ngff.openmicroscopy.org/0.5/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cellabel.plates._wells import row_index, split_well, well_order

VERSION = "0.5"
_COLOURS = {
    "transmitted": "FFFFFF", "nuclei": "4466FF", "er": "FF4444", "golgi": "FFAA00", "gfp": "33DD33",
    "actin": "FF44FF", "nucleoli": "00DDDD",
}  # fmt: skip


def group_bytes(attributes: Mapping[str, Any]) -> bytes:
    """The `zarr.json` of a zarr v3 group."""
    content = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def field_path(well: str, site: int) -> str:
    """Where a field lies in its plate: ("A01", 2) is "A/01/2"."""
    return "/".join((*split_well(well), str(site)))


def plate_metadata(plate_id: str, fields: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The `ome` attributes of a plate."""
    wells = sorted({well for well, _ in fields}, key=well_order)
    rows = sorted({split_well(well)[0] for well in wells}, key=lambda row: row_index(f"{row}01"))
    columns = sorted({split_well(well)[1] for well in wells})
    most = max((sum(1 for w, _ in fields if w == well) for well in wells), default=0)
    return {
        "version": VERSION,
        "plate": {
            "name": plate_id,
            "version": VERSION,
            **({"field_count": most} if most else {}),
            "rows": [{"name": row} for row in rows],
            "columns": [{"name": column} for column in columns],
            "wells": [
                {
                    "path": "/".join(split_well(well)),
                    "rowIndex": rows.index(split_well(well)[0]),
                    "columnIndex": columns.index(split_well(well)[1]),
                }
                for well in wells
            ],
        },
    }


def well_metadata(sites: Sequence[int]) -> dict[str, Any]:
    """The `ome` attributes of a well."""
    return {"version": VERSION, "well": {"version": VERSION, "images": [{"path": str(s)} for s in sites]}}


def image_metadata(
    name: str,
    channels: Sequence[str],
    levels: Sequence[Sequence[np.ndarray]],
    pixel_size_um: float | None,
    *,
    has_z: bool = False,
) -> dict[str, Any]:
    """The `ome` attributes of a field's image, channels first; the distance of planes is not known."""
    axes = ("c", "z", "y", "x") if has_z else ("c", "y", "x")
    windows = [_window(levels[-1][k]) for k in range(len(channels))]
    return {
        "version": VERSION,
        "multiscales": [_multiscale(name, axes, len(levels), pixel_size_um)],
        "omero": {
            "channels": [
                {"label": role, "color": _COLOURS.get(role, "CCCCCC"), "active": True, "window": window}
                for role, window in zip(channels, windows, strict=True)
            ]
        },
    }


def label_metadata(name: str, n_levels: int, pixel_size_um: float | None) -> dict[str, Any]:
    """The `ome` attributes of a label image."""
    return {
        "version": VERSION,
        "multiscales": [_multiscale(name, ("y", "x"), n_levels, pixel_size_um)],
        "image-label": {"version": VERSION, "colors": [], "source": {"image": "../../"}},
    }


def _multiscale(name: str, axes: Sequence[str], n_levels: int, pixel_size_um: float | None) -> dict[str, Any]:
    unit = {"unit": "micrometer"} if pixel_size_um else {}
    size = pixel_size_um or 1.0
    return {
        "name": name,
        "axes": [
            {"name": a, "type": "channel"}
            if a == "c"
            else {"name": a, "type": "space", **(unit if a != "z" else {})}
            for a in axes
        ],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0 if a in "cz" else size * 2.0**level for a in axes]}
                ],
            }
            for level in range(n_levels)
        ],
    }


def _window(image: np.ndarray) -> dict[str, float]:
    """How a viewer should show a channel: from its 0.1 to its 99.9 percentile."""
    if image.dtype.kind == "f":
        lower, upper = float(image.min()), float(image.max())
    else:
        lower, upper = 0.0, float(np.iinfo(image.dtype).max)
    start, end = (float(v) for v in np.percentile(image[::2, ::2], (0.1, 99.9)))
    return {"min": lower, "max": max(upper, lower + 1), "start": start, "end": max(end, start + 1e-6)}
