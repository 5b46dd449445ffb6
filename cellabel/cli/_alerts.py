"""Alerts: what a person should know, and who has seen it."""

from __future__ import annotations

from typing import Annotated

import typer

from cellabel.cli._drift import By, Genuine
from cellabel.cli._home import settings_of_existing_home
from cellabel.cli._output import Json, json_text, note, say, show
from cellabel.errors import InputError

__all__ = ["alerts"]

alerts = typer.Typer(no_args_is_help=True, help="Alerts: listed and acknowledged.")


@alerts.command("list")
def list_alerts(
    kind: Annotated[
        str | None,
        typer.Option(
            help="drift, diagnosis, promotion, failure, labels_needed, person_needed or quarantine.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that were acknowledged, too.")] = False,
    as_json: Json = False,
) -> None:
    """List the alerts that nobody has acknowledged, the oldest first."""
    from cellabel.alerts import KINDS, AlertLedger
    from cellabel.stores import open_home

    if kind is not None and kind not in KINDS:
        raise InputError(f"No alert is of the kind {kind!r}; the kinds are {', '.join(KINDS)}.")
    ledger = AlertLedger(str(open_home(settings_of_existing_home()).alerts))
    found = [
        (alert, ledger.acknowledgement(alert.id))
        for alert in ledger.alerts(kind, unacknowledged=not everything)
    ]
    if as_json:
        json_text(
            [
                {
                    **alert.to_json(),
                    "acknowledged_by": seen.by if seen else None,
                    "note": seen.note if seen else "",
                }
                for alert, seen in found
            ]
        )
        return
    show(
        "Alerts",
        ("alert", "when", "severity", "kind", "what", "seen by"),
        [
            (
                alert.id,
                f"{alert.created_at:%Y-%m-%d %H:%M}",
                alert.severity,
                alert.kind,
                f"{alert.title}. {alert.body}",
                seen.by if seen else None,
            )
            for alert, seen in found
        ],
    )
    genuine, judged = ledger.precision()
    if judged:
        note(f"{genuine} of {judged} judged drift alarms were right.")


@alerts.command()
def ack(
    alert: Annotated[str, typer.Argument(metavar="ALERT", help="An alert's id.", show_default=False)],
    by: By,
    text: Annotated[str, typer.Option("--note", help="Free text, kept with it.")] = "",
    genuine: Genuine = None,
    as_json: Json = False,
) -> None:
    """Say that a person has seen an alert; the first acknowledgement stays."""
    from cellabel.alerts import AlertLedger
    from cellabel.stores import open_home

    if not by.strip():
        raise InputError("Nobody is named: give --by NAME.")
    seen = AlertLedger(str(open_home().alerts)).acknowledge(alert, by.strip(), text, genuine=genuine)
    if as_json:
        json_text({"alert": alert, "by": seen.by, "note": seen.note, "genuine": seen.genuine, "at": seen.at})
        return
    say(f"Alert {alert} was acknowledged by {seen.by} at {seen.at:%Y-%m-%d %H:%M} UTC.")
