"""What many small files say, each read again only where it has been replaced."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from upath import UPath

from cellabel.stores._atomic import cannot_be_read, is_local, json_names, parse_json, read_json

__all__ = ["FileMemory"]

Content = TypeVar("Content")
SETTLED_NS = 1_000_000_000
"""A file younger than this may be replaced within the resolution of its times, and is read every time."""


class FileMemory(Generic[Content]):
    """Parsed JSON objects of files that are replaced as wholes, as long as this process lives.

    A file of the same number, size and times says what it said. On an object store every file is read.

    Args:
        parse: makes of a JSON object what is remembered; it is shared by all who ask, and not to be changed.
    """

    def __init__(self, parse: Callable[[dict[str, Any]], Content]) -> None:
        self._parse = parse
        self._known: dict[str, tuple[tuple[int, ...], Content]] = {}

    def of_folder(self, folder: UPath) -> list[Content]:
        """What the JSON files of a folder say, in the order of their names; nothing where it is missing.

        Raises:
            InputError: a file is not JSON.
        """
        return list(self.of_files(folder, json_names(folder)).values())

    def of_files(self, root: UPath, places: Iterable[str]) -> dict[str, Content]:
        """Place below `root` → what its file says, without the places where there is none.

        Raises:
            InputError: a file is not JSON.
        """
        local, found = is_local(root), {}
        for place in places:
            if local:
                content = self._local(f"{root}/{place}")
            else:
                read = read_json(root / place)
                content = None if read is None else self._parse(read)
            if content is not None:
                found[place] = content
        return found

    def _local(self, path: str) -> Content | None:
        known = self._known.get(path)
        try:
            if known is not None and known[0] == _mark(os.stat(path)):
                return known[1]
            # Unbuffered and without a path object: ten thousand files are read after a start.
            with open(path, "rb", buffering=0) as file:
                mark, text = _mark(os.fstat(file.fileno())), file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise cannot_be_read(path, error) from error
        content = self._parse(parse_json(text, path))
        if time.time_ns() - max(mark[2:]) > SETTLED_NS:
            self._known[path] = mark, content
        return content


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
