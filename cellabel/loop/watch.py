"""The drift streams, ticked: each plate once, in the order of acquisition, one commit an instrument.

What a tick decides is written under the id of its event before the state is committed, so a tick that is
killed anywhere, or run twice, leaves the same state, verdicts and alerts as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from cellabel.alerts import AlertLedger
from cellabel.drift import InstrumentWatch, PlateObservation, PlateVerdict
from cellabel.errors import InputError
from cellabel.loop.embeddings import embedding_matrix
from cellabel.loop.incidents import observe_verdict
from cellabel.loop.reliability import refresh_intervals
from cellabel.loop.streams import (
    ACQUISITION,
    Epoch,
    epoch_store,
    instrument_slug,
    open_detector,
    open_epoch,
    open_harm,
    stream_table,
    watch_index,
)
from cellabel.stores import Home, read_json, replace_bytes, write_json

__all__ = [
    "PendingVerdict",
    "forget_pending",
    "latest_verdict",
    "pending_verdicts",
    "stored_verdict",
    "tick_drift",
]


@dataclass(frozen=True)
class PendingVerdict:
    """A verdict that has been committed and not been reported yet."""

    instrument: str
    plate: str
    event_id: str
    content: Mapping[str, Any]


@dataclass(frozen=True)
class _Candidate:
    plate: str
    acquired_at: datetime | None
    first_seen: datetime

    @property
    def moment(self) -> datetime:
        return self.acquired_at or self.first_seen


def tick_drift(home: Home, ledger: AlertLedger, *, now: datetime | None = None) -> list[PlateVerdict]:
    """Judge the plates that no stream has seen, of every instrument with a reference.

    A plate in flight holds back the plates imaged after it, for at most `late_after_seconds`; a later arrival
    is put in its place by a replay.

    Returns:
        The verdicts of this tick, those that a late arrival changed among them.
    """
    moment = now or datetime.now(UTC)
    verdicts: list[PlateVerdict] = []
    waiting = _unseen(home)
    for slug in _instruments(home):
        epochs = _epochs(home, slug)
        reference = {plate for epoch in epochs.values() for plate in epoch.plates}
        candidates = [one for one in waiting.get(slug, ()) if one.plate not in reference]
        ready = _ready(home, candidates, epochs, moment)
        known = read_json(watch_index(home, slug)) or {}
        present = {stream: epoch.epoch for stream, epoch in epochs.items()}
        ready += _completed(home, known, epochs)
        if ready or known.get("epochs") != present:
            verdicts += _tick_instrument(home, ledger, slug, epochs, ready, moment)
    return verdicts


def pending_verdicts(home: Home) -> list[PendingVerdict]:
    """Verdicts that were committed and not confirmed as reported, oldest first.

    One that a replay has replaced since, or that a killed tick did not commit, is not among them.
    """
    folder = home.detectors / "pending"
    files = sorted(folder.glob("*.json")) if folder.exists() else []
    found = [content for file in files if (content := read_json(file))]
    pending = [PendingVerdict(one["instrument"], one["plate"], one["event_id"], one) for one in found]
    valid = [
        one for one in pending if (stored_verdict(home, one.plate) or {}).get("event_id") == one.event_id
    ]
    return sorted(valid, key=lambda one: (str(one.content["at"]), one.plate))


def forget_pending(home: Home, verdict: PendingVerdict) -> None:
    """The verdict has been reported."""
    (home.detectors / "pending" / f"{verdict.event_id}.json").unlink(missing_ok=True)


def stored_verdict(home: Home, plate: str) -> dict[str, Any] | None:
    """The latest verdict on a plate, or None."""
    return read_json(home.detectors / "verdicts" / f"{plate}.json")


def latest_verdict(home: Home, stream: str) -> dict[str, Any] | None:
    """The verdict that a stream passed last, on whichever plate, or None."""
    folder = home.detectors / "verdicts"
    files = folder.glob("*.json") if folder.exists() else ()
    verdicts = [one for file in files if (one := read_json(file)) and stream in one["streams"]]
    return max(verdicts, key=lambda one: str(one["at"]), default=None)


def _tick_instrument(
    home: Home,
    ledger: AlertLedger,
    slug: str,
    epochs: Mapping[str, Epoch],
    ready: list[_Candidate],
    now: datetime,
) -> list[PlateVerdict]:
    watch = _open_watch(home, slug)
    begun = {stream: epoch.model_version for stream, epoch in watch.epochs.items()}
    for stream, epoch in epochs.items():
        if begun.get(stream) != epoch.epoch:
            watch.start_epoch(
                stream,
                epoch.detector,
                epoch.reason or epoch.epoch,
                epoch.epoch,
                harm=epoch.harm,
                provisional=epoch.provisional,
                margin=epoch.margin,
            )
    verdicts: list[PlateVerdict] = []
    known = read_json(watch_index(home, slug)) or {}
    ticked = set(watch.plates) - set(known.get("lacking", ()))
    for candidate in ready:
        if candidate.plate in ticked:  # the index lags behind where a tick was killed between the two
            continue
        verdict = watch.tick(
            PlateObservation(
                candidate.plate,
                candidate.acquired_at,
                candidate.first_seen,
                _rows(home, candidate.plate, epochs),
            )
        )
        verdicts += [verdict, *verdict.replayed]
    for verdict in verdicts:
        incident = observe_verdict(home, ledger, slug, verdict, now)
        _keep(
            home, slug, verdict, epochs, now, persists=incident is not None and incident.severity == "ERROR"
        )
        refresh_intervals(home, verdict.plate)
    replace_bytes(home.detectors / "watch" / f"{slug}.npz", watch.to_bytes())
    named = {*known.get("lacking", ()), *(candidate.plate for candidate in ready)}
    lacking = {plate: missing for plate in sorted(named) if (missing := _lacking(home, plate, epochs, watch))}
    index = {
        "epochs": {stream: epoch.epoch for stream, epoch in epochs.items()},
        "plates": watch.plates,
        "judged": {**_judged(home, ready), **known.get("judged", {})},
        "lacking": lacking,
    }
    write_json(watch_index(home, slug), index)
    return verdicts


def _judged(home: Home, plates: list[_Candidate]) -> dict[str, str]:
    """When plates were judged, by what was written of them: a killed tick may have done so."""
    said = {one.plate: stored_verdict(home, one.plate) for one in plates}
    return {plate: verdict["at"] for plate, verdict in said.items() if verdict}


def _lacking(home: Home, plate: str, epochs: Mapping[str, Epoch], watch: InstrumentWatch) -> list[str]:
    """The streams of the present epochs that would have judged a plate, had they had rows that fit."""
    said = stored_verdict(home, plate) or {"epochs": {}}
    return [
        stream
        for stream, epoch in epochs.items()
        if said["epochs"].get(stream) == epoch.epoch
        and epoch.detector is not None
        and not watch.has_seen(plate, stream)
    ]


def _completed(home: Home, known: Mapping[str, Any], epochs: Mapping[str, Epoch]) -> list[_Candidate]:
    """Plates that ticked without the rows of a stream, and have them now: predicted late, or again."""
    found = []
    for plate, streams in known.get("lacking", {}).items():
        present = [
            epochs[one] for one in streams if one in epochs and known["epochs"][one] == epochs[one].epoch
        ]
        if any(_fits(home, plate, epoch) for epoch in present):
            candidate = _candidate(plate, home.plates.record(plate) or {})
            found += [candidate] if candidate else []
    return found


def _fits(home: Home, plate: str, epoch: Epoch) -> bool:
    parts = _table(home, plate, epoch)
    if parts is None:
        return False
    try:
        return bool(np.isfinite(epoch.standardise(embedding_matrix(home.tables.read(*parts)))).all())
    except InputError:
        return False


def _keep(
    home: Home,
    slug: str,
    verdict: PlateVerdict,
    epochs: Mapping[str, Epoch],
    now: datetime,
    *,
    persists: bool,
) -> None:
    content = stored_verdict(home, verdict.plate)
    if content is None or content["event_id"] != verdict.event_id:  # else a killed tick has written it
        content = {
            **verdict.to_dict(),
            "instrument": slug,
            "at": now.isoformat(),
            "persists": persists,
            "epochs": {stream: epoch.epoch for stream, epoch in epochs.items()},
        }
        content.pop("replayed")
    write_json(home.detectors / "verdicts" / f"{verdict.plate}.json", content)
    write_json(home.detectors / "pending" / f"{verdict.event_id}.json", content)


def _open_watch(home: Home, slug: str) -> InstrumentWatch:
    path = home.detectors / "watch" / f"{slug}.npz"
    if not path.exists():
        return InstrumentWatch(slug)
    state = InstrumentWatch.unpacked(path.read_bytes())  # once: it holds every plate ever seen
    detectors, harms = InstrumentWatch.needed(state)
    return InstrumentWatch.from_state(
        state,
        {name: one for name in detectors if (one := open_detector(home, name)) is not None},
        {name: harm for name in harms if (harm := open_harm(home, name)) is not None},
    )


def _unseen(home: Home) -> dict[str, list[_Candidate]]:
    """Accepted plates that no stream has seen, by instrument, in the order of acquisition."""
    seen: set[str] = set()
    for slug in _instruments(home):
        seen.update((read_json(watch_index(home, slug)) or {}).get("plates", ()))
        for stream in _streams(home, slug):
            seen.update((epoch_store(home).record(f"{slug}/{stream}") or {}).get("plates", ()))
    found: dict[str, list[_Candidate]] = {}
    new = [plate for plate in home.tables.names(ACQUISITION) if plate not in seen]
    for plate, record in home.plates.records(new).items():
        if candidate := _candidate(plate, record):
            found.setdefault(instrument_slug(str(record.get("instrument", ""))), []).append(candidate)
    return {slug: sorted(rows, key=lambda one: (one.moment, one.plate)) for slug, rows in found.items()}


def _candidate(plate: str, record: Mapping[str, Any]) -> _Candidate | None:
    if (
        record.get("status") != "accepted" or "first_seen" not in record
    ):  # refused, or its import is under way
        return None
    acquired = record.get("acquired_at")
    return _Candidate(
        plate,
        datetime.fromisoformat(acquired) if acquired else None,
        datetime.fromisoformat(str(record["first_seen"])),
    )


def _ready(
    home: Home, candidates: list[_Candidate], epochs: Mapping[str, Epoch], now: datetime
) -> list[_Candidate]:
    """The candidates up to the first that is still in flight and may be waited for."""
    patience = timedelta(seconds=home.settings.drift.late_after_seconds)
    ready = []
    for candidate in candidates:
        whole = all(_table(home, candidate.plate, epoch) for epoch in epochs.values())
        if not whole and now - candidate.first_seen < patience:
            break
        ready.append(candidate)
    return ready


def _rows(home: Home, plate: str, epochs: Mapping[str, Epoch]) -> dict[str, tuple[list[str], Any]]:
    """Standardised rows by stream, in the order of imaging."""
    order = {well: place for place, well in enumerate(home.tables.read(ACQUISITION, plate)["Metadata_Well"])}
    rows: dict[str, tuple[list[str], Any]] = {}
    for stream, epoch in epochs.items():
        parts = _table(home, plate, epoch)
        if parts is None:
            continue
        table = home.tables.read(*parts)
        table = table.iloc[table["Metadata_Well"].map(order).argsort(kind="stable")]
        matrix = embedding_matrix(table)
        with suppress(InputError):  # the stream refuses rows that do not fit, and its verdict says why
            matrix = epoch.standardise(matrix)
        rows[stream] = (table["Metadata_Well"].tolist(), matrix)
    return rows


def _table(home: Home, plate: str, epoch: Epoch) -> tuple[str, ...] | None:
    """Where the plate's rows for a stream lie, or None where they are not there yet."""
    parts = stream_table(epoch, plate)
    return parts if home.tables.has(*parts) else None


def _instruments(home: Home) -> list[str]:
    root = epoch_store(home).root
    return sorted(folder.name for folder in root.iterdir() if folder.is_dir()) if root.exists() else []


def _streams(home: Home, slug: str) -> list[str]:
    return sorted(folder.name for folder in (epoch_store(home).root / slug).iterdir() if folder.is_dir())


def _epochs(home: Home, slug: str) -> dict[str, Epoch]:
    found = {stream: open_epoch(home, slug, stream) for stream in _streams(home, slug)}
    return {stream: epoch for stream, epoch in found.items() if epoch is not None}
