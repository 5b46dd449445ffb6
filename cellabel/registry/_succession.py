"""Who is champion, who was before, and what was said of it: aliases and tags, moved step by step."""

from __future__ import annotations

import datetime as dt

from cellabel.errors import InputError
from cellabel.registry._catalogue import Catalogue, as_number
from cellabel.registry._versions import CHALLENGER, CHAMPION, PREVIOUS_CHAMPION, ModelVersion

RECORDED = "champion_record"
"""Tag of the registered model: the champions that this software made or followed, oldest first, each once.

The last is the one of now. A version that was rolled back is not among them.
"""

RETURNED_FROM = "returned_from"
"""Tag of a version: the one whose rollback made it champion again."""

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
        self._settle(name, chosen.version, self.order(name))

    def rollback(self, back: ModelVersion, bad: ModelVersion | None, *, reason: str) -> None:
        """Return to `back`; the previous one is then the champion before that, never the one that leaves."""
        name = back.name
        left = self.recorded(name) if bad is None else bad.version
        if bad is not None:
            self._catalogue.tag(name, bad.version, rollback_reason=reason, rolled_back_at=now())
        if left is not None:
            self._catalogue.tag(name, back.version, **{RETURNED_FROM: str(left)})
        self._catalogue.set_alias(name, CHAMPION, back.version)
        self._step_back(name, back.version, left)

    def adopt(self, champion: ModelVersion) -> bool:
        """Write down a champion that was set elsewhere, by a person in MLflow's page.

        Returns:
            Whether it was.
        """
        name, recorded = champion.name, self.recorded(champion.name)
        if recorded == champion.version:
            self._settle(name, champion.version, self.order(name))
            return False
        before = None if recorded is None else self._catalogue.find(name, recorded)
        if before is not None and before.was_rolled_back and _returned(champion, before):
            self._step_back(name, champion.version, recorded)  # a rollback died before it was written down
            return False
        if before is not None:
            self._catalogue.tag(name, champion.version, predecessor=str(recorded))
            self._catalogue.set_alias(name, PREVIOUS_CHAMPION, before.version)
        if "promoted_at" not in champion.tags or champion.was_rolled_back:
            reason = "the alias was moved in MLflow by a person"
            self._catalogue.tag(name, champion.version, promotion_reason=reason, promoted_at=now())
        self._settle(name, champion.version, self.order(name))
        return True

    def recorded(self, name: str) -> int | None:
        """The champion that this software last made or followed."""
        return next(reversed(self.order(name)), None)

    def order(self, name: str) -> list[int]:
        """The champions that a rollback may return to, oldest first, and the recorded one at the end."""
        numbers = map(as_number, self._catalogue.model_tags(name).get(RECORDED, "").split())
        return [number for number in numbers if number is not None]

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

    def _step_back(self, name: str, champion: int, left: int | None) -> None:
        """End the order with the champion that came back; what precedes it there is the previous one."""
        order = [one for one in self.order(name) if one != left]
        order = order[: order.index(champion)] if champion in order else order
        order = [one for one in order if self._catalogue.find(name, one) is not None]
        if order:
            self._catalogue.set_alias(name, PREVIOUS_CHAMPION, order[-1])
        else:
            self._catalogue.delete_alias(name, PREVIOUS_CHAMPION)
        self._settle(name, champion, order)

    def _settle(self, name: str, champion: int, order: list[int]) -> None:
        """Record the order, ending in the previous champion and this one; it is no challenger any more."""
        aliases = self._catalogue.aliases(name)
        if aliases.get(CHALLENGER) == champion:
            self._catalogue.delete_alias(name, CHALLENGER)
        last = [one for one in (aliases.get(PREVIOUS_CHAMPION), champion) if one is not None]
        order = list(dict.fromkeys([*(one for one in order if one not in last), *last]))
        if self.order(name) != order:
            self._catalogue.tag_model(name, **{RECORDED: " ".join(map(str, order))})


def now() -> str:
    """The time in UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _said(number: int | None) -> str:
    return f"version {number}" if number else "none"


def _returned(champion: ModelVersion, left: ModelVersion) -> bool:
    return champion.tags.get(RETURNED_FROM) == str(left.version)
