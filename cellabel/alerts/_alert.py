"""What an alert is."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cellabel.errors import InputError

KINDS = ("drift", "diagnosis", "promotion", "failure", "labels_needed", "person_needed", "quarantine")
SEVERITIES = ("info", "warning", "error")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,159}")


def alert_id(*parts: object) -> str:
    """A deterministic id: the same parts give the same id, other ones another.

    Args:
        parts: what makes the event unique, for example kind, stream epoch, organelle and plate.
    """
    text = json.dumps([str(part) for part in parts])
    words = re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-_") or "alert"
    return f"{words[:120]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something that a person should know.

    Attributes:
        id: deterministic, see `alert_id`; letters, digits, hyphens and underscores.
        kind: one of `KINDS`.
        title: one line.
        body: what happened and what to do.
        severity: info, warning or error.
        plate: the plate that it is about, if any.
        organelle: the organelle that it is about, if any.
        created_at: UTC.
        link: where to look.
        data: numbers behind the sentence, JSON.

    Raises:
        InputError: the id cannot name a file, or kind or severity are unknown.
    """

    id: str
    kind: str
    title: str
    body: str = ""
    severity: str = "warning"
    plate: str | None = None
    organelle: str | None = None
    created_at: dt.datetime = field(default_factory=_now)
    link: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise InputError(f"The alert id {self.id!r} cannot be used: make one with alert_id().")
        if self.kind not in KINDS:
            raise InputError(f"No alert is of the kind {self.kind!r}; the kinds are {', '.join(KINDS)}.")
        if self.severity not in SEVERITIES:
            raise InputError(f"No alert is {self.severity!r}; choose {', '.join(SEVERITIES)}.")

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**dataclasses.asdict(self), "created_at": self.created_at.isoformat()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Alert:
        """Back from `to_json`."""
        return cls(**{**content, "created_at": dt.datetime.fromisoformat(content["created_at"])})


@dataclass(frozen=True)
class Acknowledgement:
    """Who has seen an alert, and what they say of it.

    Attributes:
        by: a person.
        note: free text.
        genuine: whether the alarm was a true one; None where that is not said.
        at: UTC.
    """

    by: str
    note: str = ""
    genuine: bool | None = None
    at: dt.datetime = field(default_factory=_now)
