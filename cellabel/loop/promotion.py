"""The challenger before the gate, and what follows from its verdict."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pandas as pd
from upath import UPath

from cellabel.alerts import Alert, AlertLedger, alert_id
from cellabel.evaluation import Decision, GateSettings, decide, differing_truth
from cellabel.evaluation.gate import COMPARISON
from cellabel.loop.held_out import HeldOut, meant_for, of_another_implementation, read_held_out
from cellabel.loop.incidents import incidents, record_outcome
from cellabel.loop.limits import beyond_limits
from cellabel.loop.training import judge
from cellabel.organelles import Organelle
from cellabel.plates import open_plate
from cellabel.registry import ModelRegistry, ModelVersion, Standing
from cellabel.stores import Home, read_json

__all__ = ["judge_challenger", "kind_withstood", "tell_missing_champion"]


def judge_challenger(
    home: Home, registry: ModelRegistry, ledger: AlertLedger, organelle: Organelle
) -> Decision | None:
    """Compare the challenger with the champion on the held-out wells, and promote it if the gate lets it.

    Both models' errors are on the same wells and the same corrupted images. Measuring may take minutes and
    needs no lock; deciding, recording and promoting are one step under the registry's lock, and when another
    process has moved an alias meanwhile, all is looked at again. The verdict is kept with the version, told
    as an alert, and recorded with the drift incident that asked for the challenger. A challenger that was
    accepted but not promoted, as by a run that was killed, is judged again: its acceptance holds only against
    the champion of that time. One that a person has made champion meanwhile is not judged.

    Returns:
        The gate's decision; None where no challenger waits.

    Raises:
        InputError: a version has vanished, was half logged or is corrupted; the champion stays as it was.
    """
    while True:
        # the challenger last: an alias that moves in between is seen in its standing
        champion, challenger = registry.champion(organelle.name), registry.challenger(organelle.name)
        if challenger is None or not challenger.standing.may_be_judged:
            if challenger is not None and challenger.standing is Standing.CHAMPION:
                registry.adopt_champion(organelle.name)
            _tell_late(home, ledger, challenger, champion)
            return None
        if champion is None and (missing := registry.missing_champion(organelle.name)):
            tell_missing_champion(ledger, registry, organelle)
            return Decision(False, f"Not promoted: there is no champion to compare with. {missing}", _EMPTY)
        new = read_held_out(registry.folder(organelle.name, challenger.version))
        old = None if champion is None else _champion_on(home, registry, organelle, champion, challenger, new)
        with registry.exclusive(organelle.name):
            now = registry.challenger(organelle.name), registry.champion(organelle.name)
            if [one and one.version for one in now] != [
                one and one.version for one in (challenger, champion)
            ]:
                continue
            decision = _decide(home, registry, organelle, challenger, new, old)
            registry.record_verdict(
                organelle.name,
                challenger.version,
                promoted=decision.promote,
                reason=decision.reason,
                test_set=_test_set(challenger),
            )
            if decision.promote:
                registry.promote(
                    organelle.name,
                    challenger.version,
                    reason=decision.reason,
                    expected_champion=champion.version if champion else 0,
                )
        registry.refresh_card(organelle.name, challenger.version)
        _tell(home, ledger, challenger, decision.promote, decision.reason)
        return decision


_EMPTY = pd.DataFrame(columns=list(COMPARISON))
"""The comparison that could not be made."""


def _decide(
    home: Home,
    registry: ModelRegistry,
    organelle: Organelle,
    challenger: ModelVersion,
    new: HeldOut,
    old: HeldOut | None,
) -> Decision:
    """The gate on clean wells, on the conditions that the challenger is meant for, and on all others.

    What the challenger is meant for is judged by other physics than its augmentation's, and by that alone.
    """
    settings, metrics = home.settings.promotion, organelle.primary_metrics
    conditions = [one for one in _compared(new, old) if one not in new.destroyed]
    meant = meant_for(kind_withstood(challenger), conditions)
    conditions = [one for one in conditions if one not in meant or of_another_implementation(one)]
    decision = decide(
        None if old is None else old.errors(metrics),
        new.errors(metrics),
        settings=GateSettings(**settings.model_dump(include=set(GateSettings.model_fields))),
        champion_corrupted=None if old is None else old.corrupted_errors(metrics, conditions),
        challenger_corrupted=new.corrupted_errors(metrics, conditions),
        improve=[one for one in conditions if one in meant],
        metrics=metrics,
        reuse=registry.test_set_uses(organelle.name, _test_set(challenger), before=challenger.version),
    )
    if decision.promote and (refusal := beyond_limits(new.errors(metrics), organelle)):
        return replace(decision, promote=False, reason=refusal)
    return decision


def _compared(new: HeldOut, old: HeldOut | None) -> list[str]:
    """The corruptions that both models were measured under, on the same wells."""

    def wells(held_out: HeldOut, condition: str) -> set[tuple[str, str]]:
        found = held_out.wells("predicted", condition)
        return set(zip(found["Metadata_Plate"], found["Metadata_Well"], strict=True))

    conditions = new.conditions[1:]
    if old is None:
        return conditions
    return [one for one in conditions if one in old.conditions and wells(new, one) == wells(old, one)]


def tell_missing_champion(ledger: AlertLedger, registry: ModelRegistry, organelle: Organelle) -> str:
    """Ask for a person, once, where the champion was deleted or its alias taken away in MLflow's page.

    Returns:
        The sentence; "" where no champion is missing.
    """
    sentence = registry.missing_champion(organelle.name)
    if sentence:
        ledger.write(
            Alert(
                id=alert_id("person_needed", organelle.name, sentence),
                kind="person_needed",
                title=f"{organelle.name} has no champion any more",
                body=sentence,
                severity="error",
                organelle=organelle.name,
            )
        )
    return sentence


def _tell_late(home: Home, ledger: AlertLedger, *versions: ModelVersion | None) -> None:
    """The verdicts of a run that was killed before it could tell them."""
    for one in versions:
        if one is None or "gate_reason" not in one.tags or one.standing is Standing.ROLLED_BACK:
            continue
        _tell(home, ledger, one, one.tags["gate_promote"] == "true", one.tags["gate_reason"])


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


def kind_withstood(version: ModelVersion) -> str:
    """The kind of corruption that a version was trained to withstand, or ""."""
    return version.tags.get("corruption", "").split(" ")[0]


def _test_set(version: ModelVersion) -> str:
    return version.tags.get("test_set", "unknown")


def _champion_on(
    home: Home,
    registry: ModelRegistry,
    organelle: Organelle,
    champion: ModelVersion,
    challenger: ModelVersion,
    new: HeldOut,
) -> HeldOut:
    """The champion on the challenger's test set and conditions: kept measurements where they suffice.

    They do not where the stain has been segmented otherwise since: each model would be held to its own truth.
    """
    from cellabel.datasets import Dataset

    if _test_set(champion) == _test_set(challenger):
        kept = read_held_out(registry.folder(champion.organelle, champion.version))
        complete = set(filter(of_another_implementation, new.conditions)) <= set(kept.conditions)
        metrics = organelle.primary_metrics
        if complete and differing_truth(kept.errors(metrics), new.errors(metrics)).empty:
            return kept
    folder = registry.folder(challenger.organelle, challenger.version)
    manifest = read_json(UPath(folder / "dataset.json")) or {}
    dataset = Dataset.from_manifest(manifest, partial(open_plate, home.plates))
    model = registry.load(champion.organelle, champion.version)
    return judge(home, model, dataset, kind=kind_withstood(challenger), test_only=True)
