"""The challenger before the gate, and what follows from its verdict."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
from upath import UPath

from cellabel.alerts import Alert, AlertLedger, alert_id
from cellabel.evaluation import Decision, GateSettings, decide
from cellabel.loop.held_out import HeldOut
from cellabel.loop.incidents import incidents, record_outcome
from cellabel.loop.limits import beyond_limits
from cellabel.loop.training import judge
from cellabel.organelles import Organelle
from cellabel.plates import open_plate
from cellabel.registry import ModelRegistry, ModelVersion
from cellabel.stores import Home, read_json

__all__ = ["judge_challenger"]


def judge_challenger(
    home: Home, registry: ModelRegistry, ledger: AlertLedger, organelle: Organelle
) -> Decision | None:
    """Compare the challenger with the champion on the held-out wells, and promote it if the gate lets it.

    Both models' errors are on the same wells and the same corrupted images. The verdict is kept with the
    version, told as an alert, and recorded with the drift incident that asked for the challenger.

    Returns:
        The gate's decision; None where no challenger waits.
    """
    challenger, champion = registry.challenger(organelle.name), registry.champion(organelle.name)
    if challenger is None or challenger.tags.get("gate_promote") == "false":
        for judged in (challenger, champion):  # by a run that was killed before it could tell
            if judged is not None and "gate_reason" in judged.tags:
                _tell(home, ledger, judged, judged.tags["gate_promote"] == "true", judged.tags["gate_reason"])
        return None
    settings = home.settings.promotion
    new = read_held_out(registry.folder(organelle.name, challenger.version))
    old = None if champion is None else _champion_on(home, registry, champion, challenger)
    conditions = gate_names(new)
    metrics = organelle.primary_metrics
    test_set = challenger.tags.get("test_set", "")
    decision = decide(
        None if old is None else old.errors(metrics),
        new.errors(metrics),
        settings=GateSettings(
            min_plates=settings.min_plates,
            min_wells=settings.min_wells,
            first_max_error=settings.first_max_error,
        ),
        champion_corrupted=None if old is None else old.corrupted_errors(metrics, conditions),
        challenger_corrupted=new.corrupted_errors(metrics, conditions),
        improve=meant_conditions(challenger, conditions),
        reuse=registry.test_set_uses(organelle.name, test_set, before=challenger.version),
    )
    if decision.promote and (refusal := beyond_limits(new.errors(metrics), organelle)):
        decision = replace(decision, promote=False, reason=refusal)
    registry.record_verdict(
        organelle.name,
        challenger.version,
        promoted=decision.promote,
        reason=decision.reason,
        test_set=test_set,
    )
    if decision.promote:
        registry.promote(
            organelle.name,
            challenger.version,
            reason=decision.reason,
            expected_champion=champion.version if champion else None,
        )
    _tell(home, ledger, challenger, decision.promote, decision.reason)
    return decision


def _tell(home: Home, ledger: AlertLedger, version: ModelVersion, promoted: bool, reason: str) -> None:
    """The outcome, for the incident that asked for the version, then the alert; once."""
    incident = version.tags.get("incident", "")
    verb = "is the champion" if promoted else "was refused"
    told = alert_id("promotion", version.organelle, version.version)
    if any(alert.id == told for alert in ledger.alerts("promotion")):
        return
    if incident in {one.id for one in incidents(home)}:
        record_outcome(home, incident, "promoted" if promoted else "lost", version.version)
    ledger.write(
        Alert(
            id=told,
            kind="promotion",
            title=f"{version.organelle} version {version.version} {verb}",
            body=reason,
            severity="info" if promoted else "warning",
            organelle=version.organelle,
            data={"version": version.version, "promoted": promoted, "incident": incident},
        )
    )


def read_held_out(folder: Path) -> HeldOut:
    """What was measured when a version was trained."""
    return HeldOut(
        pd.read_parquet(folder / "measured.parquet"), pd.read_parquet(folder / "embeddings.parquet")
    )


def gate_names(held_out: HeldOut) -> list[str]:
    """The conditions that the gate judges by: those with a physical size."""
    return [name for name in held_out.measured["condition"].unique() if name.endswith("µm")]


def meant_conditions(challenger: ModelVersion, conditions: list[str]) -> list[str]:
    """The conditions that a challenger was trained to withstand."""
    kind = challenger.tags.get("corruption", "").split(" ")[0]
    return [name for name in conditions if kind and name.startswith(kind)]


def _champion_on(
    home: Home, registry: ModelRegistry, champion: ModelVersion, challenger: ModelVersion
) -> HeldOut:
    """The champion's measurements on the challenger's test set: kept ones where the set is the same."""
    from cellabel.datasets import Dataset

    if champion.tags.get("test_set") == challenger.tags.get("test_set"):
        return read_held_out(registry.folder(champion.organelle, champion.version))
    folder = registry.folder(challenger.organelle, challenger.version)
    manifest = read_json(UPath(folder / "dataset.json")) or {}
    dataset = Dataset.from_manifest(manifest, partial(open_plate, home.plates))
    model = registry.load(champion.organelle, champion.version)
    return judge(home, model, dataset, test_only=True)
