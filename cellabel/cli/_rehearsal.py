"""The gate's decision without its consequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cellabel.alerts import Alert, AlertLedger
from cellabel.registry import ModelRegistry, ModelVersion

__all__ = ["SilentLedger", "rehearsal_of"]


class SilentLedger(AlertLedger):
    """Keeps no alert."""

    def write(self, alert: Alert) -> bool:
        """Whether the alert would be new; nothing is kept."""
        return True


class _Rehearsal(ModelRegistry):
    """Shows the versions and changes none; the challenger belongs to no incident, so that none is told."""

    def challenger(self, organelle: str) -> ModelVersion | None:
        found = super().challenger(organelle)
        if found is None:
            return None
        tags: Mapping[str, str] = {key: value for key, value in found.tags.items() if key != "incident"}
        return replace(found, tags=tags)

    def promote(self, organelle: str, version: int | str | ModelVersion, **_: Any) -> ModelVersion:
        return self.version(organelle, version)

    def adopt_champion(self, organelle: str) -> ModelVersion | None:
        return None

    def record_verdict(self, organelle: str, version: int, **_: Any) -> None:
        return None

    def refresh_card(self, organelle: str, version: int) -> None:
        return None


def rehearsal_of(registry: ModelRegistry) -> ModelRegistry:
    """A registry over the same versions that promotes nothing."""
    rehearsal = _Rehearsal.__new__(_Rehearsal)
    rehearsal.__dict__.update(registry.__dict__)
    return rehearsal
