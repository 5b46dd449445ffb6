"""Who is champion, who was before, and what was said of it: aliases and tags, moved step by step."""

from __future__ import annotations

import datetime as dt

from cellabel.errors import InputError
from cellabel.registry._catalogue import Catalogue, as_number
from cellabel.registry._versions import CHALLENGER, CHAMPION, PREVIOUS_CHAMPION, ModelVersion

RECORDED = "champion_record"
"""Tag of the registered model: the champion that this software last made or followed."""

_USES = "gate_uses."


class Succession:
    """The order of champions of each registered model. Callers hold the registry's lock.

    Every step may be repeated, so that a process that died in the midst of one is finished by the next.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def promote(self, chosen: ModelVersion, *, reason: str, expected_champion: int | None) -> None:
        """Make a version the champion; the old one becomes previous_champion.

        Raises:
            InputError: the champion is another one than expected.
        """
        name, old = chosen.name, self._catalogue.aliases(chosen.name).get(CHAMPION)
        if old != chosen.version:
            if expected_champion is not None and (old or 0) != expected_champion:
                raise InputError(
                    f"The champion of {name} is {_said(old)} by now, not {_said(expected_champion)}: "
                    "compare the challenger with it again."
                )
            if old is not None:
                self._catalogue.tag(name, chosen.version, predecessor=str(old))
                self._catalogue.set_alias(name, PREVIOUS_CHAMPION, old)
            self._catalogue.tag(name, chosen.version, promotion_reason=reason, promoted_at=now())
            self._catalogue.set_alias(name, CHAMPION, chosen.version)
        self._settle(name, chosen.version)

    def rollback(self, back: ModelVersion, bad: ModelVersion | None, *, reason: str) -> None:
        """Return to `back`; what that one had replaced, if anything, is then the previous one."""
        name = back.name
        if bad is not None:
            self._catalogue.tag(name, bad.version, rollback_reason=reason, rolled_back_at=now())
        self._catalogue.set_alias(name, CHAMPION, back.version)
        before = as_number(back.tags.get("predecessor", ""))
        if before is not None and self._catalogue.find(name, before) is not None:
            self._catalogue.set_alias(name, PREVIOUS_CHAMPION, before)
        else:
            self._catalogue.delete_alias(name, PREVIOUS_CHAMPION)
        self._settle(name, back.version)

    def adopt(self, champion: ModelVersion) -> bool:
        """Write down a champion that was set elsewhere, by a person in MLflow's page.

        Returns:
            Whether it was.
        """
        name, recorded = champion.name, self.recorded(champion.name)
        if recorded == champion.version:
            return False
        if recorded is not None and self._catalogue.find(name, recorded) is not None:
            self._catalogue.tag(name, champion.version, predecessor=str(recorded))
            self._catalogue.set_alias(name, PREVIOUS_CHAMPION, recorded)
        stepped_back = champion.tags.get("rolled_back_at", "") >= champion.tags.get("promoted_at", "")
        if "promoted_at" not in champion.tags or stepped_back:
            reason = "the alias was moved in MLflow by a person"
            self._catalogue.tag(name, champion.version, promotion_reason=reason, promoted_at=now())
        self._settle(name, champion.version)
        return True

    def recorded(self, name: str) -> int | None:
        """The champion that this software last made or followed."""
        return as_number(self._catalogue.model_tags(name).get(RECORDED, ""))

    def missing(self, name: str) -> str:
        """Why a model that had a champion has none, or ""."""
        recorded, aliases = self.recorded(name), self._catalogue.aliases(name)
        if recorded is None or CHAMPION in aliases:
            return ""
        organelle = name.removeprefix("cellabel-")
        back = aliases.get(PREVIOUS_CHAMPION)
        way = f"return to version {back} by `cellabel models rollback {organelle}`, or " if back else ""
        if self._catalogue.find(name, recorded) is None:
            what = f"Version {recorded} of {name}, the champion, was deleted in MLflow"
        else:
            what = f"The alias champion of {name} was taken from version {recorded} in MLflow"
        return (
            f"{what}, so nothing predicts {organelle}: {way}choose a version by "
            f"`cellabel models promote {organelle} --version … --reason …`."
        )

    def count_use(self, name: str, test_set: str, version: int) -> None:
        """Write down that a test set has decided about a version; deleting the version does not undo it."""
        uses = self.uses(name, test_set) | {version}
        self._catalogue.tag_model(name, **{_USES + test_set: " ".join(map(str, sorted(uses)))})

    def uses(self, name: str, test_set: str) -> set[int]:
        """The versions that a test set has decided about."""
        return {int(number) for number in self._catalogue.model_tags(name).get(_USES + test_set, "").split()}

    def _settle(self, name: str, champion: int) -> None:
        """The record, and no challenger that is champion already."""
        aliases = self._catalogue.aliases(name)
        if aliases.get(CHALLENGER) == champion:
            self._catalogue.delete_alias(name, CHALLENGER)
        if self.recorded(name) != champion:
            self._catalogue.tag_model(name, **{RECORDED: str(champion)})


def now() -> str:
    """The time in UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _said(number: int | None) -> str:
    return f"version {number}" if number else "none"
