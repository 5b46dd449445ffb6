"""Which acquisition folders have arrived whole."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Arrival", "scan_inbox", "vendor_state"]

END_MARKER = "transfer.complete"
LOOKS = 100
"""Folders taken in before whose files are looked at again at one look."""

_IGNORED = {"Thumbs.db", "desktop.ini"}
_KEPT = ("fingerprint", "since", "first", "changed", "listed")


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
    inbox: Path,
    seen: Mapping[str, Mapping[str, Any]],
    *,
    now: float,
    settle_seconds: float,
    incomplete_seconds: float | None = None,
    taken: Collection[str] = (),
    looks: int = LOOKS,
) -> tuple[list[Arrival], dict[str, dict[str, Any]]]:
    """The folders that are complete, and what to remember until the next look.

    A folder is complete when it holds a file `transfer.complete`, or when the names, sizes and times of its
    files have been the same for `settle_seconds`; or, where the vendor lists the images that were taken, when
    all of them are there and nothing has changed between two looks. While a listed image is missing, the
    folder waits `incomplete_seconds`: copying may pause. Hidden names and symbolic links are ignored.

    What lies in a folder that was taken in seldom changes, and after years there are many: each look goes
    into those whose own time of change is another one, and into a few of the others by lot.

    Args:
        inbox: the folder under which acquisition folders appear; it need not exist.
        seen: what the last look returned: folder name → fingerprint and time of its last change.
        now: seconds since the epoch.
        settle_seconds: how long nothing may have changed.
        incomplete_seconds: the same where listed images are missing; by default `settle_seconds`.
        taken: names of the folders that were taken in as they were seen last.
        looks: into so many of these, whatever their times say.

    Returns:
        The complete folders, first come first, taken before or not; and the new memory.
    """
    arrivals: list[Arrival] = []
    memory: dict[str, dict[str, Any]] = {}
    folders = _folders(inbox)
    quiet = sorted(folder.name for folder, changed in folders if _is_quiet(folder, changed, seen, taken))
    passed = set(quiet) - set(random.Random(now).sample(quiet, min(looks, len(quiet))))
    for folder, changed in folders:
        before = seen.get(folder.name, {})
        if folder.name in passed:
            memory[folder.name] = {name: before[name] for name in _KEPT if name in before}
            arrivals.append(Arrival(folder, str(before["fingerprint"])))
            continue
        fingerprint, marked = _fingerprint(folder)
        if not fingerprint:
            continue
        same = before.get("fingerprint") == fingerprint
        since = float(before["since"]) if same else now
        first = float(before.get("first", since))
        memory[folder.name] = {
            "fingerprint": fingerprint,
            "since": since,
            "first": first,
            "changed": changed,
        }
        listed = before.get("listed") if same else None
        if same and not marked and listed is None:
            listed = vendor_state(folder)  # once a fingerprint: the lists of large plates are long
        if listed is not None:
            memory[folder.name]["listed"] = listed
        wait = settle_seconds
        if listed == "missing" and incomplete_seconds is not None:
            wait = max(settle_seconds, incomplete_seconds)
        if marked or listed == "whole" or now - since >= wait:
            arrivals.append(Arrival(folder, fingerprint))
    arrivals.sort(key=lambda arrival: (memory[arrival.folder.name]["first"], arrival.folder.name))
    return arrivals, memory


def vendor_state(folder: Path) -> str:
    """What the vendor's list of images says of a folder: "whole", "missing" (some are), or "" without one.

    Phenix writes its index, and CellVoyager the end time of the measurement, when all images are taken.
    """
    sizes: dict[str, int] = {}
    lists: list[Path] = []
    for path in _files(folder):
        name = path.name.lower()
        if name in ("index.xml", "index.idx.xml") or name.endswith((".mlf", ".mrf")):
            lists.append(path)
        try:
            sizes[name] = path.stat().st_size
        except OSError:
            return "missing"
    wanted: set[str] = set()
    for path in lists:
        try:
            text = path.read_bytes()
        except OSError:
            return "missing"
        if path.name.lower().endswith(".mrf"):
            if not re.search(rb'EndTime(="[^"]|>[^<])', text):
                return "missing"
            continue
        if not re.search(rb"</[^<>]+>\s*$", text):
            return "missing"
        pattern = rb'Type="IMG"[^>]*>([^<]+)<' if path.suffix.lower() == ".mlf" else rb"<URL>([^<]+)</URL>"
        names = (found.decode("utf-8", "replace").strip() for found in re.findall(pattern, text))
        wanted |= {re.split(r"[\\/]", name)[-1].lower() for name in names}
    if not wanted:
        return ""
    return "whole" if all(sizes.get(name) for name in wanted) else "missing"


def _folders(inbox: Path) -> list[tuple[Path, int]]:
    """The folders of the inbox, by name, and when (ns) a file last came into each, went or was renamed."""
    if not inbox.is_dir():
        return []
    found = []
    with os.scandir(inbox) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                continue
            try:
                found.append((inbox / entry.name, entry.stat(follow_symlinks=False).st_mtime_ns))
            except FileNotFoundError:  # moved away while we looked
                continue
    return sorted(found)


def _is_quiet(
    folder: Path, changed: int, seen: Mapping[str, Mapping[str, Any]], taken: Collection[str]
) -> bool:
    return folder.name in taken and seen.get(folder.name, {}).get("changed") == changed


def _fingerprint(folder: Path) -> tuple[str, bool]:
    """Digest of what lies in a folder, empty for no files; and whether the end marker is there."""
    digest, files, marked = hashlib.sha256(), 0, False
    for name, entry in _entries(str(folder)):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # moved away while we looked: the next look sees it
            continue
        marked |= entry.name == END_MARKER
        files += 1
        # As bytes: a name need not be valid text.
        digest.update(os.fsencode(name) + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return (digest.hexdigest()[:16] if files else ""), marked


def _entries(folder: str, below: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The files of `_files`, by their names below the folder: there may be a million of them."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    folders = []
    for entry in entries:
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry)
        elif entry.name not in _IGNORED:
            yield below + entry.name, entry
    for entry in folders:
        yield from _entries(entry.path, f"{below}{entry.name}/")


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not (name.startswith(".") or name in _IGNORED or path.is_symlink()):
                yield path
