"""The drift side of the loop: every stream of one instrument, ticked plate by plate, exactly once each.

No input or output happens here. The caller brings plates as arrays, and commits `to_bytes()` as one blob;
whatever was not committed is simply ticked again, with the same verdicts and the same event ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from numpy.typing import NDArray

from cellabel.drift._online import OnlineMMD
from cellabel.drift._packing import pack, unpack
from cellabel.drift._stream import PLATES_WITHOUT_PROVISO, Epoch, Key, Stream
from cellabel.drift._verdicts import PlateVerdict, StreamVerdict
from cellabel.drift.harm import HarmModel
from cellabel.errors import InputError

__all__ = ["Epoch", "InstrumentWatch", "PlateObservation", "PlateVerdict", "StreamVerdict"]

FORMAT = 1
UNKNOWN_STREAM = "The stream has no detector yet."


@dataclass(frozen=True)
class PlateObservation:
    """What one plate shows to the streams.

    Attributes:
        plate_id: the plate's id.
        acquired_at: when it was imaged, with a time zone; None where the files do not say.
        first_seen: when the inbox first saw it; stands in for `acquired_at`.
        rows: stream name → (well names, (n, d) one row a well, in the order of imaging).
    """

    plate_id: str
    acquired_at: datetime | None
    first_seen: datetime
    rows: Mapping[str, tuple[Sequence[str], NDArray]]

    @property
    def key(self) -> Key:
        """Where the plate stands in the order of plates."""
        moment = self.acquired_at or self.first_seen
        if moment.tzinfo is None:
            raise InputError(f"The time of plate {self.plate_id} has no time zone; give an aware datetime.")
        return moment.astimezone(UTC).timestamp(), self.plate_id


class InstrumentWatch:
    """All streams of one instrument, and the plates they have seen.

    Every plate is judged once by every stream that has rows of it. A plate that arrives late but was imaged
    earlier is
    put in its place: the streams go back to their state before the next later plate and replay from there, as
        far back
    as the last `keep` plates and never beyond the beginning of the epoch. Verdicts that this changes are
    returned with new event ids; what was told before stays told.

    Args:
        instrument: its name.
        keep: plates that can be replayed, and whose verdicts stay readable in full.
    """

    def __init__(self, instrument: str, keep: int = 10) -> None:
        if keep < 1:
            raise InputError(f"keep is {keep}; at least one plate has to stay replayable.")
        self.instrument = instrument
        self.keep = keep
        self._streams: dict[str, Stream] = {}
        self._verdicts: dict[str, PlateVerdict] = {}
        self._past: dict[str, tuple[float, bool, str]] = {}  # plate → time, drift, event id: all plates ever

    @property
    def epochs(self) -> dict[str, Epoch]:
        """Stream name → its present epoch."""
        return {name: stream.epoch for name, stream in self._streams.items()}

    @property
    def plates(self) -> list[str]:
        """All plates that were ticked, in the order of acquisition."""
        return sorted(self._past, key=lambda plate: (self._past[plate][0], plate))

    def start_epoch(
        self,
        stream: str,
        detector: OnlineMMD | None,
        reason: str,
        model_version: str | None,
        *,
        harm: HarmModel | None = None,
        provisional: bool | None = None,
        margin: float = 1.0,
    ) -> Epoch:
        """Judge `stream` by another detector from here on; the plates it has seen stay seen.

        Args:
            stream: its name; a new name makes a new stream.
            detector: fitted; None where there can be none, and `reason` says why.
            reason: why the epoch begins.
            model_version: of the embeddings that will come.
            harm: what estimates the loss of drifted wells.
            provisional: by default, whether the detector's groups are fewer than 19 plates.
            margin: factor from 1 on upon the thresholds; see `leave_plate_out_margin`.

        Raises:
            InputError: a margin below 1.
        """
        if not margin >= 1.0:
            raise InputError(f"The margin of stream {stream!r} is {margin!r}; give a factor of 1 or more.")
        if stream not in self._streams:
            self._streams[stream] = Stream(Epoch(0, None, UNKNOWN_STREAM, None, True), self.keep)
        if provisional is None:
            groups = None if detector is None else detector.report.n_groups
            provisional = groups is None or groups < PLATES_WITHOUT_PROVISO
        number = self._streams[stream].epoch.number + 1
        self._streams[stream].begin(Epoch(number, detector, reason, model_version, provisional, harm, margin))
        return self._streams[stream].epoch

    def has_seen(self, plate_id: str, stream: str | None = None) -> bool:
        """Whether the plate ticked `stream`, or any stream."""
        names = self._streams if stream is None else [stream]
        return any(self._streams[name].has_seen(plate_id) for name in names if name in self._streams)

    def tick(self, plate: PlateObservation) -> PlateVerdict:
        """Judge a plate; one whose streams have all seen it changes nothing and gives its verdict again.

        A stream without rows for the plate, or with rows that its detector cannot take, says "not_calibrated"
        with the reason, and may still judge the plate when such rows arrive.

        Raises:
            InputError: a time without time zone; nothing changes.
        """
        key = plate.key
        known = self._verdicts.get(plate.plate_id)
        changed: dict[str, dict[str, StreamVerdict]] = {plate.plate_id: dict(known.streams) if known else {}}
        fresh = False
        for name in sorted({*self._streams, *plate.rows}):
            ticked = self._tick_stream(name, key, plate)
            fresh = fresh or bool(ticked)
            for plate_id, said in ticked.items():
                changed.setdefault(plate_id, {})[name] = said
        if not fresh and plate.plate_id in self._past:
            return self._again(plate.plate_id)
        replayed = self._revised(changed, plate.plate_id)
        verdict = PlateVerdict.of(self.instrument, plate.plate_id, changed[plate.plate_id])
        self._remember(verdict, key[0])
        self._forget_old()
        return replace(verdict, replayed=replayed)

    def _tick_stream(self, name: str, key: Key, plate: PlateObservation) -> dict[str, StreamVerdict]:
        stream = self._streams.setdefault(name, Stream(Epoch(0, None, UNKNOWN_STREAM, None, True), self.keep))
        if stream.has_seen(plate.plate_id):
            return {}
        if name in plate.rows:
            return stream.tick(key, plate.plate_id, *plate.rows[name])
        missing = StreamVerdict(
            "not_calibrated", "The plate has no embeddings for this stream.", stream.epoch.number
        )
        return {} if plate.plate_id in self._past else {plate.plate_id: missing}

    def _revised(
        self, changed: dict[str, dict[str, StreamVerdict]], arrival: str
    ) -> tuple[PlateVerdict, ...]:
        """Later plates whose verdict the arrival has changed, remembered anew."""
        revised = []
        for plate_id, streams in changed.items():
            known = self._verdicts.get(plate_id)
            if plate_id == arrival or known is None:
                continue
            verdict = PlateVerdict.of(self.instrument, plate_id, {**known.streams, **streams})
            if verdict.event_id != known.event_id:
                revised.append(verdict)
            self._remember(verdict, self._past[plate_id][0])
        return tuple(revised)

    def _again(self, plate_id: str) -> PlateVerdict:
        if plate_id in self._verdicts:
            return self._verdicts[plate_id].again()
        _, drift, event = self._past[plate_id]
        return PlateVerdict(self.instrument, plate_id, {}, drift, event, repeated=True)

    def _remember(self, verdict: PlateVerdict, time: float) -> None:
        self._verdicts[verdict.plate] = verdict
        self._past[verdict.plate] = (time, verdict.drift, verdict.event_id)

    def _forget_old(self) -> None:
        """Full verdicts are kept of the plates that a stream may replay, and of the last `keep` besides."""
        replayable = {entry.plate for stream in self._streams.values() for entry in stream.kept}
        latest = sorted(self._verdicts, key=lambda plate: (self._past[plate][0], plate))[-self.keep :]
        for plate_id in set(self._verdicts) - replayable - set(latest):
            del self._verdicts[plate_id]

    def state_dict(self) -> dict[str, Any]:
        """Arrays and plain values: everything but detectors and harm models, named by fingerprint."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "instrument": self.instrument,
            "keep": self.keep,
            "streams": list(self._streams),
            "past": [[plate, *values] for plate, values in self._past.items()],
            "verdicts": [verdict.to_dict() for verdict in self._verdicts.values()],
        }
        for place, stream in enumerate(self._streams.values()):
            content.update({f"stream{place}/{name}": value for name, value in stream.to_content().items()})
        return content

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        detectors: Mapping[str, OnlineMMD],
        harms: Mapping[str, HarmModel] | None = None,
    ) -> InstrumentWatch:
        """The watch that `state_dict` described.

        Args:
            state: what `state_dict` returned.
            detectors: fingerprint → detector, of every epoch under way; they stay as they are.
            harms: fingerprint → harm model.

        Raises:
            InputError: another format, or a detector or harm model that is missing.
        """
        if state.get("format") != FORMAT:
            raise InputError("This is no state of an instrument's streams; give what state_dict returned.")
        watch = cls(state["instrument"], state["keep"])
        for place, name in enumerate(state["streams"]):
            prefix = f"stream{place}/"
            content = {
                key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
            }
            watch._streams[name] = Stream.from_content(name, content, detectors, harms or {})
        watch._past = {plate: (time, drift, event) for plate, time, drift, event in state["past"]}
        watch._verdicts = {values["plate"]: PlateVerdict.from_dict(values) for values in state["verdicts"]}
        return watch

    def to_bytes(self) -> bytes:
        """The whole state as one blob with a checksum, to be committed in one write."""
        return pack(self.state_dict())

    @classmethod
    def from_bytes(
        cls, data: bytes, detectors: Mapping[str, OnlineMMD], harms: Mapping[str, HarmModel] | None = None
    ) -> InstrumentWatch:
        """The watch that `to_bytes` wrote.

        Raises:
            InputError: truncated or edited, or a detector or harm model that is missing.
        """
        return cls.from_state(cls.unpacked(data), detectors, harms)

    @staticmethod
    def unpacked(data: bytes) -> dict[str, Any]:
        """The state that `to_bytes` packed, for `needed` and `from_state`.

        Raises:
            InputError: truncated or edited.
        """
        return unpack(data, "The streams' state")

    @staticmethod
    def needed(data: bytes | Mapping[str, Any]) -> tuple[set[str], set[str]]:
        """Fingerprints of the detectors, and of the harm models, that opening a state will ask for."""
        state = InstrumentWatch.unpacked(data) if isinstance(data, bytes) else data
        plains = [state[f"stream{place}/plain"] for place in range(len(state["streams"]))]
        detectors = {plain["detector"] for plain in plains if plain["detector"]}
        return detectors, {plain["harm"] for plain in plains if plain["harm"]}
