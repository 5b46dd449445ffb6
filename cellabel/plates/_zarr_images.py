"""The planes of an OME-Zarr image (NGFF 0.4 in zarr v2, 0.5 in zarr v3) as of any other image file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellabel.plates._images import MAX_PIXELS, ImageError, ImageFile

_MARKS = ("zarr.json", ".zgroup", ".zarray")
ZARR_METADATA = (*_MARKS, ".zattrs", ".zmetadata")
"""Names of the files in which zarr keeps what is not pixels."""


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return any((folder / mark).is_file() for mark in _MARKS)


def ome_attributes(group: Path) -> dict[str, Any]:
    """What NGFF keeps with a group: `ome` of zarr v3 (0.5), the attributes themselves of zarr v2 (0.4).

    Raises:
        ImageError: the file is not JSON.
    """
    for name in ("zarr.json", ".zattrs"):
        path = group / name
        if path.is_file():
            try:
                content = json.loads(path.read_bytes())
            except ValueError as error:
                raise ImageError(f"{name} is damaged") from error
            if isinstance(content, dict) and name == "zarr.json":
                content = content.get("attributes", {}).get("ome", {})
            return content if isinstance(content, dict) else {}
    return {}


def open_zarr(array: Path) -> ImageFile:
    """The planes of an array `(…, y, x)`, the leading axes counted in their order.

    Raises:
        ImageError: no such array, one that is out of proportion, or (when a plane is asked for) damaged.
    """
    import zarr

    try:
        opened = zarr.open_array(str(array), mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"the array cannot be opened ({' '.join(str(error).split())[:120]})") from error
    shape = opened.shape
    if len(shape) < 2 or shape[-1] * shape[-2] > MAX_PIXELS or math.prod(opened.chunks) > 4 * MAX_PIXELS:
        raise ImageError(f"an array of shape {shape} in chunks of {opened.chunks} is no image")
    leading = shape[:-2]

    def plane(index: int) -> np.ndarray:
        if _is_absent(array, opened, index):
            raise ImageError("a part of the image is not there")
        at = tuple(int(k) for k in np.unravel_index(index, leading)) if leading else ...
        pixels = np.asarray(opened[at])
        return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))

    return ImageFile(math.prod(leading), plane)


def _is_absent(array: Path, opened: Any, index: int) -> bool:
    """Whether no chunk of a plane is stored: zarr would give its fill value for an image that was lost."""
    parts = opened.shards or opened.chunks
    leading = opened.shape[:-2]
    at: Sequence[int] = [int(k) for k in np.unravel_index(index, leading)] if leading else []
    counts = [math.ceil(side / part) for side, part in zip(opened.shape[-2:], parts[-2:], strict=True)]
    corner = [k // part for k, part in zip(at, parts, strict=False)]
    for y, x in np.ndindex(*counts):
        if (array / opened.metadata.encode_chunk_key((*corner, y, x))).is_file():
            return False
    return True
