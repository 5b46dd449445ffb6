"""One stream of an instrument: a detector, its epoch, and the last plates with the state before each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from cellabel.drift._kernel import Floats
from cellabel.drift._ledger import digest
from cellabel.drift._online import OnlineMMD, Step
from cellabel.drift._verdicts import StreamVerdict
from cellabel.drift.harm import HarmModel
from cellabel.errors import InputError

__all__ = ["Epoch", "Kept", "Stream"]

Key = tuple[float, str]
"""Where a plate stands in the order: seconds since 1970 of its acquisition, then its id."""

PLATES_WITHOUT_PROVISO = 19


@dataclass(frozen=True)
class Epoch:
    """A stretch of a stream that one detector judges.

    Attributes:
        number: 1 for the stream's first.
        detector: None where the stream cannot be judged.
        reason: why the epoch began, or why there is no detector.
        model_version: of the embeddings.
        provisional: its reference has too few plates to cover differences between plates.
        harm: estimates the loss of drifted wells; None where nothing is known about it.
        margin: factor on the thresholds, for what a reference of few plates cannot show.
    """

    number: int
    detector: OnlineMMD | None
    reason: str
    model_version: str | None
    provisional: bool
    harm: HarmModel | None = None
    margin: float = 1.0


@dataclass
class Kept:
    """A plate that can still be replayed: its rows, and the stream's state before it."""

    key: Key
    plate: str
    wells: tuple[str, ...]
    rows: Floats
    before: dict[str, Any]
    verdict: StreamVerdict


@dataclass
class Stream:
    """Ticks plates in the order of acquisition, each once.

    After a plate that alarmed, the windows are emptied before the next plate: otherwise its drifted wells
        would fill the
    window of the next plate, a clean plate would alarm for its predecessor's fault, and a second drifted
    plate would be no evidence of its own that the drift persists.
    """

    epoch: Epoch
    keep: int
    seen: set[int] = field(default_factory=set)
    kept: list[Kept] = field(default_factory=list)
    recent: list[str] = field(
        default_factory=list
    )  # ids of the observations since the last reset, newest last
    reset_due: bool = False

    def has_seen(self, plate: str) -> bool:
        """Whether the plate has ticked, in this epoch or an earlier one."""
        return digest(plate) in self.seen

    def verdict_of(self, plate: str) -> StreamVerdict | None:
        """The verdict of a plate that is still kept."""
        return next((entry.verdict for entry in self.kept if entry.plate == plate), None)

    def begin(self, epoch: Epoch) -> None:
        """Go on with another detector from here; plates seen stay seen, none is replayed across epochs."""
        own = None if epoch.detector is None else epoch.detector.twin()
        self.epoch = replace(epoch, detector=own)
        self.kept, self.recent, self.reset_due = [], [], False

    def tick(self, key: Key, plate: str, wells: Sequence[str], rows: Any) -> dict[str, StreamVerdict]:
        """Judge a plate that was not seen before.

        Returns:
            Its verdict by its id; for a late arrival also the verdicts of the later plates that were
            replayed.
        """
        refusal, values = self._refusal(wells, rows)
        if refusal is not None:
            return {plate: self._not_calibrated(refusal)}
        self.seen.add(digest(plate))
        if self.epoch.detector is None:
            return {plate: self._not_calibrated(self.epoch.reason)}
        place = bisect_right([entry.key for entry in self.kept], key)
        later = self.kept[place:]
        if later:
            self._restore(later[0].before)
        del self.kept[place:]
        verdicts = {plate: self._judge(key, plate, tuple(wells), values)}
        for entry in later:
            verdicts[entry.plate] = self._judge(entry.key, entry.plate, entry.wells, entry.rows)
        del self.kept[: -self.keep]
        return verdicts

    def _refusal(self, wells: Sequence[str], rows: Any) -> tuple[str | None, Floats]:
        nothing = np.empty((0, 0))
        if len(wells) == 0:
            return "The plate has no well with an embedding.", nothing
        if len(set(wells)) != len(wells) or len(wells) != len(rows):
            return "The wells are not one name for each row; pool fields to wells first.", nothing
        detector = self.epoch.detector
        if detector is None:
            return None, nothing
        try:
            return None, detector.checked(rows)
        except InputError as error:
            return str(error), nothing

    def _not_calibrated(self, reason: str) -> StreamVerdict:
        epoch = self.epoch
        return StreamVerdict("not_calibrated", reason, epoch.number, epoch.model_version, epoch.provisional)

    def _judge(self, key: Key, plate: str, wells: tuple[str, ...], rows: Floats) -> StreamVerdict:
        detector = self.epoch.detector
        assert detector is not None
        before = self._state()
        if self.reset_due:
            detector.reset()
            self.recent = []
        steps = detector.update_many(rows)
        self.recent.extend(f"{plate}/{well}" for well in wells)
        verdict = self._verdict(steps, wells, rows)
        self.recent = self.recent[-detector.history :]
        self.reset_due = verdict.status == "drift"
        self.kept.append(Kept(key, plate, wells, rows, before, verdict))
        return verdict

    def _verdict(self, steps: list[Step], wells: tuple[str, ...], rows: Floats) -> StreamVerdict:
        epoch = self.epoch
        # The thresholds of the first ticks may lie below zero, where a factor would lower them.
        limits = [step.threshold + (epoch.margin - 1.0) * abs(step.threshold) for step in steps]
        above = [step.statistic - limit for step, limit in zip(steps, limits, strict=True)]
        alarms = [place for place, step in enumerate(steps) if step.drift and above[place] > 0]
        shown = alarms[0] if alarms else int(np.argmax(above))
        step = steps[shown]
        change_id = None
        if alarms and step.change_time is not None:
            change_id = self.recent[len(self.recent) - 1 - (steps[-1].time - step.change_time)]
        return StreamVerdict(
            status="drift" if alarms else "no",
            epoch=epoch.number,
            model_version=epoch.model_version,
            provisional=epoch.provisional,
            statistic=step.statistic,
            threshold=limits[shown],
            n_alarms=len(alarms),
            n_wells=len(wells),
            first_well=wells[shown] if alarms else None,
            change_time=step.change_time if alarms else None,
            change_id=change_id,
            harm=None if epoch.harm is None else epoch.harm.estimate(rows),
        )

    def _state(self) -> dict[str, Any]:
        detector = self.epoch.detector
        state = {} if detector is None else detector.state_dict()
        return {"detector": state, "recent": list(self.recent), "reset_due": self.reset_due}

    def _restore(self, state: Mapping[str, Any]) -> None:
        if self.epoch.detector is not None and state["detector"]:
            self.epoch.detector.load_state_dict(state["detector"])
        self.recent, self.reset_due = list(state["recent"]), bool(state["reset_due"])

    def to_content(self) -> dict[str, Any]:
        """Arrays and plain values; detector and harm model by fingerprint only."""
        epoch = self.epoch
        content: dict[str, Any] = {"seen": np.array(sorted(self.seen), dtype=np.uint64)}
        entries = []
        for place, entry in enumerate(self.kept):
            content[f"{place}/rows"] = entry.rows
            _put(content, f"{place}/before", entry.before["detector"])
            entries.append(
                {
                    "key": list(entry.key),
                    "plate": entry.plate,
                    "wells": list(entry.wells),
                    "verdict": asdict(entry.verdict),
                    "recent": entry.before["recent"],
                    "reset_due": entry.before["reset_due"],
                }
            )
        _put(content, "now", self._state()["detector"])
        content["plain"] = {
            "number": epoch.number,
            "detector": None if epoch.detector is None else epoch.detector.fingerprint,
            "harm": None if epoch.harm is None else epoch.harm.fingerprint,
            "reason": epoch.reason,
            "model_version": epoch.model_version,
            "provisional": epoch.provisional,
            "margin": epoch.margin,
            "keep": self.keep,
            "recent": self.recent,
            "reset_due": self.reset_due,
            "kept": entries,
        }
        return content

    @classmethod
    def from_content(
        cls,
        name: str,
        content: Mapping[str, Any],
        detectors: Mapping[str, OnlineMMD],
        harms: Mapping[str, HarmModel],
    ) -> Stream:
        """The stream that `to_content` wrote; its detector takes on the state that the stream was left in.

        Raises:
            InputError: the detector or the harm model is not among those given.
        """
        plain = content["plain"]
        detector = _supplied(detectors, plain["detector"], f"detector of stream {name!r}")
        epoch = Epoch(
            plain["number"],
            None if detector is None else detector.twin(),
            plain["reason"],
            plain["model_version"],
            plain["provisional"],
            _supplied(harms, plain["harm"], f"harm model of stream {name!r}"),
            plain["margin"],
        )
        stream = cls(epoch, plain["keep"], set(content["seen"].tolist()))
        for place, entry in enumerate(plain["kept"]):
            before = {
                "detector": _take(content, f"{place}/before"),
                "recent": entry["recent"],
                "reset_due": entry["reset_due"],
            }
            time, plate = entry["key"]
            verdict = StreamVerdict.from_dict(entry["verdict"])
            kept = Kept(
                (time, plate),
                entry["plate"],
                tuple(entry["wells"]),
                content[f"{place}/rows"],
                before,
                verdict,
            )
            stream.kept.append(kept)
        now = {"detector": _take(content, "now"), "recent": plain["recent"], "reset_due": plain["reset_due"]}
        stream._restore(now)
        return stream


def _put(content: dict[str, Any], prefix: str, state: Mapping[str, Any]) -> None:
    content.update({f"{prefix}/{name}": value for name, value in state.items()})


def _take(content: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in content.items() if name.startswith(start)}


def _supplied(known: Mapping[str, Any], fingerprint: str | None, what: str) -> Any:
    if fingerprint is None:
        return None
    if fingerprint not in known:
        raise InputError(f"The {what} ({fingerprint[:12]}…) was not given; load it from where it was saved.")
    return known[fingerprint]
