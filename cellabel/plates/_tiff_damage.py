"""Damage in TIFF files that decoding does not show.

A TIFF has no checksums. What is found here contradicts the file's own structure, or what its writer kept
beside the pixels; the rest is found by a list of checksums.

Source: TIFF 6.0, section 8 (types and numbers of the baseline entries).
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np

_STATISTICS = 65520
"""Entry in which Harmony (Phenix, Operetta) keeps mean, deviation, minimum and maximum of the pixels."""
_BYTE, _SHORT, _LONG, _LONG8 = 1, 3, 4, 16
_SINGLE = {
    256: "ImageWidth", 257: "ImageLength", 259: "Compression", 262: "PhotometricInterpretation",
    266: "FillOrder", 277: "SamplesPerPixel", 278: "RowsPerStrip", 284: "PlanarConfiguration",
    317: "Predictor", 322: "TileWidth", 323: "TileLength",
}  # fmt: skip
_SEVERAL = {
    258: "BitsPerSample", 273: "StripOffsets", 279: "StripByteCounts", 324: "TileOffsets",
    325: "TileByteCounts", 339: "SampleFormat",
}  # fmt: skip


def damage_of_header(page: Any) -> str | None:
    """What cannot be in the entries by which pixels are found and read; None where nothing is wrong.

    Args:
        page: a page of tifffile.
    """
    tags = list(page.tags)
    if len(tags) < _stated_entries(page):
        return "some entries of its header cannot be read"
    for tag in tags:
        name = _SINGLE.get(tag.code) or _SEVERAL.get(tag.code)
        if name is not None and (
            int(tag.dtype) not in (_BYTE, _SHORT, _LONG, _LONG8) or (tag.code in _SINGLE and tag.count != 1)
        ):
            return f"the entry {name} of its header has a type or number that TIFF does not allow"
    if _overlaps(page):
        return "parts of the image lie over one another or over the header"
    return None


def damage_of_pixels(page: Any, pixels: np.ndarray) -> str | None:
    """How decoded pixels contradict the mean that their writer kept; None where it did not, or they agree.

    Args:
        page: the page of tifffile that they are from.
        pixels: all its pixels.
    """
    mean = _kept_mean(page)
    if mean is None or pixels.dtype.kind not in "ui":
        return None
    total = int(pixels.sum(dtype=np.int64))
    # A mean in double precision gives back the exact sum, so that one other pixel is found.
    if abs(mean * pixels.size - total) > max(0.25, 1e-12 * abs(total)):
        return f"the mean of its pixels is {total / pixels.size:.9g}, but {mean:.9g} when it was written"
    return None


def _stated_entries(page: Any) -> int:
    handle = page.parent.filehandle
    handle.seek(page.offset)
    data: bytes = handle.read(page.parent.tiff.tagnosize)
    return int.from_bytes(data, "little" if page.parent.byteorder == "<" else "big")


def _overlaps(page: Any) -> bool:
    parts = [
        (int(at), int(at) + int(size))
        for at, size in zip(page.dataoffsets, page.databytecounts, strict=False)
        if size
    ]
    header = int(page.offset), int(page.offset) + len(page.tags) * int(page.parent.tiff.tagsize)
    return any(one[1] > other[0] for one, other in pairwise(sorted([*parts, header])))


def _kept_mean(page: Any) -> float | None:
    tag = page.tags.get(_STATISTICS)
    if tag is None:
        return None
    try:
        return float(json.loads(tag.value)["mean"])
    except (KeyError, TypeError, ValueError):
        return None
