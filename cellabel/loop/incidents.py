"""Incidents at rest: opened and told by verdicts, moved on by diagnoses and outcomes.

The sensor alone writes an incident; a diagnosis run, a promotion and persons leave what they have to say
beside it, under the incident's id. What a person says holds at once, for whoever reads the incident.
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
    close,
    decide,
    diagnosed,
    observe,
    resume,
    retrained,
    snooze,
)
from cellabel.errors import InputError
from cellabel.loop.streams import FROZEN, judging_times
from cellabel.settings import Settings
from cellabel.stores import FileMemory, Home, read_json, write_json

__all__ = [
    "Request",
    "acknowledge_incident",
    "advance_incidents",
    "augmentation_of",
    "close_incident",
    "drift_link",
    "incidents",
    "observe_verdict",
    "policy_of",
    "read_incident",
    "record_diagnosis",
    "record_failed_diagnosis",
    "record_outcome",
    "resume_incident",
    "snooze_incident",
]

_INCIDENTS = FileMemory(Incident.from_dict)
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
        frozen_streams=FROZEN,
    )


def incidents(home: Home) -> list[Incident]:
    """All incidents, oldest first."""
    found = [_with_notes(home, incident) for incident in _written(home)]
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
    return _with_notes(home, Incident.from_dict(content))


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
        _tell_progress(home, ledger, before, incident, verdict)
        _write(home, incident)
    return incident if verdict.drift else None


def advance_incidents(home: Home, ledger: AlertLedger, *, now: datetime | None = None) -> list[Request]:
    """Take in diagnoses and outcomes, send the messages that are due, and say which runs are asked for.

    A run that was asked for and has left no result is asked for again, under the same key.
    """
    moment = now or datetime.now(UTC)
    policy = policy_of(home.settings)
    requests = []
    known = sorted(_written(home), key=lambda one: (one.opened_at, one.id))
    for incident in (one for one in known if one.is_open):
        current = _with_results(home, _with_notes(home, incident), policy, moment)
        history = _history(home)
        while (action := decide(current, policy, history, moment)).kind in MESSAGES:
            _tell_action(home, ledger, current, action)
            current = act(current, action, moment)
        if action.kind in ("diagnose", "retrain"):
            current = act(current, action, moment)
        if not current.is_open:
            _tell_end(home, ledger, current)
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
    sign = -1 if diagnosis.severity < 0 else 1
    size = min(max(round(abs(diagnosis.severity)), 1), LARGEST_SEVERITY)
    near = sorted(sign * one for one in (size - 1, size, size + 1) if 1 <= one <= LARGEST_SEVERITY)
    return kind, tuple(near)


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
    """A person has seen an incident; it closes once the frozen streams are back at their reference."""
    _note(home, incident_id, "acknowledged", {"by": by})


def snooze_incident(home: Home, incident_id: str, by: str, until: datetime) -> Incident:
    """Nothing is done about an incident before `until`; it goes on watching."""
    return _note(home, incident_id, "snoozed", {"by": by, "until": until.isoformat()})


def resume_incident(home: Home, incident_id: str, by: str) -> Incident:
    """A person has done what was asked: what is allowed may go on by itself, a snooze ends.

    Raises:
        InputError: no such incident, or nobody was asked.
    """
    known = read_incident(home, incident_id)
    if known.status != "person_needed" and known.snoozed_until is None:
        raise InputError(f"Incident {incident_id} waits for nobody: its status is {known.status!r}.")
    (home.detectors / "snoozed" / f"{incident_id}.json").unlink(missing_ok=True)
    return _note(home, incident_id, "resumed", {"by": by, "actions": len(known.actions)})


def close_incident(home: Home, incident_id: str, by: str, reason: str) -> Incident:
    """A person ends an incident; the next drift opens a new one.

    Raises:
        InputError: no such incident, one that is closed, or one whose retraining is under way.
    """
    known = read_incident(home, incident_id)
    if not known.is_open:
        raise InputError(f"Incident {incident_id} was closed by {known.closed_by}: {known.closing_reason}.")
    if known.status == "retraining":
        raise InputError(
            f"Incident {incident_id} waits for a retraining that is under way: close it afterwards."
        )
    return _note(home, incident_id, "closed", {"by": by, "reason": reason})


def _note(home: Home, incident_id: str, what: str, content: dict[str, Any]) -> Incident:
    """Leave what a person says; the incident as it now stands."""
    read_incident(home, incident_id)
    write_json(home.detectors / what / f"{incident_id}.json", content)
    return read_incident(home, incident_id)


def _written(home: Home) -> list[Incident]:
    """The incidents as the sensor left them."""
    return _INCIDENTS.of_folder(home.detectors / "incidents")


def _with_notes(home: Home, incident: Incident) -> Incident:
    """The incident after what persons have said of it."""
    if not incident.is_open:
        return incident

    def note(what: str) -> dict[str, Any] | None:
        return read_json(home.detectors / what / f"{incident.id}.json")

    if (said := note("acknowledged")) and incident.acknowledged_by is None:
        incident = acknowledge(incident, said["by"], policy_of(home.settings))
    said = note("snoozed")
    incident = snooze(incident, datetime.fromisoformat(said["until"]) if said else None)
    if (said := note("resumed")) and said["actions"] == len(incident.actions):
        incident = resume(incident, said["by"])
    if (said := note("closed")) and incident.is_open and incident.status != "retraining":
        incident = close(incident, said["by"], said["reason"])
    return incident


def _history(home: Home) -> list[Retraining]:
    """The retrainings of all incidents; the ended ones with the number of plates judged since."""
    judged: dict[str, list[datetime]] = {}

    def counted(one: Retraining) -> Retraining:
        if (end := one.finished_at) is None:
            return one
        if one.instrument not in judged:
            times = judging_times(home, one.instrument).values()
            judged[one.instrument] = [datetime.fromisoformat(at) for at in times]
        return replace(one, plates_since=sum(at > end for at in judged[one.instrument]))

    return [counted(one) for incident in _written(home) for one in incident.retrainings]


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
    return incident


def _open_requests(incident: Incident, action: Action) -> list[Request]:
    if incident.status == "diagnosing":
        return [Request("diagnose", incident, incident.actions.count("diagnose"), action.reason)]
    if incident.status == "retraining":
        return [Request("retrain", incident, len(incident.retrainings), action.reason)]
    return []


def _tell_progress(
    home: Home, ledger: AlertLedger, before: Incident | None, incident: Incident, verdict: PlateVerdict
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
            home,
            ledger,
            incident,
            "drift",
            ("opened",),
            f"Drift in {streams} of {where}",
            body,
            "warning",
            verdict,
        )
    elif before.severity != incident.severity:
        _alert(
            home,
            ledger,
            incident,
            "drift",
            ("persists",),
            f"The drift persists in {where}",
            body,
            "error",
            verdict,
        )
    if incident.escalated and not (before and before.escalated):
        title = f"{len(incident.plates)} plates have drifted on {incident.instrument}"
        _alert(home, ledger, incident, "drift", ("escalated",), title, body, "error", verdict)
    if incident.status == "closed":
        _tell_end(home, ledger, incident)


def _tell_end(home: Home, ledger: AlertLedger, incident: Incident) -> None:
    title = f"The drift on {incident.instrument} is over"
    body = f"Closed by {incident.closed_by}: {incident.closing_reason}."
    _alert(home, ledger, incident, "drift", ("closed",), title, body, "info", None)


def _tell_action(home: Home, ledger: AlertLedger, incident: Incident, action: Action) -> None:
    kind, title = MESSAGES[action.kind]
    _alert(
        home,
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
    home: Home,
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
    if incident.diagnosis is not None:
        data["diagnosis"] = incident.diagnosis.sentence
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
            link=drift_link(home, str(incident.most_harmed), plate) if plate else None,
            data=data,
        )
    )


def drift_link(home: Home, stream: str, plate: str) -> str:
    """Where a plate's drift is shown: statistic, timeline, diagnosis and map."""
    base = home.settings.pages_url.rstrip("/")
    return f"{base}/assets/{stream}/drift?view=partitions&partition={plate}"


def _write(home: Home, incident: Incident) -> None:
    write_json(home.detectors / "incidents" / f"{incident.id}.json", incident.to_dict())
