"""Tables, figures and verdicts as Dagster shows them."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Told", "figure", "table_preview", "told"]


def table_preview(table: "pd.DataFrame", rows: int = 24) -> dg.MarkdownMetadataValue:
    """The first rows of a table, rounded to four digits, as Markdown."""
    head = table.head(rows)
    lines = ["| " + " | ".join(map(str, head.columns)) + " |", "|" + " --- |" * len(head.columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in head.itertuples(index=False)]
    if len(table) > rows:
        lines.append(f"\n… and {len(table) - rows} more rows")
    return dg.MetadataValue.md("\n".join(lines))


def figure(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG figure that the asset's page shows in place."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


@dataclass(frozen=True)
class Told:
    """A drift verdict of one stream on one plate, for its check and its materialisation."""

    passed: bool
    severity: dg.AssetCheckSeverity
    sentence: str
    metadata: Mapping[str, Any]


def told(verdict: Mapping[str, Any], stream: str) -> Told:
    """What a stored verdict says of one of its streams."""
    found = verdict["streams"][stream]
    harm = found["harm"] or {}
    numbers = ("statistic", "threshold", "n_alarms", "n_wells", "first_well", "change_id", "reason")
    metadata = {
        "event_id": verdict["event_id"],
        "verdict": {"drift": "yes"}.get(found["status"], found["status"]),
        "provisional": found["provisional"],
        "epoch": verdict["epochs"].get(stream, ""),
        "instrument": verdict["instrument"],
        **{name: found[name] for name in numbers if found[name] not in (None, "")},
        **{f"harm_{name}": harm[name] for name in ("expected_loss", "verdict") if name in harm},
    }
    severity = dg.AssetCheckSeverity.ERROR if verdict["persists"] else dg.AssetCheckSeverity.WARN
    return Told(found["status"] != "drift", severity, _sentence(found), metadata)


def _sentence(found: Mapping[str, Any]) -> str:
    if found["status"] == "not_calibrated":
        return f"not calibrated: {found['reason']}"
    proviso = " (provisional: too few reference plates)" if found["provisional"] else ""
    if found["status"] == "drift":
        return (
            f"drift from well {found['first_well']} on, {found['n_alarms']} of {found['n_wells']} wells"
            f"{proviso}"
        )
    return f"no drift in {found['n_wells']} wells{proviso}"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
