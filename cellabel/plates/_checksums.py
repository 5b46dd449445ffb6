"""Lists of checksums that came with the images (`sha256sum * > SHA256SUMS`): do the files agree with them?

Uncompressed and LZW images have no checksums of their own: without a list nobody can tell a damaged pixel.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cellabel.errors import InputError
from cellabel.plates._folders import IMAGE_SUFFIXES
from cellabel.plates._metadata import ACQUISITION_FILE, LAYOUT_FILE
from cellabel.plates._plan import PLAN_FILE
from cellabel.plates._zarr_images import ZARR_METADATA

_LISTS = re.compile(
    r"(?i)(?:checksums?|(?:md5|sha(?:1|256|512))sums?|manifest-(?:md5|sha(?:1|256|512)))(?:\.txt)?"
    r"|.+\.(?:md5|sha(?:1|256|512))"
)
_LINE = re.compile(r"([0-9A-Fa-f]{32,128})(?:(?: [ *]|\t+)(.+))?\s*")
_BSD_LINE = re.compile(r"[A-Z0-9-]+ ?\((.+)\) ?= ?([0-9A-Fa-f]{32,128})")
_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
_MAX_BYTES = 2**28


class Checksums:
    """What the lists of a folder say of its files; each file is read once, however often it is asked for.

    Args:
        listed: file → the name of the list that names it, and its digest in lower case.
    """

    def __init__(self, listed: Mapping[Path, tuple[str, str]]) -> None:
        self.listed = dict(listed)
        self._below: dict[Path, list[Path]] = defaultdict(list)
        for path in self.listed:
            for parent in path.parents:
                self._below[parent].append(path)
        self._seen: dict[Path, str | None] = {}

    def damage(self, path: Path) -> str | None:
        """Why a file, or one below a folder, is not as its list says; None where it is, or in no list."""
        if path not in self._seen:  # two threads may both read it, and find the same
            self._seen[path] = next(filter(None, map(self._compared, self._parts(path))), None)
        return self._seen[path]

    def gaps(self, folder: Path, images: Iterable[Path]) -> list[str]:
        """Listed files that are not there; and, where there is a list at all, images that none names."""
        if not self.listed:
            return []
        absent = [path for path in self.listed if not path.is_file()]
        unlisted = [path for path in images if path not in self.listed and not path.is_dir()]
        found = []
        for paths, what in ((absent, "not there, but named by"), (unlisted, "with images, but not named by")):
            if paths:
                names = sorted(path.relative_to(folder).as_posix() for path in paths)
                shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
                found.append(f"files {what} a list of checksums: {len(names)} ({shown})")
        return found

    def below(self, folder: Path) -> list[Path]:
        """The listed files below a folder."""
        return self._below.get(folder, [])

    def _parts(self, path: Path) -> Iterator[Path]:
        beside = path.with_suffix(".ids")  # the pixels of an ICS file of version 1
        parts = [path, beside] if path.suffix.lower() == ".ics" else [path, *self.below(path)]
        return (part for part in parts if part in self.listed)

    def _compared(self, path: Path) -> str | None:
        name, wanted = self.listed[path]
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, _ALGORITHMS[len(wanted)]).hexdigest()
        except OSError as error:
            return f"{path.name} cannot be read ({error.strerror or error})"
        return None if found == wanted else f"its checksum is not the one in {name}: copy it again"


def read_checksums(folder: Path, files: Iterable[Path]) -> Checksums:
    """The lists of checksums among the files of an acquisition, as md5sum, sha256sum and BagIt write them.

    Raises:
        InputError: a list that cannot be read, or a line in it that names no file and digest.
    """
    listed: dict[Path, tuple[str, str]] = {}
    for path in files:
        if not _LISTS.fullmatch(path.name) or path.is_dir():
            continue
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip() or line.startswith(("#", ";")):
                continue
            digest, name = _parsed(line, path.stem)
            file = path.parent / name.replace("\\", "/").removeprefix("./")
            if len(digest) not in _ALGORITHMS or ".." in file.parts:
                raise InputError(
                    f"Line {number} of {path} is no checksum and name of a file of this acquisition: "
                    "write the list again, or remove it."
                )
            listed[file] = (path.relative_to(folder).as_posix(), digest)
    return Checksums(listed)


def check_metadata(checksums: Checksums, folder: Path, files: Iterable[Path]) -> None:
    """Compare what is not pixels with the lists; images are compared when they are decoded.

    Raises:
        InputError: a vendor's file, or the metadata of a zarr array, that is not what its list names. What
            people write beside the images may have been written again since.
    """
    own = {folder / name for name in (ACQUISITION_FILE, LAYOUT_FILE, PLAN_FILE)}
    for path in files:
        if path.is_dir():
            inner = [one for one in checksums.below(path) if one.name in ZARR_METADATA]
        elif path.suffix.lower() in (*IMAGE_SUFFIXES, ".ids") or path in own:
            continue
        else:
            inner = [path]
        for one in inner:
            if damage := checksums.damage(one):
                raise InputError(f"{one} cannot be used: {damage}.")


def _parsed(line: str, alone: str) -> tuple[str, str]:
    """Digest and name of one line; `alone` is the name where a line is nothing but a digest."""
    if match := _LINE.fullmatch(line):
        return match[1].lower(), (match[2] or alone).strip()
    if match := _BSD_LINE.fullmatch(line):
        return match[2].lower(), match[1]
    return "", ""


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large for a list of checksums: give it another name.")
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as a list of checksums ({error}): write it again, or remove it."
        ) from error
