"""Arrays and plain values in one npz file: no pickle, a checksum over everything, written atomically."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from cellabel.errors import InputError

__all__ = ["checksum", "pack", "read_packed", "unpack", "write_packed"]

PLAIN = "__plain__"


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 over names, array bytes and plain values (as sorted JSON), in any order of the mapping."""
    digest = hashlib.sha256()
    for name in sorted(content):
        value = content[name]
        digest.update(name.encode())
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(json.dumps(value, sort_keys=True).encode())
    return digest.hexdigest()


def pack(content: Mapping[str, Any]) -> bytes:
    """`content` (arrays, and values that JSON knows) as the bytes of an npz file with a checksum."""
    arrays: dict[str, Any] = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in content.items() if not isinstance(value, np.ndarray)}
    header = json.dumps({"content": plain, "checksum": checksum(content)})
    buffer = io.BytesIO()
    arrays[PLAIN] = np.frombuffer(header.encode(), np.uint8)
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack(data: bytes, what: str) -> dict[str, Any]:
    """What `pack` packed.

    Raises:
        InputError: truncated, edited, or not made by `pack`; `what` names it.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            header = json.loads(archive[PLAIN].tobytes().decode())
            content: dict[str, Any] = {name: archive[name] for name in archive.files if name != PLAIN}
        content.update(header["content"])
        expected = header["checksum"]
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError, EOFError) as error:
        raise InputError(
            f"{what} is damaged or of another kind ({error}); restore it from a copy."
        ) from error
    if checksum(content) != expected:
        raise InputError(f"{what} was changed after it was written; restore it from a copy.")
    return content


def write_packed(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write `content` to `path`: readers see the old file or the new one, never a part.

    Raises:
        InputError: no folder to write into.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target} cannot be written, as its folder does not exist; make the folder first.")
    scratch = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with scratch.open("wb") as file:
            file.write(pack(content))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def read_packed(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """What `write_packed` wrote to `path`.

    Raises:
        InputError: no such file, or damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read ({error.strerror}); check the path.") from error
    return unpack(data, f"{what} {path}")
