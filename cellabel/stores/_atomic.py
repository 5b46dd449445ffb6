"""Whole files or none."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from upath import UPath

from cellabel.errors import InputError


def as_path(url: str | os.PathLike[str] | UPath) -> UPath:
    """A local path or fsspec URL as a path object.

    Raises:
        InputError: nothing that is installed opens such a URL.
    """
    try:
        path = UPath(url)
        if is_local(path) or isinstance(url, UPath):
            return path
        # Object stores are written by several processes: none may go by what it listed before.
        path = UPath(url, use_listings_cache=False)
        _ = path.fs
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{url} cannot be opened ({error}): give a folder, or install what reads such addresses "
            '(for s3:// pip install "cellabel[s3]").'
        ) from error
    return path


def place_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What is raised where a place cannot be reached, and `others`: errors of S3's client are no OSError."""
    client = sys.modules.get("botocore.exceptions")
    return (OSError, *((client.BotoCoreError, client.ClientError) if client else ()), *others)


def is_local(path: UPath) -> bool:
    """Whether renames on this path are atomic."""
    return isinstance(path, Path)


def json_names(folder: UPath) -> list[str]:
    """Names of a folder's JSON files, sorted, without what is half written; none where it is missing."""
    if is_local(folder):  # thousands of names are listed at every tick, faster than paths are made of them
        try:
            names = os.listdir(str(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
    else:
        names = [path.name for path in folder.glob("*.json")] if folder.exists() else []
    return sorted(name for name in names if name.endswith(".json") and not name.startswith("."))


def replace_bytes(path: UPath, data: bytes) -> None:
    """Put `data` at `path`: readers see the old content or the new one, never a part.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    if not is_local(path):  # one put of an object store is atomic
        try:
            path.write_bytes(data)
        except place_errors() as error:
            raise InputError(
                f"{path} could not be written ({error}): see that the store can be reached and written, "
                "then run this again."
            ) from error
        return
    # As scratch folders are called: whoever writes there next sweeps what a killed process has left.
    scratch = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(str(scratch), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(str(scratch), str(path))
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise InputError(
            f"{path} could not be written ({error.strerror or error}): make room there or choose another "
            "place, then run this again."
        ) from error


def write_json(path: UPath, content: Mapping[str, Any] | list[Any]) -> None:
    """Replace `path` by `content` as JSON, atomically."""
    replace_bytes(path, (json.dumps(content, indent=1, sort_keys=True, default=str) + "\n").encode())


def read_json(path: UPath) -> dict[str, Any] | None:
    """The JSON object at `path`, or None where there is no such file.

    Raises:
        InputError: the file is not JSON, or the place cannot be read.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except place_errors() as error:
        raise cannot_be_read(path, error) from error
    return parse_json(text, path)


def cannot_be_read(path: UPath | str, error: Exception) -> InputError:
    """The sentence for a file that is there and cannot be read."""
    return InputError(
        f"{path} cannot be read ({error}): see that the store can be reached and you may read it."
    )


def parse_json(text: bytes, path: UPath | str) -> dict[str, Any]:
    """The JSON object of a file's content.

    Raises:
        InputError: it is not JSON, or no object; `path` names it.
    """
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{path} is not valid JSON ({error}): restore it from a backup or delete it."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object: restore it from a backup or delete it.")
    return cast(dict[str, Any], content)
