"""Which observations have ticked already: 64-bit digests and the steps they gave, 24 bytes each."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Entry", "Ledger", "Step", "digest"]

SHELVES = 256


def digest(identifier: str) -> int:
    """A 64-bit digest of `identifier`; two of ten million differ with probability 1 − 3e-6."""
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest(), "big")


COLUMNS = ("id_digests", "id_times", "id_statistics", "id_changes")
"""Names of the arrays of a ledger."""


class Step(NamedTuple):
    """What one observation did.

    Attributes:
        time: observations since the start or the last reset, 1 at the first.
        statistic: MMD² of the window against the reference; with several windows, the largest of their
            calibrated ones.
        threshold: what the statistic was compared with.
        drift: whether it lies above, at this tick alone.
        change_time: where there is drift, the time of the first observation taken to be different; else None.
    """

    time: int
    statistic: float
    threshold: float
    drift: bool
    change_time: int | None


class Entry(NamedTuple):
    """What is kept of a step: its tick, its statistic, and the change time (0 where there was no alarm)."""

    time: int
    statistic: float
    change: int


class Ledger:
    """Digest → entry, on 256 sorted shelves: a look-up and an insertion cost microseconds at any size."""

    def __init__(self) -> None:
        self._digests = [array("Q") for _ in range(SHELVES)]
        self._times = [array("I") for _ in range(SHELVES)]
        self._statistics = [array("d") for _ in range(SHELVES)]
        self._changes = [array("I") for _ in range(SHELVES)]

    def __len__(self) -> int:
        return sum(len(shelf) for shelf in self._digests)

    def find(self, key: int) -> Entry | None:
        """The entry of digest `key`, or None."""
        shelf = key >> 56
        digests = self._digests[shelf]
        place = bisect_left(digests, key)
        if place == len(digests) or digests[place] != key:
            return None
        return Entry(self._times[shelf][place], self._statistics[shelf][place], self._changes[shelf][place])

    def add(self, key: int, entry: Entry) -> None:
        """Keep `entry` under digest `key`, which must be new."""
        shelf = key >> 56
        place = bisect_left(self._digests[shelf], key)
        self._digests[shelf].insert(place, key)
        self._times[shelf].insert(place, entry.time)
        self._statistics[shelf].insert(place, entry.statistic)
        self._changes[shelf].insert(place, entry.change)

    def to_arrays(self) -> dict[str, NDArray]:
        """The ledger as four arrays in the order of the digests."""
        return {
            "id_digests": _joined(self._digests, np.uint64),
            "id_times": _joined(self._times, np.uint32),
            "id_statistics": _joined(self._statistics, np.float64),
            "id_changes": _joined(self._changes, np.uint32),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray]) -> Ledger:
        """The ledger that `to_arrays` wrote."""
        ledger = cls()
        digests = arrays["id_digests"]
        bounds = np.searchsorted(digests >> np.uint64(56), np.arange(SHELVES + 1, dtype=np.uint64))
        columns = (
            (ledger._digests, digests, "Q", np.uint64),
            (ledger._times, arrays["id_times"], "I", np.uint32),
            (ledger._statistics, arrays["id_statistics"], "d", np.float64),
            (ledger._changes, arrays["id_changes"], "I", np.uint32),
        )
        for shelves, values, code, kind in columns:
            for shelf in np.flatnonzero(np.diff(bounds)).tolist():
                part = np.ascontiguousarray(values[bounds[shelf] : bounds[shelf + 1]], dtype=kind)
                shelves[shelf] = array(code, part.tobytes())
        return ledger


def _joined(shelves: list[array], kind: type) -> NDArray:
    return np.concatenate(
        [np.empty(0, kind), *(np.frombuffer(shelf, dtype=kind) for shelf in shelves if shelf)]
    )
