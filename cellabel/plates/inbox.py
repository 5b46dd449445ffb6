"""Which acquisition folders have arrived whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Arrival", "scan_inbox"]

END_MARKER = "transfer.complete"
_IGNORED = {"Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Arrival:
    """A folder that has stopped growing.

    Attributes:
        folder: where it lies.
        fingerprint: of names, sizes and times of its files; another one means another export.
    """

    folder: Path
    fingerprint: str


def scan_inbox(
    inbox: Path, seen: Mapping[str, Mapping[str, Any]], *, now: float, settle_seconds: float
) -> tuple[list[Arrival], dict[str, dict[str, Any]]]:
    """The folders that are complete, and what to remember until the next look.

    A folder is complete when it holds a file `transfer.complete`, or when the names, sizes and times of its
    files have been the same for `settle_seconds`. Hidden names and symbolic links are ignored.

    Args:
        inbox: the folder under which acquisition folders appear; it need not exist.
        seen: what the last look returned: folder name → fingerprint and time of its last change.
        now: seconds since the epoch.
        settle_seconds: how long nothing may have changed.

    Returns:
        The complete folders in order of their names, taken before or not; and the new memory.
    """
    arrivals: list[Arrival] = []
    memory: dict[str, dict[str, Any]] = {}
    for folder in _folders(inbox):
        fingerprint, marked = _fingerprint(folder)
        if not fingerprint:
            continue
        before = seen.get(folder.name, {})
        since = float(before["since"]) if before.get("fingerprint") == fingerprint else now
        memory[folder.name] = {"fingerprint": fingerprint, "since": since}
        if marked or now - since >= settle_seconds:
            arrivals.append(Arrival(folder, fingerprint))
    return arrivals, memory


def _folders(inbox: Path) -> list[Path]:
    if not inbox.is_dir():
        return []
    found = [path for path in inbox.iterdir() if not path.name.startswith(".")]
    return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def _fingerprint(folder: Path) -> tuple[str, bool]:
    """Digest of what lies in a folder, empty for no files; and whether the end marker is there."""
    digest, files, marked = hashlib.sha256(), 0, False
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or name in _IGNORED or path.is_symlink():
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # moved away while we looked: the next look sees it
                continue
            marked |= name == END_MARKER
            files += 1
            digest.update(f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return (digest.hexdigest()[:16] if files else ""), marked
