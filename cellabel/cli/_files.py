"""Image files and tables that a command is given or writes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellabel.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "IMAGE_SUFFIXES",
    "check_table_name",
    "read_image",
    "read_values",
    "write_image",
    "write_table",
    "writing",
]

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
TABLE_SUFFIXES = (".csv", ".parquet")


def read_image(path: Path) -> NDArray:
    """The one plane of an image file, `(H, W)` of the file's type.

    Raises:
        InputError: no such file, not an image, damaged, in colour, of several planes, or NaN and infinite
            pixels.
    """
    import numpy as np

    from cellabel.plates._images import ImageError, open_image

    if not path.is_file():
        raise InputError(
            f"There is no image file {path}: name a file that ends in {', '.join(IMAGE_SUFFIXES)}."
        )
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(
            f"{path} is not named as an image: give a file that ends in {', '.join(IMAGE_SUFFIXES)}."
        )
    try:
        with open_image(path) as image:
            count, pixels = image.n_planes, image.plane(0)
    except ImageError as error:
        raise InputError(f"The image {path} cannot be used ({error}): export it again.") from error
    if count != 1:
        raise InputError(f"The image {path} holds {count} planes: give a file with one plane.")
    if pixels.dtype.kind == "f" and not bool(np.isfinite(pixels).all()):
        raise InputError(f"The image {path} holds NaN or infinite pixels: repair or export it again.")
    return pixels


def write_image(
    path: Path, pixels: NDArray, *, source: Path, description: Mapping[str, Any] | None = None
) -> None:
    """Write one plane as TIFF, or as PNG where its type allows, whole or not at all.

    Args:
        path: where to.
        pixels: (H, W).
        source: the image it was made from, which is never overwritten.
        description: kept in the TIFF's description, as JSON.

    Raises:
        InputError: the source's own name, another suffix than an image's, floats as PNG, or no room.
    """
    from upath import UPath

    from cellabel.stores import replace_bytes

    if path.exists() and source.exists() and path.samefile(source):
        raise InputError(f"{path} is the image that is read: name another file for the result.")
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        import tifffile

        buffer = io.BytesIO()
        text = json.dumps(description) if description else None
        tifffile.imwrite(buffer, pixels, photometric="minisblack", metadata=None, description=text)
        data = buffer.getvalue()
    elif suffix == ".png" and pixels.dtype.name in ("uint8", "uint16"):
        import cv2

        data = cv2.imencode(".png", pixels)[1].tobytes()
    else:
        raise InputError(f"{path} cannot hold {pixels.dtype} pixels: name a file that ends in .tif.")
    with writing(path):
        replace_bytes(UPath(path), data)


def check_table_name(path: Path) -> None:
    """Check, before the work, that a file's name says what table it is.

    Raises:
        InputError: another suffix than .csv or .parquet.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(f"{path} cannot hold a table: name a file that ends in .csv or .parquet.")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, or Parquet where the name says so, whole or not at all.

    Raises:
        InputError: another suffix, or no room.
    """
    from upath import UPath

    from cellabel.stores import replace_bytes

    check_table_name(path)
    if path.suffix.lower() == ".csv":
        data = table.to_csv(index=False).encode()
    else:
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        data = buffer.getvalue()
    with writing(path):
        replace_bytes(UPath(path), data)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Tell in a sentence that a place cannot be written.

    Raises:
        InputError: the block met a full disk, a missing permission, or the like.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{place} could not be written ({error.strerror or error}): make room there or choose another "
            "place, then run this again."
        ) from error


def read_values(assignments: Sequence[str] | None) -> dict[str, Any]:
    """`["confluence=0.3"]` → `{"confluence": 0.3}`; values are read as YAML.

    Raises:
        InputError: an assignment without a name or a value, or a value that is not YAML.
    """
    import yaml

    values: dict[str, Any] = {}
    for assignment in assignments or ():
        name, equals, text = assignment.partition("=")
        if not name or not equals:
            raise InputError(f"--set {assignment!r} sets nothing: write --set NAME=VALUE.")
        try:
            values[name.strip().replace("-", "_")] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(
                f"--set {assignment!r} has a value that cannot be read: write a number or a word."
            ) from error
    return values
