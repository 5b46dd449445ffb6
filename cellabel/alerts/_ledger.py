"""Alerts at rest, and on their way."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from upath import UPath

from cellabel.alerts._alert import Acknowledgement, Alert, alert_id
from cellabel.errors import InputError
from cellabel.stores import json_names, read_json, write_json

LOG = "log"
"""The receiver that is always there."""

_logger = logging.getLogger("cellabel.alerts")
_SEVERITY = {"promotion": "info", "diagnosis": "info", "failure": "error", "person_needed": "error"}
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True)
class Delivery:
    """What one round of deliveries did.

    Attributes:
        delivered: (alert id, receiver) that arrived.
        failed: (alert id, receiver, reason) that will be tried again.
        abandoned: the same, tried as often as is allowed.
    """

    delivered: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str, str], ...] = ()
    abandoned: tuple[tuple[str, str, str], ...] = ()


class AlertLedger:
    """An append-only outbox: one JSON file an alert, beside it what was delivered and who acknowledged.

    Args:
        url: a local folder or fsspec URL, made at the first alert.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.root = UPath(url)

    def __repr__(self) -> str:
        return f"AlertLedger({str(self.root)!r})"

    def write(self, alert: Alert) -> bool:
        """Keep an alert; one with the same id stays as it is.

        Returns:
            Whether it is new.
        """
        path = self._alert_path(alert.id)
        if path.exists():
            return False
        write_json(path, alert.to_json())
        return True

    def tell(
        self,
        kind: str,
        event: str,
        title: str,
        body: str = "",
        *,
        severity: str | None = None,
        plate: str | None = None,
        organelle: str | None = None,
        link: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> bool:
        """Write the alert of one event; telling it again changes nothing.

        Args:
            kind: one of `KINDS`.
            event: what makes it unique, for example `promotion:er:3`; the id is made from it.
            title: one line.
            body: what happened and what to do.
            severity: info, warning or error; None means the kind's own.
            plate: the plate that it is about.
            organelle: the organelle that it is about.
            link: where to look.
            data: numbers behind the sentence, JSON.

        Returns:
            Whether it is new.
        """
        alert = Alert(
            id=alert_id(event),
            kind=kind,
            title=title,
            body=body,
            severity=severity or _SEVERITY.get(kind, "warning"),
            plate=plate,
            organelle=organelle,
            link=link,
            data=data or {},
        )
        return self.write(alert)

    def get(self, alert_id: str) -> Alert:
        """The alert with this id.

        Raises:
            InputError: there is none.
        """
        content = read_json(self._alert_path(alert_id))
        if content is None:
            raise InputError(f"There is no alert {alert_id!r} in {self.root}: list the alerts for their ids.")
        return Alert.from_json(content)

    def alerts(self, kind: str | None = None, *, unacknowledged: bool = False) -> list[Alert]:
        """The alerts, the oldest first.

        Args:
            kind: only this kind.
            unacknowledged: only those that nobody has acknowledged.
        """
        seen = set(self._names("acknowledged")) if unacknowledged else set()
        contents = (
            read_json(self.root / "alerts" / name) for name in self._names("alerts") if name not in seen
        )
        found = [Alert.from_json(content) for content in contents if content is not None]
        return sorted(
            (alert for alert in found if kind in (None, alert.kind)),
            key=lambda alert: (alert.created_at, alert.id),
        )

    def acknowledge(
        self, alert_id: str, by: str, note: str = "", *, genuine: bool | None = None
    ) -> Acknowledgement:
        """Write down that a person has seen an alert; the first acknowledgement stays.

        Args:
            alert_id: the alert.
            by: who.
            note: free text.
            genuine: whether the alarm was a true one (for `precision`).

        Raises:
            InputError: there is no such alert.
        """
        self.get(alert_id)
        known = self.acknowledgement(alert_id)
        if known is not None:
            return known
        new = Acknowledgement(by, note, genuine)
        content = {**dataclasses.asdict(new), "at": new.at.isoformat()}
        write_json(self.root / "acknowledged" / f"{alert_id}.json", content)
        return new

    def acknowledgement(self, alert_id: str) -> Acknowledgement | None:
        """Who acknowledged an alert, or None."""
        content = read_json(self.root / "acknowledged" / f"{alert_id}.json")
        if content is None:
            return None
        return Acknowledgement(**{**content, "at": dt.datetime.fromisoformat(content["at"])})

    def precision(self, kind: str = "drift") -> tuple[int, int]:
        """How many of the judged alarms were genuine: (genuine, judged)."""
        said = [self.acknowledgement(alert.id) for alert in self.alerts(kind)]
        judged = [one.genuine for one in said if one is not None and one.genuine is not None]
        return sum(judged), len(judged)

    def deliver_pending(self, urls: Sequence[str] = (), *, max_attempts: int = 5) -> Delivery:
        """Send every alert to the log and to each URL that has not had it.

        An alert is marked as delivered after it was taken, receiver by receiver: a crash in between sends it
        again, with the same id in its last line. A failed delivery is tried again by the next call, at most
        `max_attempts` times. A second process that delivers at the same time leaves the work to the first.

        Args:
            urls: apprise addresses, for example `json://host/path` or `mailto://…`; they may hold secrets and
                are neither stored nor logged.
            max_attempts: per alert and URL.
        """
        delivered: list[tuple[str, str]] = []
        failed: list[tuple[str, str, str]] = []
        abandoned: list[tuple[str, str, str]] = []
        with self._turn() as mine:
            if not mine:
                return Delivery()
            done = set(self._names("delivered"))
            receivers: dict[str, str | None] = {LOG: None, **{_receiver(url): url for url in urls}}
            for alert in self._without(done, receivers):
                for receiver, url in receivers.items():
                    if f"{alert.id}.{receiver}.json" in done:
                        continue
                    attempts = self._attempts(alert.id, receiver)
                    if attempts >= max_attempts:
                        continue
                    error = _send(alert, url)
                    if error is None:
                        self._mark(alert.id, receiver)
                        delivered.append((alert.id, receiver))
                        continue
                    self._count(alert.id, receiver, attempts + 1, error)
                    last = attempts + 1 >= max_attempts
                    (abandoned if last else failed).append((alert.id, receiver, error))
        for name, receiver, error in abandoned:
            _logger.error(
                "Alert %s was given up for %s after %d tries: %s", name, receiver, max_attempts, error
            )
        return Delivery(tuple(delivered), tuple(failed), tuple(abandoned))

    def _without(self, done: set[str], receivers: Iterable[str]) -> list[Alert]:
        """The alerts that some receiver has not had, the oldest first; the others are not even read."""
        names = [name.removesuffix(".json") for name in self._names("alerts")]
        left = [name for name in names if any(f"{name}.{one}.json" not in done for one in receivers)]
        contents = [read_json(self._alert_path(name)) for name in left]
        found = [Alert.from_json(content) for content in contents if content is not None]
        return sorted(found, key=lambda alert: (alert.created_at, alert.id))

    def _mark(self, alert_id: str, receiver: str) -> None:
        at = dt.datetime.now(dt.UTC).isoformat()
        write_json(self.root / "delivered" / f"{alert_id}.{receiver}.json", {"at": at})

    def _attempts(self, alert_id: str, receiver: str) -> int:
        content = read_json(self.root / "attempts" / f"{alert_id}.{receiver}.json")
        return 0 if content is None else int(content["attempts"])

    def _count(self, alert_id: str, receiver: str, attempts: int, error: str) -> None:
        content = {"attempts": attempts, "error": error}
        write_json(self.root / "attempts" / f"{alert_id}.{receiver}.json", content)

    def _alert_path(self, alert_id: str) -> UPath:
        return self.root / "alerts" / f"{alert_id}.json"

    def _names(self, part: str) -> list[str]:
        return json_names(self.root / part)

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Whether this process may deliver now."""
        if not isinstance(self.root, Path) or not self.root.exists():
            yield True
            return
        lock = FileLock(str(self.root / "deliver.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def _receiver(url: str) -> str:
    """A name for an address that gives its secrets away to nobody."""
    return f"{url.partition(':')[0].lower() or 'none'}-{hashlib.sha256(url.encode()).hexdigest()[:10]}"


def _send(alert: Alert, url: str | None) -> str | None:
    """Hand an alert over; the reason where that failed."""
    if url is None:
        _logger.log(_LEVELS[alert.severity], "%s: %s %s", alert.kind, alert.title, _text(alert))
        return None
    import apprise

    sender = apprise.Apprise()
    if not sender.add(url):
        return "apprise does not know this kind of address"
    kinds: dict[str, Any] = {
        "info": apprise.NotifyType.INFO,
        "warning": apprise.NotifyType.WARNING,
        "error": apprise.NotifyType.FAILURE,
    }
    taken = sender.notify(title=alert.title, body=_text(alert), notify_type=kinds[alert.severity])
    return None if taken else "the receiver did not take it"


def _text(alert: Alert) -> str:
    parts = [alert.body, alert.link or "", f"Alert {alert.id}"]
    if alert.data:
        parts.insert(1, json.dumps(dict(alert.data), sort_keys=True, default=str))
    return "\n".join(part for part in parts if part)
