"""Which files of an acquisition folder are looked at."""

from __future__ import annotations

import os
from pathlib import Path

from cellabel.errors import InputError
from cellabel.plates._zarr_images import is_zarr

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".ics", ".nd2", ".lif")
_IGNORED_FOLDERS = {"truth"}
_IGNORED_FILES = {"thumbs.db", "desktop.ini"}


def acquisition_files(folder: Path) -> list[Path]:
    """Every plain file below `folder`, sorted by its path in it; a zarr group counts as one file.

    Left out: hidden files and folders, links, whatever lies in a folder called `truth`, thumbnail databases.

    Raises:
        InputError: there is no such folder, or it cannot be listed.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}: name the folder that holds the acquisition's images.")
    found: list[Path] = []
    try:
        _walk(folder, found)
    except OSError as error:
        raise InputError(
            f"{error.filename or folder} cannot be listed ({error.strerror}): mend its permissions."
        ) from error
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def image_files(files: list[Path]) -> list[Path]:
    """Those of `files` that may be images: by the end of their names, and zarr groups."""
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES or path.is_dir()]


def _walk(folder: Path, found: list[Path]) -> None:
    if is_zarr(folder):
        found.append(folder)
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "~$")) or entry.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name.lower() not in _IGNORED_FOLDERS:
                    _walk(Path(entry.path), found)
            elif entry.is_file(follow_symlinks=False) and entry.name.lower() not in _IGNORED_FILES:
                found.append(Path(entry.path))
