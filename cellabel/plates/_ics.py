"""ICS images (Image Cytometry Standard 1.0 with an `.ids` file beside it, and 2.0 in one file).

Source: Dean et al. 1990 (Cytometry 11:561), and libics for version 2.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellabel.plates._images import MAX_PIXELS, MAX_PLANES, ImageError, ImageFile

_MAX_HEADER = 2**20


@dataclass(frozen=True)
class IcsHeader:
    """What the header of an ICS file tells.

    Attributes:
        entries: (category, key) → value; of a repeated key the first one.
        data_at: where the pixels begin in the file; None where they lie in an `.ids` file.
    """

    entries: dict[tuple[str, str], str]
    data_at: int | None

    def get(self, category: str, key: str) -> str:
        """A value, "" where the header has none."""
        return self.entries.get((category, key), "")


def read_ics_header(path: Path) -> IcsHeader:
    """The header of an `.ics` file.

    Raises:
        ImageError: it is no ICS file, or its header does not end.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_HEADER)
    separators = data[:2]
    if len(separators) < 2 or b"ics_version" not in data[:64]:
        raise ImageError("the file is no ICS image")
    entries: dict[tuple[str, str], str] = {}
    at = data.find(b"ics_version")
    while True:
        end = data.find(b"\n", at)
        if end < 0:
            break
        line = data[at:end].decode("latin-1").rstrip("\r")
        at = end + 1
        if line.strip() == "end":
            return IcsHeader(entries, at)
        parts = line.split("\t") if "\t" in line else line.split(maxsplit=2)
        if len(parts) >= 2:
            category, key, value = parts[0], parts[1], " ".join(parts[2:])
            if len(parts) == 2:
                category, key, value = "", parts[0], parts[1]
            entries.setdefault((category.strip().lower(), key.strip().lower()), value.strip())
    if entries.get(("", "ics_version"), "").startswith("2"):
        raise ImageError("the file is truncated: its ICS header does not end")
    return IcsHeader(entries, None)


def open_ics(path: Path) -> ImageFile:
    """The planes of an ICS image; every axis beside x and y counts planes, in the order of the file.

    Raises:
        ImageError: damaged, truncated, in a form that is not read, or a header out of proportion.
    """
    header = read_ics_header(path)
    dtype, shape = _form(header)
    stored = path if header.data_at is not None else path.with_suffix(".ids")
    if not stored.is_file():
        raise ImageError(f"its pixels are missing ({stored.name})")
    data = _pixels(stored, header, dtype.itemsize * math.prod(shape))
    planes = np.frombuffer(data, dtype).reshape(shape)
    native = dtype.newbyteorder("=")
    return ImageFile(shape[0], lambda index: np.ascontiguousarray(planes[index], dtype=native))


def _form(header: IcsHeader) -> tuple[np.dtype, tuple[int, int, int]]:
    order = header.get("layout", "order").split()
    try:
        sizes = [int(size) for size in header.get("layout", "sizes").split()]
    except ValueError as error:
        raise ImageError("its ICS header has sizes that are no numbers") from error
    if order[:3] != ["bits", "x", "y"] or len(sizes) != len(order) or min(sizes, default=0) < 1:
        raise ImageError(f"its ICS axes ({' '.join(order)}) are not read: export it as bits x y …")
    bits, width, height, *others = sizes
    n_planes = math.prod(others)
    if width * height > MAX_PIXELS or n_planes > MAX_PLANES:
        raise ImageError(f"its header claims {n_planes} × {height} × {width} pixels, no camera has as many")
    kind, sign = header.get("representation", "format"), header.get("representation", "sign")
    name = f"f{bits // 8}" if kind == "real" else f"{'i' if sign == 'signed' else 'u'}{bits // 8}"
    if kind not in ("integer", "real") or name not in ("u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8"):
        raise ImageError(f"its pixel type ({kind} of {bits} bits) is not read")
    # Pixels read by a guess would be other pixels.
    if kind == "integer" and sign not in ("signed", "unsigned"):
        raise ImageError("its ICS header does not tell whether its integers have a sign")
    places = header.get("representation", "byte_order").split()
    if bits > 8 and sorted(places) != [str(k + 1) for k in range(bits // 8)]:
        raise ImageError("its ICS header does not tell the order of bytes")
    little = bits == 8 or places[0] == "1"
    return np.dtype(("<" if little else ">") + name), (n_planes, height, width)


def _pixels(path: Path, header: IcsHeader, n_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(header.data_at or 0)
        stored = file.read()
    compression = header.get("representation", "compression")
    if compression == "gzip":
        if n_bytes > 2**26 and n_bytes > 200 * len(stored):
            raise ImageError("its header claims pixels out of proportion to the bytes that hold them")
        inflate = zlib.decompressobj(wbits=47)  # gzip or zlib
        data = inflate.decompress(stored, n_bytes)
        if len(data) == n_bytes and not inflate.eof:
            inflate.decompress(inflate.unconsumed_tail, 1)  # the checksum stands at the end
        if len(data) == n_bytes and not inflate.eof:
            raise ImageError("the file is damaged: its compressed pixels do not end where they should")
    elif compression == "uncompressed":
        data = stored
    else:
        told = compression or "not told"
        raise ImageError(f"its compression ({told}) is not read: export without, or with gzip")
    if len(data) < n_bytes:
        raise ImageError("the file is truncated: it ends before the image does")
    if len(data) > n_bytes:
        raise ImageError("the file is damaged: it holds more pixels than its header tells")
    return data
