"""What may be done about an incident, and when a person must be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from cellabel.drift.incidents import Incident

__all__ = ["Action", "ActionKind", "Policy", "Retraining", "decide"]

ActionKind = Literal[
    "none", "diagnose", "retrain", "ask_to_image_again", "ask_for_labels", "person_needed", "wait"
]

MENDABLE = ("defocus", "exposure", "brightness", "contrast", "dust", "lamp")


@dataclass(frozen=True)
class Policy:
    """What may be done without asking.

    Attributes:
        retrain_at_once: do not first ask to mend the microscope and image again.
        retrain_on_provisional: act on verdicts whose reference has too few plates.
        min_confidence: of a diagnosis, below which its cause counts as unknown.
        cooldown_days, cooldown_plates: a retraining is followed by rest until one of both has passed.
        max_retrainings_per_week: over everything in the history.
        max_retrainings_per_cause: on an instrument; then a person.
        persistent_share: of a plate's wells that makes one plate enough (8 of 24).
        frozen_streams: streams that no retraining changes; an incident ends only when they are quiet again.
        quiet_plates: consecutive plates without drift in the frozen streams that count as a return to
            reference.
        escalate_plates: drifted plates at which everyone is told again.
        mendable: causes to mend at the microscope.
    """

    retrain_at_once: bool = False
    retrain_on_provisional: bool = False
    min_confidence: float = 0.8
    cooldown_days: float = 7.0
    cooldown_plates: int = 5
    max_retrainings_per_week: int = 2
    max_retrainings_per_cause: int = 2
    persistent_share: float = 8 / 24
    frozen_streams: tuple[str, ...] = ("encoder", "acquisition")
    quiet_plates: int = 2
    escalate_plates: int = 3
    mendable: tuple[str, ...] = MENDABLE


@dataclass(frozen=True)
class Retraining:
    """One retraining that was begun.

    Attributes:
        incident, instrument, cause: what it was begun for.
        started_at: when.
        outcome: "running", "promoted", "lost" (the champion stayed) or "failed".
        finished_at: None while it runs.
        version: the challenger's, where there is one.
        plates_since: plates judged on the instrument since it ended.
    """

    incident: str
    instrument: str
    cause: str
    started_at: datetime
    outcome: Literal["running", "promoted", "lost", "failed"] = "running"
    finished_at: datetime | None = None
    version: str | None = None
    plates_since: int = 0

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        return {
            **asdict(self),
            **{name: _text(getattr(self, name)) for name in ("started_at", "finished_at")},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Retraining:
        """The retraining that `to_dict` wrote."""
        moments = {name: _moment(values[name]) for name in ("started_at", "finished_at")}
        return cls(**{**values, **moments})


@dataclass(frozen=True)
class Action:
    """What should happen next, and why in one sentence."""

    kind: ActionKind
    reason: str


def decide(incident: Incident, policy: Policy, history: Sequence[Retraining], now: datetime) -> Action:
    """The next thing to do about an incident.

    Args:
        incident: as it stands.
        policy: what is allowed.
        history: retrainings of all incidents, those of this one included or not (they are counted once).
        now: for cool-downs and snoozes; aware.

    Returns:
        The action and its reason. Deciding twice gives the same action until `act` notes that it was taken.
    """
    records = sorted((*incident.retrainings, *history), key=lambda one: one.outcome != "running")
    known = {(one.incident, one.started_at): one for one in records}  # of two records the ended one counts
    past = list(known.values())
    rules = (_at_rest, _cause_unknown, _not_worth_it, _refused_for_good, _mend_first, _not_now)
    for rule in rules:
        action = rule(incident, policy, past, now)
        if action is not None:
            return action
    cause = incident.diagnosis.sentence if incident.diagnosis else ""
    return Action("retrain", f"The drift persists and is harmful, and its cause is known: it {cause}.")


def _at_rest(incident: Incident, policy: Policy, past: list[Retraining], now: datetime) -> Action | None:
    if incident.status == "closed":
        return Action("none", f"The incident was closed by {incident.closed_by}: {incident.closing_reason}.")
    if incident.snoozed_until is not None and now < incident.snoozed_until:
        return Action("wait", f"Snoozed until {incident.snoozed_until:%Y-%m-%d %H:%M %Z}.")
    if incident.status == "diagnosing":
        return Action("wait", "The diagnosis is under way.")
    if incident.status == "retraining":
        return Action("wait", "A retraining for this incident is under way.")
    if len(incident.plates) > incident.diagnosed_after:
        return Action("diagnose", f"Plate {incident.plates[-1]} drifts and has no diagnosis yet.")
    if incident.status == "person_needed":
        return Action("wait", "A person has been asked.")
    return None


def _cause_unknown(
    incident: Incident, policy: Policy, past: list[Retraining], now: datetime
) -> Action | None:
    diagnosis = incident.diagnosis
    if incident.harm == "harmless":
        return None
    if diagnosis is None:
        return Action("wait", "The diagnosis is under way.")
    if diagnosis.kind is None:
        return Action("ask_for_labels", "No known cause explains the drift; stain some of the drifted wells.")
    if diagnosis.confidence < policy.min_confidence:
        return Action(
            "ask_for_labels",
            f"The diagnosis ({diagnosis.kind}) is only {diagnosis.confidence:.0%} certain, "
            f"{policy.min_confidence:.0%} is needed; stain some of the drifted wells.",
        )
    if incident.harm == "unknown":
        return Action(
            "ask_for_labels",
            "Whether the drift harms predictions is unknown; stain some of the drifted wells.",
        )
    return None


def _not_worth_it(incident: Incident, policy: Policy, past: list[Retraining], now: datetime) -> Action | None:
    if incident.harm == "harmless":
        return Action("none", "The drift is visible but does the predictions no harm.")
    if len(incident.plates) < 2 and incident.harmed_share < policy.persistent_share:
        return Action(
            "wait", "One plate has drifted so far; a retraining needs a second one, or a third of its wells."
        )
    return None


def _refused_for_good(
    incident: Incident, policy: Policy, past: list[Retraining], now: datetime
) -> Action | None:
    cause = incident.diagnosis.kind if incident.diagnosis else None
    if incident.provisional and not policy.retrain_on_provisional:
        return Action(
            "person_needed",
            "The verdict is provisional (fewer than 19 reference plates); a person must decide.",
        )
    same = [one for one in past if one.instrument == incident.instrument and one.cause == cause]
    if any(one.outcome == "lost" and one.incident == incident.id for one in same):
        return Action(
            "person_needed", f"A challenger trained against {cause} has lost; a person must decide."
        )
    if len([one for one in same if one.outcome != "running"]) >= policy.max_retrainings_per_cause:
        return Action(
            "person_needed",
            f"{len(same)} retrainings against {cause} have not ended it; see to the microscope.",
        )
    return None


def _mend_first(incident: Incident, policy: Policy, past: list[Retraining], now: datetime) -> Action | None:
    cause = incident.diagnosis.kind if incident.diagnosis else None
    if policy.retrain_at_once or cause not in policy.mendable:
        return None
    if incident.asked_after is None:
        return Action(
            "ask_to_image_again", f"{str(cause).capitalize()} can be mended at the microscope; image again."
        )
    if len(incident.plates) <= incident.asked_after:
        return Action("wait", "Someone was asked to mend the microscope; no later plate has drifted yet.")
    return None


def _not_now(incident: Incident, policy: Policy, past: list[Retraining], now: datetime) -> Action | None:
    if any(one.outcome == "running" for one in past):
        return Action("wait", "Another retraining is under way; they run one at a time.")
    week = [one for one in past if now - one.started_at < timedelta(days=7)]
    if len(week) >= policy.max_retrainings_per_week:
        return Action("wait", f"{len(week)} retrainings have begun within a week; no more are allowed.")
    for one in past:
        rested = one.finished_at is None or now - one.finished_at >= timedelta(days=policy.cooldown_days)
        if one.instrument == incident.instrument and not rested and one.plates_since < policy.cooldown_plates:
            return Action(
                "wait", f"The last retraining ended on {one.finished_at:%Y-%m-%d}; its cool-down is not over."
            )
    return None


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
