"""From verdicts to incidents: one an instrument, opened once, latched until acknowledged.

Everything is a value: each function takes an incident and gives the next one; `decide` says what should
happen. A verdict that was taken in already changes nothing, so a crash between two steps costs nothing but a
repetition.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

from cellabel.drift._decisions import Action, ActionKind, Policy, Retraining, decide
from cellabel.drift._diagnosis import Diagnosis
from cellabel.drift._verdicts import PlateVerdict

__all__ = [
    "Action",
    "Incident",
    "Policy",
    "Retraining",
    "acknowledge",
    "act",
    "close",
    "count_plate",
    "decide",
    "diagnosed",
    "observe",
    "resume",
    "retrained",
    "snooze",
]

IncidentStatus = Literal["open", "diagnosing", "told", "retraining", "person_needed", "closed"]
HARMS = ("harmless", "unknown", "harmful")


@dataclass(frozen=True)
class Incident:
    """A drift of one instrument, from the first plate that showed it until it is over.

    Attributes:
        id: the same for the same instrument, opening plate and epochs.
        instrument: whose.
        opened_at: when the opening verdict was taken in.
        severity: "WARN", or "ERROR" once the drift persists; it never falls.
        status: where the work on it stands.
        plates: that drifted, in the order in which they came.
        events: ids of the verdicts that were taken in.
        wells: "plate/well" of each stream's first alarm on each plate.
        streams: that drifted.
        alarmed_share: the largest share of a plate's wells at which a stream alarmed, 0..1.
        harmed_share: the largest share of a plate's wells that were each judged harmful.
        harm: the worst that was found; "unknown" where a drifting stream has no harm model.
        most_harmed: the stream (organelle) with the largest expected loss, or without harm models most
            alarms.
        largest_loss: its expected loss; None where nothing is known.
        provisional: every drift verdict so far was provisional.
        diagnosis: the latest confident one, or else the latest.
        causes: confident causes in the order in which they were found.
        diagnosed_after: plates that had drifted when the last diagnosis was asked for; a further one is
            diagnosed too.
        quiet: consecutive plates without drift in all frozen streams.
        escalated: as many plates drifted as make everyone hear of it again.
        asked_after: plates that had drifted when someone was asked to image again; None before.
        actions: kinds of action that were taken, in order.
        acknowledged_by, closed_by, closing_reason: persons (or "return to reference"), and why.
        snoozed_until: nothing is done before.
        retrainings: those begun for it.
    """

    id: str
    instrument: str
    opened_at: datetime
    severity: Literal["WARN", "ERROR"] = "WARN"
    status: IncidentStatus = "open"
    plates: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    wells: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    alarmed_share: float = 0.0
    harmed_share: float = 0.0
    harm: Literal["harmful", "harmless", "unknown"] = "harmless"
    most_harmed: str | None = None
    largest_loss: float | None = None
    provisional: bool = True
    diagnosis: Diagnosis | None = None
    causes: tuple[str, ...] = ()
    diagnosed_after: int = 0
    quiet: int = 0
    escalated: bool = False
    asked_after: int | None = None
    actions: tuple[ActionKind, ...] = ()
    acknowledged_by: str | None = None
    closed_by: str | None = None
    closing_reason: str | None = None
    snoozed_until: datetime | None = None
    retrainings: tuple[Retraining, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it still waits for something."""
        return self.status != "closed"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        values = asdict(self)
        for name in ("opened_at", "snoozed_until"):
            values[name] = None if values[name] is None else values[name].isoformat()
        values["retrainings"] = [retraining.to_dict() for retraining in self.retrainings]
        return json.loads(json.dumps(values))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Incident:
        """The incident that `to_dict` wrote."""
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        for name in ("opened_at", "snoozed_until"):
            given[name] = None if given[name] is None else datetime.fromisoformat(given[name])
        given["retrainings"] = tuple(Retraining.from_dict(one) for one in values["retrainings"])
        given["diagnosis"] = None if values["diagnosis"] is None else Diagnosis(**values["diagnosis"])
        return cls(**given)


def observe(
    incident: Incident | None, verdict: PlateVerdict, policy: Policy, now: datetime
) -> Incident | None:
    """Take in a plate's verdict.

    Args:
        incident: the instrument's open incident, if there is one. A closed one is left alone and a new one is
            opened.
        verdict: of the next plate, or of a replayed one.
        policy: frozen streams, and what counts as persistent.
        now: opening time of a new incident.

    Returns:
        The incident with the verdict in it; None where there is none. Taking in the same verdict twice is the
        same as once. A plate whose replayed verdict no longer drifts stays in the incident: what was told
        stays told.
    """
    if incident is not None and not incident.is_open:
        return incident if verdict.event_id in incident.events else observe(None, verdict, policy, now)
    if incident is None:
        if not verdict.drift:
            return None
        incident = Incident(_incident_id(verdict), verdict.instrument, now)
    if verdict.event_id in incident.events:
        return incident
    incident = replace(incident, events=(*incident.events, verdict.event_id))
    if verdict.drift:
        incident = _with_drift(incident, verdict, policy)
    return _with_frozen_streams(incident, verdict, policy)


def _incident_id(verdict: PlateVerdict) -> str:
    epochs = sorted((name, stream.epoch) for name, stream in verdict.drifting.items())
    text = json.dumps([verdict.instrument, verdict.plate, epochs])
    return f"{verdict.plate}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


def _with_drift(incident: Incident, verdict: PlateVerdict, policy: Policy) -> Incident:
    drifting = verdict.drifting
    plates = tuple(dict.fromkeys((*incident.plates, verdict.plate)))
    firsts = [f"{verdict.plate}/{stream.first_well}" for stream in drifting.values() if stream.first_well]
    share = max(stream.n_alarms / max(stream.n_wells, 1) for stream in drifting.values())
    harms = {name: stream.harm for name, stream in verdict.streams.items() if stream.harm is not None}
    unknown = [
        name for name in drifting if name not in harms and not (harms and name in policy.frozen_streams)
    ]
    found = [harm.verdict for harm in harms.values()] + ["unknown"] * bool(unknown)
    worst = max([incident.harm, *found], key=HARMS.index)
    harmed = max((harm.n_harmful / harm.n for harm in harms.values()), default=0.0)
    most, loss = incident.most_harmed, incident.largest_loss
    for name, harm in harms.items():
        if loss is None or harm.expected_loss > loss:
            most, loss = name, harm.expected_loss
    if most is None:
        most = max(drifting, key=lambda name: (name not in policy.frozen_streams, drifting[name].n_alarms))
    alarmed_share = max(incident.alarmed_share, share)
    persists = len(plates) > 1 or alarmed_share >= policy.persistent_share
    return replace(
        incident,
        plates=plates,
        wells=tuple(dict.fromkeys((*incident.wells, *firsts))),
        streams=tuple(dict.fromkeys((*incident.streams, *drifting))),
        alarmed_share=alarmed_share,
        harmed_share=max(incident.harmed_share, harmed),
        harm=worst,
        most_harmed=most,
        largest_loss=loss,
        provisional=incident.provisional and all(stream.provisional for stream in drifting.values()),
        severity="ERROR" if persists else incident.severity,
        escalated=incident.escalated or len(plates) >= policy.escalate_plates,
    )


def _with_frozen_streams(incident: Incident, verdict: PlateVerdict, policy: Policy) -> Incident:
    """A robust champion goes blind to the fault; only streams that no retraining touches can call it over.

    A plate counts as quiet where all of them judged it; one that could not look leaves the count as it is.
    """
    frozen = [verdict.streams[name] for name in policy.frozen_streams if name in verdict.streams]
    if verdict.drift:
        return replace(incident, quiet=0)
    if not frozen or any(stream.status != "no" for stream in frozen):
        return incident
    return _closed_if_over(replace(incident, quiet=incident.quiet + 1), policy)


def _closed_if_over(incident: Incident, policy: Policy) -> Incident:
    if (
        incident.acknowledged_by is None
        or incident.quiet < policy.quiet_plates
        or incident.status == "retraining"
    ):
        return incident
    reason = f"{incident.quiet} plates in a row without drift in the frozen streams"
    return replace(incident, status="closed", closed_by="return to reference", closing_reason=reason)


def diagnosed(incident: Incident, diagnosis: Diagnosis, policy: Policy) -> Incident:
    """Take in a diagnosis. A confident one is only replaced by another confident one."""
    confident = diagnosis.kind is not None and diagnosis.confidence >= policy.min_confidence
    status: IncidentStatus = "told" if incident.status in ("open", "diagnosing") else incident.status
    incident = replace(incident, diagnosed_after=max(incident.diagnosed_after, 1))
    if not confident:
        kept = incident.diagnosis if incident.causes else diagnosis
        return replace(incident, diagnosis=kept, status=status)
    causes = tuple(dict.fromkeys((*incident.causes, str(diagnosis.kind))))
    if incident.status == "person_needed" and causes != incident.causes:
        status = "told"  # another cause than the one that was handed over
    return replace(incident, diagnosis=diagnosis, causes=causes, status=status)


def act(incident: Incident, action: Action, now: datetime) -> Incident:
    """Note that `action` was taken, so that `decide` does not ask for it again."""
    noted = replace(incident, actions=(*incident.actions, action.kind))
    if action.kind == "diagnose":
        status = "diagnosing" if incident.status in ("open", "told") else incident.status
        return replace(noted, status=status, diagnosed_after=len(incident.plates))
    if action.kind == "ask_to_image_again":
        return replace(noted, asked_after=len(incident.plates))
    if action.kind in ("person_needed", "ask_for_labels"):
        return replace(noted, status="person_needed")
    if action.kind == "retrain":
        cause = str(incident.diagnosis.kind) if incident.diagnosis else "unknown"
        begun = Retraining(incident.id, incident.instrument, cause, now)
        return replace(noted, status="retraining", retrainings=(*incident.retrainings, begun))
    return incident


def retrained(
    incident: Incident,
    outcome: Literal["promoted", "lost", "failed"],
    now: datetime,
    version: str | None = None,
) -> Incident:
    """Note how the retraining under way ended; without one, nothing changes."""
    if not incident.retrainings or incident.retrainings[-1].outcome != "running":
        return incident
    ended = replace(incident.retrainings[-1], outcome=outcome, finished_at=now, version=version)
    return replace(incident, status="told", retrainings=(*incident.retrainings[:-1], ended))


def count_plate(history: Sequence[Retraining], instrument: str) -> list[Retraining]:
    """`history` after one more plate of `instrument`: its ended retrainings are one plate older."""
    return [
        replace(one, plates_since=one.plates_since + 1)
        if one.instrument == instrument and one.finished_at is not None
        else one
        for one in history
    ]


def acknowledge(incident: Incident, by: str, policy: Policy) -> Incident:
    """A person has seen it; it closes once the frozen streams are quiet."""
    return _closed_if_over(replace(incident, acknowledged_by=by), policy)


def snooze(incident: Incident, until: datetime | None) -> Incident:
    """Do nothing about it before `until`; it goes on watching. None ends a snooze."""
    return replace(incident, snoozed_until=until)


def resume(incident: Incident, by: str) -> Incident:
    """A person has done what was asked; what is allowed may go on by itself again."""
    status: IncidentStatus = "told" if incident.status == "person_needed" else incident.status
    return replace(incident, status=status, acknowledged_by=by)


def close(incident: Incident, by: str, reason: str) -> Incident:
    """A person ends it."""
    return replace(incident, status="closed", acknowledged_by=by, closed_by=by, closing_reason=reason)
