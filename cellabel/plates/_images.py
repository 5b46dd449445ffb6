"""One image file → its planes, each `(H, W)`; a lying header is refused before memory is spent."""

from __future__ import annotations

import importlib
import logging
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellabel.errors import InputError
from cellabel.plates._tiff_damage import damage_of_header, damage_of_pixels

MAX_PIXELS = 2**27
"""The most pixels a plane may have (134 megapixels; the largest microscope cameras have 50)."""
MAX_PLANES = 4096
_PROPORTION = 200
_ALWAYS_ALLOWED_BYTES = 2**26
_MIN_SIDE = 2
_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate", 50000: "zstd"}
# The others are lossy, or carry a header of their own that may ask for any amount of memory.
_SEPARATE, _COLOUR = 2, 2  # PlanarConfiguration and PhotometricInterpretation of TIFF

# What tifffile, zlib, imagecodecs and OpenCV raise on damaged files; found by mutating small files.
DECODE_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    MemoryError,
    RecursionError,
    struct.error,
    zlib.error,
)

_OTHER = {
    "/": ("cellabel.plates._zarr_images", "open_zarr"),
    ".ics": ("cellabel.plates._ics", "open_ics"),
    ".nd2": ("cellabel.plates._bioio", "open_container"),
    ".lif": ("cellabel.plates._bioio", "open_container"),
}
"""End of the name ("/" is a folder) → module and function that read it, imported where one is met."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # damage is told by our own sentence


class ImageError(ValueError):
    """An image file that cannot be used; the message says why, without the file's name."""


@dataclass(frozen=True)
class ImageFile:
    """An open image file: how many planes it has, and how to decode one of them."""

    n_planes: int
    plane: Callable[[int], np.ndarray]


@contextmanager
def open_image(path: Path, *, samples_are_planes: bool = False) -> Iterator[ImageFile]:
    """Open an image file to read its planes one by one.

    Args:
        path: a TIFF, PNG, ICS, ND2 or LIF file, or the folder of a zarr array.
        samples_are_planes: the samples of a pixel are planes of a stack, not a colour.

    Raises:
        ImageError: empty, not an image, truncated, a colour image, or a header out of proportion.
        InputError: the package that reads such files is not installed.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            raise ImageError("the file is empty")
        other = _OTHER.get("/" if path.is_dir() else path.suffix.lower())
        if other is not None:
            module, function = other
            yield getattr(importlib.import_module(module), function)(path)
            return
        if path.suffix.lower() == ".png":
            yield ImageFile(1, lambda _index: _read_png(path))
            return
        from tifffile import TiffFile

        with TiffFile(path) as tif:
            yield _tiff_planes(tif, size, samples_are_planes)
    except (ImageError, InputError):
        raise
    except DECODE_ERRORS as error:
        raise ImageError(f"the file cannot be read as an image ({_told(error)})") from error


def read_plane(path: Path, index: int, *, samples_are_planes: bool = False) -> np.ndarray:
    """Plane `index` of an image file, `(H, W)` of the file's own type."""
    with open_image(path, samples_are_planes=samples_are_planes) as image:
        return image.plane(index)


def has_not_finite(image: np.ndarray) -> bool:
    """Whether a pixel is NaN or infinite."""
    return image.dtype.kind == "f" and not bool(np.isfinite(image).all())


def focus_score(image: np.ndarray) -> float:
    """How sharp a plane is against the other planes of its stack (squared differences over the level)."""
    x = image.astype(np.float32)
    if min(x.shape) < 4:
        return 0.0
    steps = float(np.square(x[2:] - x[:-2]).mean() + np.square(x[:, 2:] - x[:, :-2]).mean())
    return steps / max(abs(float(x.mean())), 1e-9)


def _told(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _tiff_planes(tif: Any, file_bytes: int, samples_are_planes: bool) -> ImageFile:
    n_pages = len(tif.pages)
    if not 1 <= n_pages <= MAX_PLANES:
        raise ImageError(f"the file claims {n_pages} pages")
    first = tif.pages[0]
    separate = len(first.shape) == 3 and first.planarconfig == _SEPARATE
    # tifffile's writers mark any stack of three or four planes as colour: who names planes knows better.
    split = len(first.shape) == 3 and (samples_are_planes or (separate and first.photometric != _COLOUR))
    per_page = int(first.shape[0 if separate else 2]) if split else 1
    if per_page > MAX_PLANES:
        raise ImageError(f"the file claims {per_page} planes")

    def plane(index: int) -> np.ndarray:
        page = tif.pages[index // per_page]
        _check_page(page, file_bytes)
        pixels = np.asarray(page.asarray(maxworkers=1))
        if damage := damage_of_pixels(page, pixels):
            raise ImageError(f"the file is damaged: {damage}")
        if split:
            if pixels.shape != first.shape:
                raise ImageError("its pages differ in shape")
            pixels = np.take(pixels, index % per_page, axis=0 if separate else 2)
        return _as_grey(pixels)

    return ImageFile(n_pages * per_page, plane)


def _check_page(page: Any, file_bytes: int) -> None:
    """Refuse a page whose header asks for more than its file can hold."""
    if page.dtype is None or page.dtype.kind not in "uifb":
        raise ImageError("its pixel type is unknown or complex")
    if int(page.compression) not in _COMPRESSIONS:
        raise ImageError(
            f"its compression ({getattr(page.compression, 'name', page.compression)}) is not read: "
            "export without loss (uncompressed, LZW or deflate)"
        )
    if len(page.shape) not in (2, 3):
        raise ImageError(f"its page has {len(page.shape)} dimensions")
    if page.imagewidth * page.imagelength > MAX_PIXELS or math.prod(page.shape) > 4 * MAX_PIXELS:
        raise ImageError(
            f"its header claims {page.imagelength} × {page.imagewidth} pixels, more than any camera has"
        )
    if math.prod(page.chunks) > 4 * MAX_PIXELS:
        raise ImageError("its header claims tiles larger than any image")
    n_segments = math.prod(page.chunked)
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) < n_segments or len(counts) < n_segments:
        raise ImageError("the file is truncated: parts of the image are not listed")
    if any(o <= 0 or c <= 0 or o + c > file_bytes for o, c in zip(offsets, counts, strict=False)):
        raise ImageError("the file is truncated: it ends before the image does")
    if damage := damage_of_header(page):
        raise ImageError(f"the file is damaged: {damage}")
    decoded = math.prod(page.shape) * int(page.bitspersample) // 8
    stored = sum(counts)
    if (page.compression == 1 and stored < decoded) or (
        decoded > _ALWAYS_ALLOWED_BYTES and decoded > _PROPORTION * stored
    ):
        raise ImageError(
            f"its header claims {page.imagelength} × {page.imagewidth} pixels, out of proportion to "
            f"the {stored} bytes that hold them"
        )


def _as_grey(pixels: np.ndarray) -> np.ndarray:
    """A decoded page as `(H, W)` in native byte order; three equal colours are grey."""
    if pixels.ndim == 3:
        colours = pixels if pixels.shape[2] <= 4 else np.moveaxis(pixels, 0, 2)
        if colours.shape[2] not in (1, 3, 4):
            raise ImageError(f"it has {colours.shape[2]} samples a pixel")
        first = colours[..., 0]
        if colours.shape[2] >= 3 and any(not np.array_equal(first, colours[..., k]) for k in (1, 2)):
            raise ImageError("it is a colour image: export each channel as grey")
        pixels = first
    if pixels.ndim != 2 or min(pixels.shape) < _MIN_SIDE:
        raise ImageError(f"it is no image of two dimensions (its shape is {pixels.shape})")
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8)
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def _read_png(path: Path) -> np.ndarray:
    data = path.read_bytes()
    _check_png(data)
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ImageError("the file cannot be read as an image (damaged PNG)")
    return _as_grey(pixels)


def _check_png(data: bytes) -> None:
    """Walk the chunks: OpenCV shows a truncated or damaged PNG in part, without a word."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ImageError("the file is no PNG image")
    at, kind = 8, b""
    stored = width = height = 0
    while kind != b"IEND":
        if at + 12 > len(data):
            raise ImageError("the file is truncated: it ends before the image does")
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 4 : at + 8 + length]
        if len(body) < 4 + length or zlib.crc32(body) != int.from_bytes(
            data[at + 8 + length : at + 12 + length]
        ):
            raise ImageError("the file is damaged: a checksum does not hold")
        if kind == b"IHDR" and length >= 8:
            width, height = struct.unpack(">II", body[4:12])
        stored += length if kind == b"IDAT" else 0
        at += 12 + length
    if width * height == 0:
        raise ImageError("the file is damaged: it has no size")
    if width * height > MAX_PIXELS or (
        width * height > _ALWAYS_ALLOWED_BYTES and width * height > _PROPORTION * 8 * stored
    ):
        raise ImageError(
            f"its header claims {height} × {width} pixels, out of proportion to its {stored} bytes"
        )
