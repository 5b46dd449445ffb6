"""From the inbox to plates that have a name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cellabel.errors import InputError
from cellabel.plates import open_acquisition
from cellabel.plates.inbox import Arrival, scan_inbox
from cellabel.stores import Home, read_json, write_json

__all__ = ["NewPlate", "Refusal", "arrived_plates", "remember_done"]


@dataclass(frozen=True)
class NewPlate:
    """An acquisition that is complete and not taken in yet."""

    plate_id: str
    folder: Path
    fingerprint: str

    @property
    def event_id(self) -> str:
        """The same for the same export, another one for a changed export."""
        return event_id(self.folder, self.fingerprint)


@dataclass(frozen=True)
class Refusal:
    """An acquisition that cannot be taken in, and why."""

    folder: Path
    fingerprint: str
    reason: str

    @property
    def event_id(self) -> str:
        """The same for the same export, another one for a changed export."""
        return event_id(self.folder, self.fingerprint)


def arrived_plates(
    home: Home,
    *,
    now: float | None = None,
    requested: Callable[[str], bool] = lambda event_id: False,
    limit: int | None = None,
) -> list[NewPlate | Refusal]:
    """The complete acquisitions of the inbox that `remember_done` has not been told of, first come first.

    A plate id belongs to the folder that brought it first: another folder with the same id is refused, the
    same folder with changed content is a new export of the plate.

    Args:
        home: the stores and settings.
        now: seconds since the epoch, by default the clock's.
        requested: whether a run has been asked for, by `event_id`: such exports are remembered as done.
        limit: at most so many are looked into; the others come at the next look.
    """
    before = read_json(home.inbox_memory) or {}
    inbox = home.settings.inbox
    arrivals, memory = scan_inbox(
        home.settings.inbox_folder,
        before,
        now=time.time() if now is None else now,
        settle_seconds=inbox.settle_seconds,
        incomplete_seconds=inbox.incomplete_seconds,
        taken={name for name, known in before.items() if known.get("done") == known.get("fingerprint")},
    )
    for name, known in before.items():
        if name in memory:
            memory[name] |= {key: known[key] for key in ("done", "asked") if key in known}
    # Who was returned and not requested all the same waits behind the others, so that a few keep nobody out.
    new = [one for one in arrivals if memory[one.folder.name].get("done") != one.fingerprint]
    new.sort(key=lambda arrival: int(memory[arrival.folder.name].get("asked", 0)))
    fresh: list[Arrival] = []
    for arrival in new:
        known = memory[arrival.folder.name]
        if len(fresh) == limit:
            break
        if requested(event_id(arrival.folder, arrival.fingerprint)):
            known["done"] = arrival.fingerprint
        else:
            known["asked"] = int(known.get("asked", 0)) + 1
            fresh.append(arrival)
    if memory != before:
        write_json(home.inbox_memory, memory)
    return [_identify(home, arrival) for arrival in fresh]


def event_id(folder: Path, fingerprint: str) -> str:
    """The same for the same export, another one for a changed export."""
    return f"{folder.name}:{fingerprint}"


def remember_done(home: Home, *arrivals: NewPlate | Refusal) -> None:
    """These exports need not be looked at again."""
    if not arrivals:
        return
    memory = read_json(home.inbox_memory) or {}
    for arrival in arrivals:
        memory.setdefault(arrival.folder.name, {})["done"] = arrival.fingerprint
    write_json(home.inbox_memory, memory)


def _identify(home: Home, arrival: Arrival) -> NewPlate | Refusal:
    try:
        plate_id = open_acquisition(arrival.folder, channels=home.settings.inbox.channels).plate_id
        owner = (home.plates.record(plate_id) or {}).get("source")
        if owner and Path(owner) != arrival.folder.resolve():
            raise InputError(
                f"{arrival.folder} says it is plate {plate_id}, which {owner} has brought already: give one "
                "of the two another plate id."
            )
    except InputError as error:
        return Refusal(arrival.folder, arrival.fingerprint, str(error))
    if not owner:
        home.plates.update_record(plate_id, status="arriving", source=str(arrival.folder.resolve()))
    return NewPlate(plate_id, arrival.folder, arrival.fingerprint)
