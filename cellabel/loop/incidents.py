"""Incidents at rest: opened and told by verdicts, moved on by diagnoses and outcomes.

The sensor alone writes an incident; a diagnosis run and a promotion leave their result beside it, under the
incident's id, and the next look takes it in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from cellabel.alerts import Alert, AlertLedger, alert_id
from cellabel.drift import Diagnosis, PlateVerdict
from cellabel.drift.incidents import (
    Action,
    Incident,
    Policy,
    Retraining,
    acknowledge,
    act,
    decide,
    diagnosed,
    observe,
    retrained,
)
from cellabel.errors import InputError
from cellabel.loop.streams import ACQUISITION
from cellabel.settings import Settings
from cellabel.stores import Home, read_json, write_json

__all__ = [
    "Request",
    "acknowledge_incident",
    "advance_incidents",
    "augmentation_of",
    "incidents",
    "observe_verdict",
    "policy_of",
    "read_incident",
    "record_diagnosis",
    "record_failed_diagnosis",
    "record_outcome",
]

LARGEST_SEVERITY = 5
MESSAGES = {
    "ask_for_labels": ("labels_needed", "Labels are needed"),
    "ask_to_image_again": ("person_needed", "Please image again"),
    "person_needed": ("person_needed", "A person is needed"),
}


@dataclass(frozen=True)
class Request:
    """A run that an incident asks for.

    Attributes:
        kind: "diagnose" or "retrain".
        incident: as it stands.
        turn: counts the runs of this kind for this incident, from 1.
        reason: one sentence.
    """

    kind: Literal["diagnose", "retrain"]
    incident: Incident
    turn: int
    reason: str

    @property
    def key(self) -> str:
        """The same for the same request."""
        return f"{self.kind}:{self.incident.id}:{self.turn}"


def policy_of(settings: Settings) -> Policy:
    """What the site allows."""
    retraining = settings.retraining
    return Policy(
        retrain_at_once=retraining.at_once,
        retrain_on_provisional=retraining.on_provisional,
        min_confidence=settings.drift.min_confidence,
        cooldown_days=retraining.cooldown_days,
        max_retrainings_per_week=retraining.max_per_week if retraining.automatic else 0,
        max_retrainings_per_cause=retraining.max_per_cause,
        frozen_streams=(ACQUISITION,),
    )


def incidents(home: Home) -> list[Incident]:
    """All incidents, oldest first."""
    folder = home.detectors / "incidents"
    files = sorted(folder.glob("*.json")) if folder.exists() else []
    found = [Incident.from_dict(content) for file in files if (content := read_json(file))]
    return sorted(found, key=lambda one: (one.opened_at, one.id))


def read_incident(home: Home, incident_id: str) -> Incident:
    """One incident.

    Raises:
        InputError: there is none of this id.
    """
    content = read_json(home.detectors / "incidents" / f"{incident_id}.json")
    if content is None:
        known = ", ".join(one.id for one in incidents(home)) or "none"
        raise InputError(f"There is no drift incident {incident_id!r}; there are: {known}.")
    return Incident.from_dict(content)


def observe_verdict(
    home: Home, ledger: AlertLedger, instrument: str, verdict: PlateVerdict, now: datetime
) -> Incident | None:
    """Take a verdict into the instrument's incident and tell what is new; the incident that it concerns."""
    known = [one for one in incidents(home) if one.instrument == instrument]
    taken = next((one for one in known if verdict.event_id in one.events), None)
    if taken is not None:  # by a tick that was killed before its commit
        return taken if verdict.drift else None
    latest = known[-1] if known else None
    incident = observe(latest, replace(verdict, instrument=instrument), policy_of(home.settings), now)
    if incident is not None and incident != latest:
        before = latest if latest is not None and latest.id == incident.id else None
        _tell_progress(ledger, before, incident, verdict)
        _write(home, incident)
    return incident if verdict.drift else None


def advance_incidents(home: Home, ledger: AlertLedger, *, now: datetime | None = None) -> list[Request]:
    """Take in diagnoses and outcomes, send the messages that are due, and say which runs are asked for.

    A run that was asked for and has left no result is asked for again, under the same key.
    """
    moment = now or datetime.now(UTC)
    policy = policy_of(home.settings)
    requests = []
    for incident in incidents(home):
        if not incident.is_open:
            continue
        current = _with_results(home, incident, policy, moment)
        history = _history(home)
        while (action := decide(current, policy, history, moment)).kind in MESSAGES:
            _tell_action(ledger, current, action)
            current = act(current, action, moment)
        if action.kind in ("diagnose", "retrain"):
            current = act(current, action, moment)
        if current != incident:
            _write(home, current)
        requests += _open_requests(current, action)
    return requests


def augmentation_of(incident: Incident) -> tuple[str, tuple[int, ...]]:
    """The corruption of table 5 to train against, and the severities about the diagnosed one.

    Raises:
        InputError: the incident has no known cause.
    """
    diagnosis = incident.diagnosis
    if diagnosis is None or diagnosis.kind is None or diagnosis.severity is None:
        raise InputError(f"The incident {incident.id} has no known cause: diagnose it first.")
    kind = diagnosis.corruption or diagnosis.kind
    severity = round(diagnosis.severity)
    near = (severity - 1, severity, severity + 1)
    return kind, tuple(one for one in near if one * severity > 0 and abs(one) <= LARGEST_SEVERITY)


def record_diagnosis(home: Home, incident: Incident, diagnosis: Diagnosis) -> None:
    """Leave a diagnosis for the incident; the next look takes it in."""
    turn = incident.actions.count("diagnose")
    content = {"turn": turn, "diagnosis": diagnosis.to_dict()}
    write_json(home.detectors / "diagnoses" / f"{incident.id}.json", content)


def record_failed_diagnosis(home: Home, incident: Incident) -> None:
    """The diagnosis under way has ended without a result: the cause stays unknown."""
    known = read_json(home.detectors / "diagnoses" / f"{incident.id}.json") or {}
    if known.get("turn") == incident.actions.count("diagnose"):
        return
    record_diagnosis(home, incident, Diagnosis(None, None, 0.0, "the diagnosis failed, its run says why"))


def record_outcome(
    home: Home, incident_id: str, outcome: Literal["promoted", "lost", "failed"], version: int | None = None
) -> None:
    """Leave the outcome of the retraining under way for an incident, once; the next look takes it in."""
    turn = len(read_incident(home, incident_id).retrainings)
    path = home.detectors / "outcomes" / f"{incident_id}.json"
    if (read_json(path) or {}).get("turn") != turn:
        write_json(path, {"turn": turn, "outcome": outcome, "version": version})


def acknowledge_incident(home: Home, incident_id: str, by: str) -> None:
    """A person has seen an incident; the next look takes it in."""
    read_incident(home, incident_id)
    write_json(home.detectors / "acknowledged" / f"{incident_id}.json", {"by": by})


def _history(home: Home) -> list[Retraining]:
    """The retrainings of all incidents; the ended ones with the number of plates judged since."""
    known = incidents(home)
    ended = any(one.finished_at is not None for incident in known for one in incident.retrainings)
    files = (home.detectors / "verdicts").glob("*.json") if ended else ()
    judged = [
        (said["instrument"], datetime.fromisoformat(said["at"]))
        for file in files
        if (said := read_json(file))
    ]

    def counted(one: Retraining) -> Retraining:
        if (end := one.finished_at) is None:
            return one
        since = sum(instrument == one.instrument and at > end for instrument, at in judged)
        return replace(one, plates_since=since)

    return [counted(one) for incident in known for one in incident.retrainings]


def _with_results(home: Home, incident: Incident, policy: Policy, now: datetime) -> Incident:
    diagnosis = read_json(home.detectors / "diagnoses" / f"{incident.id}.json")
    if (
        diagnosis
        and incident.status == "diagnosing"
        and diagnosis["turn"] == incident.actions.count("diagnose")
    ):
        incident = diagnosed(incident, Diagnosis(**diagnosis["diagnosis"]), policy)
    outcome = read_json(home.detectors / "outcomes" / f"{incident.id}.json")
    if outcome and incident.status == "retraining" and outcome["turn"] == len(incident.retrainings):
        version = str(outcome["version"]) if outcome["version"] else None
        incident = retrained(incident, outcome["outcome"], now, version)
    seen = read_json(home.detectors / "acknowledged" / f"{incident.id}.json")
    if seen and incident.acknowledged_by is None:
        incident = acknowledge(incident, seen["by"], policy)
    return incident


def _open_requests(incident: Incident, action: Action) -> list[Request]:
    if incident.status == "diagnosing":
        return [Request("diagnose", incident, incident.actions.count("diagnose"), action.reason)]
    if incident.status == "retraining":
        return [Request("retrain", incident, len(incident.retrainings), action.reason)]
    return []


def _tell_progress(
    ledger: AlertLedger, before: Incident | None, incident: Incident, verdict: PlateVerdict
) -> None:
    """The opening of an incident, its first persistence, its escalation and its end: each told once."""
    wells = ", ".join(well for well in incident.wells if well.startswith(f"{verdict.plate}/"))
    where = f"{verdict.plate} on {incident.instrument}"
    streams = ", ".join(sorted(verdict.drifting))
    numbers = "; ".join(
        f"{name}: statistic {one.statistic:.4g} over threshold {one.threshold:.4g}, since {one.change_id}"
        for name, one in sorted(verdict.drifting.items())
        if one.statistic is not None and one.threshold is not None
    )
    proviso = " The verdict is provisional: fewer than 19 reference plates." if incident.provisional else ""
    body = f"{numbers}. First alarms: {wells or 'none'}.{proviso} A diagnosis follows."
    if before is None:
        _alert(
            ledger, incident, "drift", ("opened",), f"Drift in {streams} of {where}", body, "warning", verdict
        )
    elif before.severity != incident.severity:
        _alert(
            ledger, incident, "drift", ("persists",), f"The drift persists in {where}", body, "error", verdict
        )
    if incident.escalated and not (before and before.escalated):
        title = f"{len(incident.plates)} plates have drifted on {incident.instrument}"
        _alert(ledger, incident, "drift", ("escalated",), title, body, "error", verdict)
    if incident.status == "closed":
        title = f"The drift on {incident.instrument} is over"
        _alert(ledger, incident, "drift", ("closed",), title, str(incident.closing_reason), "info", verdict)


def _tell_action(ledger: AlertLedger, incident: Incident, action: Action) -> None:
    kind, title = MESSAGES[action.kind]
    _alert(
        ledger,
        incident,
        kind,
        (action.kind, str(incident.actions.count(action.kind))),
        f"{title}: drift on {incident.instrument}",
        action.reason,
        "warning",
        None,
    )


def _alert(
    ledger: AlertLedger,
    incident: Incident,
    kind: str,
    parts: tuple[str, ...],
    title: str,
    body: str,
    severity: str,
    verdict: PlateVerdict | None,
) -> None:
    data: dict[str, Any] = {"incident": incident.id, "instrument": incident.instrument}
    plate = verdict.plate if verdict else (incident.plates[-1] if incident.plates else None)
    ledger.write(
        Alert(
            id=alert_id(kind, incident.id, *parts),
            kind=kind,
            title=title,
            body=body,
            severity=severity,
            plate=plate,
            organelle=incident.most_harmed,
            data=data,
        )
    )


def _write(home: Home, incident: Incident) -> None:
    write_json(home.detectors / "incidents" / f"{incident.id}.json", incident.to_dict())
