"""What a version of a model is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
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
