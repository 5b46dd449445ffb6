"""Where an installation stands, read from its stores. Light: no torch, no mlflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellabel.loop.streams import followed_champion
from cellabel.loop.watch import stored_verdict
from cellabel.stores import Home

__all__ = ["PlateStatus", "plate_status", "read_champions"]


@dataclass(frozen=True)
class PlateStatus:
    """What is known of a plate.

    Attributes:
        plate_id: the plate.
        status: arriving, accepted, quarantined, retired, or unknown.
        reason: why it is not accepted, or "".
        predicted: organelle → model version of the current prediction whose table is written.
        drift: "yes", "no", "not calibrated", or "" while there is no verdict.
        verdict: the whole verdict, or None.
    """

    plate_id: str
    status: str
    reason: str
    predicted: dict[str, int]
    drift: str
    verdict: dict[str, Any] | None


def plate_status(home: Home, plate_id: str) -> PlateStatus:
    """What is known of a plate, present in the store or not."""
    record = home.plates.record(plate_id) or {}
    predicted = {}
    for organelle in home.settings.organelles:
        current = home.predictions.record(f"{plate_id}/{organelle}")
        if current and home.tables.has("wells", organelle, plate_id):
            predicted[organelle] = int(current["model_version"])
    verdict = stored_verdict(home, plate_id)
    return PlateStatus(
        plate_id,
        str(record.get("status", "unknown")),
        str(record.get("reason") or ""),
        predicted,
        _word(verdict),
        verdict,
    )


def read_champions(home: Home) -> dict[str, int]:
    """Organelle → version of the champion that its drift streams follow."""
    followed = {name: followed_champion(home, name).version for name in home.settings.organelles}
    return {name: version for name, version in followed.items() if version}


def _word(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return ""
    if verdict["drift"]:
        return "yes"
    statuses = {stream["status"] for stream in verdict["streams"].values()}
    return "no" if "no" in statuses else "not calibrated"
