"""Drift: the verdicts on plates, the incidents that they opened, and what persons say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellabel.cli._home import settings_of_existing_home
from cellabel.cli._output import Json, counted, json_text, say, show
from cellabel.errors import InputError

if TYPE_CHECKING:
    from cellabel.alerts import AlertLedger
    from cellabel.drift.incidents import Incident

__all__ = ["By", "Genuine", "drift"]

drift = typer.Typer(no_args_is_help=True, help="What the drift streams said, and what is done about it.")

By = Annotated[str, typer.Option(help="Who says so.", show_default=False)]
Genuine = Annotated[
    bool | None,
    typer.Option("--true-alarm/--false-alarm", help="Whether the alarm was right.", show_default=False),
]
IncidentId = Annotated[str, typer.Argument(metavar="INCIDENT", help="An incident's id.", show_default=False)]
WORDS = {"drift": "yes", "no": "no", "not_calibrated": "not calibrated"}


@drift.command()
def status(
    plate: Annotated[str | None, typer.Argument(help="Only this plate.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Show the verdict on each plate, stream by stream; statistics have no unit."""
    from cellabel.loop import plate_status
    from cellabel.stores import open_home

    home = open_home()
    if plate is not None and home.plates.record(plate) is None:
        raise InputError(f"There is no plate {plate!r} in {home.plates.root}: see cellabel plates list.")
    names = home.plates.names() if plate is None else [plate]
    found = [plate_status(home, name) for name in names]
    if as_json:
        json_text(
            [
                {"plate_id": one.plate_id, "status": one.status, "drift": one.drift, "verdict": one.verdict}
                for one in found
            ]
        )
        return
    rows = [row for one in found for row in _verdict_rows(one.plate_id, one.status, one.verdict)]
    columns = (
        "plate",
        "status",
        "stream",
        "drift",
        "statistic",
        "threshold",
        "alarms",
        "since",
        "harm",
        "remark",
    )
    show("Drift by plate and stream", columns, rows)


@drift.command("incidents")
def list_incidents(
    only_open: Annotated[bool, typer.Option("--open", help="Only those that are not closed.")] = False,
    as_json: Json = False,
) -> None:
    """List the incidents: drifts of one instrument, from the first plate until they are over."""
    from cellabel.loop import incidents
    from cellabel.stores import open_home

    home = open_home(settings_of_existing_home())
    found = [one for one in incidents(home) if one.is_open or not only_open]
    if as_json:
        json_text([one.to_dict() for one in found])
        return
    columns = ("incident", "instrument", "opened", "severity", "status", "snoozed until", "plates", "harm")
    show(
        "Drift incidents",
        (*columns, "most harmed", "diagnosis", "seen by"),
        [
            (
                one.id,
                one.instrument,
                f"{one.opened_at:%Y-%m-%d %H:%M}",
                one.severity,
                one.status,
                _snoozed(one),
                one.plates,
                one.harm,
                one.most_harmed,
                one.diagnosis.sentence if one.diagnosis else None,
                one.acknowledged_by,
            )
            for one in found
        ],
    )


@drift.command()
def ack(
    incident: IncidentId,
    by: By,
    text: Annotated[str, typer.Option("--note", help="Kept with the incident's alerts.")] = "",
    genuine: Genuine = None,
    as_json: Json = False,
) -> None:
    """Say that a person has seen an incident and its alerts; it may then close by itself."""
    from cellabel.alerts import AlertLedger
    from cellabel.loop import acknowledge_incident
    from cellabel.stores import open_home

    home, person = open_home(), _person(by)
    acknowledge_incident(home, incident, person)
    alerts = _acknowledge_alerts(AlertLedger(str(home.alerts)), incident, person, text, genuine)
    if as_json:
        json_text({"incident": incident, "acknowledged_by": person, "alerts": alerts})
        return
    say(f"Incident {incident} is acknowledged by {person}, with {counted(len(alerts), 'alert')}.")


@drift.command()
def close(
    incident: IncidentId,
    by: By,
    reason: Annotated[str, typer.Option(help="Why it is over.", show_default=False)],
    as_json: Json = False,
) -> None:
    """End an incident; the next drift opens a new one."""
    from cellabel.alerts import AlertLedger
    from cellabel.loop import close_incident
    from cellabel.stores import open_home

    home, person = open_home(), _person(by)
    if not reason.strip():
        raise InputError("An incident is not closed without a reason: give --reason.")
    closed = close_incident(home, incident, person, reason.strip())
    _acknowledge_alerts(AlertLedger(str(home.alerts)), incident, person, reason, None)
    json_text(closed.to_dict()) if as_json else say(
        f"Incident {incident} is closed by {person}: {reason.strip()}."
    )


@drift.command()
def snooze(
    incident: IncidentId,
    by: By,
    days: Annotated[float, typer.Option(min=0.01, help="How long nothing is done about it, days.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Let an incident wait: it goes on watching, but asks for nothing until the time is over."""
    from datetime import UTC, datetime, timedelta

    from cellabel.loop import snooze_incident
    from cellabel.stores import open_home

    until = datetime.now(UTC) + timedelta(days=days)
    waiting = snooze_incident(open_home(), incident, _person(by), until)
    json_text(waiting.to_dict()) if as_json else say(
        f"Incident {incident} is snoozed by {by.strip()} until {until:%Y-%m-%d %H:%M} UTC."
    )


@drift.command()
def resume(incident: IncidentId, by: By, as_json: Json = False) -> None:
    """Say that what a person was asked for is done, or end a snooze: what is allowed goes on by itself."""
    from cellabel.loop import resume_incident
    from cellabel.stores import open_home

    going_on = resume_incident(open_home(), incident, _person(by))
    json_text(going_on.to_dict()) if as_json else say(f"Incident {incident} goes on: {going_on.status}.")


def _snoozed(incident: Incident) -> str | None:
    """Until when nothing is done about an incident; None where it does not wait."""
    from datetime import UTC, datetime

    until = incident.snoozed_until
    waits = incident.is_open and until is not None and until > datetime.now(UTC)
    return f"{until:%Y-%m-%d %H:%M}" if waits else None


def _person(by: str) -> str:
    if not by.strip():
        raise InputError("Nobody is named: give --by NAME.")
    return by.strip()


def _acknowledge_alerts(
    ledger: AlertLedger, incident: str, by: str, text: str, genuine: bool | None
) -> list[str]:
    """Acknowledge what the incident told; the alerts' ids."""
    told = [
        alert.id for alert in ledger.alerts(unacknowledged=True) if alert.data.get("incident") == incident
    ]
    for alert in told:
        ledger.acknowledge(alert, by, text, genuine=genuine)
    return told


def _verdict_rows(plate: str, state: str, verdict: dict[str, Any] | None) -> list[tuple[Any, ...]]:
    if verdict is None:
        return [(plate, state, None, "", None, None, None, None, None, "no verdict yet")]
    return [
        (
            plate,
            state,
            name,
            WORDS[one["status"]],
            one["statistic"],
            one["threshold"],
            f"{one['n_alarms']} of {one['n_wells']} wells",
            one["change_id"],
            (one["harm"] or {}).get("verdict"),
            one["reason"] or ("provisional" if one["provisional"] else ""),
        )
        for name, one in sorted(verdict["streams"].items())
    ]
