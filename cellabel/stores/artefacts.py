"""Folders with versions and one record that points to the current one."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from upath import UPath

from cellabel.errors import InputError
from cellabel.stores._atomic import as_path, is_local, place_errors, read_json, write_json
from cellabel.stores._memory import FileMemory

RECORD = "record.json"
_RECORDS: FileMemory[dict[str, Any]] = FileMemory(lambda content: content)
_PLATE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_plate_id(plate_id: str) -> str:
    """`plate_id` itself, when it can name a plate.

    Raises:
        InputError: other characters than letters, digits, dot, underscore and hyphen, or more than 100.
    """
    if not isinstance(plate_id, str) or not _PLATE_ID.fullmatch(plate_id):
        raise InputError(
            f"The plate id {plate_id!r} cannot be used: begin with a letter or digit, then at most 99 "
            "letters, digits, dots, underscores or hyphens; rename the plate or give another id."
        )
    return plate_id


class ArtefactStore:
    """Named artefacts, each a folder of versions beside the record of the current one.

    A name is one or more parts joined by "/", for example `P1` or `P1/nuclei`.
    """

    what = "artefact"

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.root = as_path(url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r})"

    def names(self) -> list[str]:
        """The artefacts that have a record, sorted (top-level names only).

        Raises:
            InputError: the place cannot be read.
        """
        try:
            if not self.root.exists():
                return []
            if is_local(self.root):  # by the names alone: path objects of ten thousand folders take a while
                root = str(self.root)
                return sorted(name for name in os.listdir(root) if os.path.exists(f"{root}/{name}/{RECORD}"))
            return sorted(folder.name for folder in self.root.iterdir() if (folder / RECORD).exists())
        except place_errors() as error:
            raise InputError(
                f"{self.root} cannot be listed ({error}): see that the store can be reached."
            ) from error

    def record(self, name: str) -> dict[str, Any] | None:
        """What is known of the current version, or None."""
        return read_json(self._folder(name) / RECORD)

    def records(self, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Name → what `record` says, of those that have one; only what was replaced since is read again.

        Args:
            names: as of folders that are there: they are not checked.
        """
        places = {f"{name}/{RECORD}": name for name in names}
        return {places[place]: said for place, said in _RECORDS.of_files(self.root, places).items()}

    def path(self, name: str, version: str | None = None) -> UPath:
        """The folder of the current, or of the given, version.

        Raises:
            InputError: there is none.
        """
        if version is None:
            record = self.record(name)
            if record is None or not record.get("version"):
                raise InputError(
                    f"There is no {self.what} {name!r} in {self.root}: list what is there, or make it first."
                )
            version = str(record["version"])
        folder = self._folder(name) / version
        if not folder.exists():
            raise InputError(
                f"Version {version} of the {self.what} {name!r} is missing in {self.root}: make it again."
            )
        return folder

    def has(self, name: str, version: str) -> bool:
        """Whether this version is there, whole."""
        return (
            (self._folder(name) / version).exists()
            if is_local(self.root)
            else self._is_complete(name, version)
        )

    @contextmanager
    def write(self, name: str, version: str, record: Mapping[str, Any] | None = None) -> Iterator[UPath]:
        """A scratch folder that becomes `version` of `name`, and the current one, when the block ends well.

        When the block raises, the scratch folder is removed and the record stays as it was. The record may be
        filled inside the block: it is written last.

        Raises:
            InputError: the disk is full, or the place cannot be written.
        """
        _check_version(version)
        folder = self._folder(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._sweep(folder)
            with self._scratch(folder, version) as scratch:
                yield scratch
        except place_errors() as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(
                f"The {self.what} {name!r} could not be written to {self.root} ({why}): make room "
                "there or choose another place, then run this again; nothing half-written is kept."
            ) from error
        write_json(folder / RECORD, {**(record or {}), "name": name, "version": version})

    def update_record(self, name: str, **changes: Any) -> dict[str, Any]:
        """Change fields of the record; returns the new one."""
        record = {**(self.record(name) or {"name": name}), **changes}
        write_json(self._folder(name) / RECORD, record)
        return record

    @contextmanager
    def _scratch(self, folder: UPath, version: str) -> Iterator[UPath]:
        final = folder / version
        if not is_local(self.root):  # no rename there: written in place, whole once the record names it
            yield final
            write_json(final / ".complete", {"version": version})
            return
        scratch = folder / f".{version}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part"
        try:
            scratch.mkdir(parents=True)
            yield scratch
            try:
                os.replace(str(scratch), str(final))
            except OSError:
                if not final.exists():
                    raise
                # Whoever was first, now or long ago: the same version is the same content.
        finally:
            shutil.rmtree(str(scratch), ignore_errors=True)

    def _sweep(self, folder: UPath) -> None:
        """Remove what a killed process left behind."""
        if not is_local(self.root):
            return
        for left in folder.glob(".*.part"):
            owner = re.search(r"\.(\d+)-[0-9a-f]{8}\.part$", left.name)
            if owner and not _is_running(int(owner.group(1))):
                if left.is_dir():
                    shutil.rmtree(str(left), ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)

    def _is_complete(self, name: str, version: str) -> bool:
        return (self._folder(name) / version / ".complete").exists()

    def _folder(self, name: str) -> UPath:
        parts = name.split("/")
        if any(not _PLATE_ID.fullmatch(part) for part in parts):
            raise InputError(
                f"{name!r} cannot name a {self.what}: use letters, digits, dots, underscores and hyphens."
            )
        return self.root.joinpath(*parts)


class PlateStore(ArtefactStore):
    """The plates: names are plate ids; the record says what state a plate is in.

    Fields of a record: `status` (accepted, quarantined or retired), `reason`, `content_hash`, `acquired_at`,
    `instrument`, `pixel_size_um`, `channels`, `n_fields`, `n_quarantined`.
    """

    what = "plate"

    def _folder(self, name: str) -> UPath:
        return self.root / check_plate_id(name)

    def accepted(self) -> list[str]:
        """The plates that runs may use, sorted by name."""
        return list(self.accepted_records())

    def accepted_records(self) -> dict[str, Mapping[str, Any]]:
        """Name → record of the plates that runs may use, sorted by name."""
        names = (
            sorted(os.listdir(str(self.root))) if is_local(self.root) and self.root.exists() else self.names()
        )
        return {
            name: record for name, record in self.records(names).items() if record.get("status") == "accepted"
        }


def plate_store(store: PlateStore | str | os.PathLike[str]) -> PlateStore:
    """A plate store from itself, a path or a URL."""
    return store if isinstance(store, PlateStore) else PlateStore(store)


def _check_version(version: str) -> None:
    if not _PLATE_ID.fullmatch(version):
        raise InputError(
            f"{version!r} cannot name a version: use letters, digits, dots, underscores and hyphens."
        )


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
