"""What a version of a model is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from cellabel.organelles import organelle as recipe

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS_CHAMPION = "previous_champion"


def model_name(organelle: str) -> str:
    """The name under which the organelle's models are registered.

    Raises:
        InputError: there is no such recipe.
    """
    return f"cellabel-{recipe(organelle).name}"


class Standing(StrEnum):
    """How far a version has come.

    An accepted one passed the gate and is not champion: its promotion is still to be made, or it was champion
    once and gave way to a better one.
    """

    UNJUDGED = "unjudged"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    ROLLED_BACK = "rolled back"
    CHAMPION = "champion"

    @property
    def may_be_judged(self) -> bool:
        """Whether the gate is still to decide: an acceptance holds only against the champion of its time."""
        return self in (Standing.UNJUDGED, Standing.ACCEPTED)


@dataclass(frozen=True)
class ModelVersion:
    """One registered version.

    Attributes:
        organelle: the recipe it predicts.
        name: the registered model's name, `cellabel-<organelle>`.
        version: counted from 1.
        run_id: the MLflow run that logged it.
        aliases: champion, challenger, previous_champion, as far as they point here.
        tags: lineage (dataset_version, code_version, dagster_run_id …), checksums and verdicts.
        metrics: what was measured when it was registered.
        created_at: when it was registered, UTC.
        description: the model card, Markdown.
    """

    organelle: str
    name: str
    version: int
    run_id: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    created_at: dt.datetime
    description: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", MappingProxyType(dict(self.tags)))
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))

    @property
    def standing(self) -> Standing:
        """What its aliases and the gate's verdict make of it."""
        if CHAMPION in self.aliases:
            return Standing.CHAMPION
        if self.was_rolled_back:
            return Standing.ROLLED_BACK
        verdicts = {"true": Standing.ACCEPTED, "false": Standing.REFUSED}
        return verdicts.get(self.tags.get("gate_promote", ""), Standing.UNJUDGED)

    @property
    def was_rolled_back(self) -> bool:
        """Whether it was rolled back after it had last been promoted."""
        tags = self.tags
        return "rolled_back_at" in tags and tags["rolled_back_at"] >= tags.get("promoted_at", "")
