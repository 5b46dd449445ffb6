"""What is said about a plate: one verdict a stream, one for the plate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from cellabel.drift.harm import Harm

__all__ = ["PlateVerdict", "Status", "StreamVerdict", "event_id"]

Status = Literal["no", "drift", "not_calibrated"]


@dataclass(frozen=True)
class StreamVerdict:
    """What one stream says about one plate.

    Attributes:
        status: "no", "drift", or "not_calibrated": no judgement, which is neither a failure nor a "no".
        reason: why there is no judgement; empty otherwise.
        epoch: number of the stream's epoch that judged.
        model_version: of the embeddings; None where there is none.
        provisional: the reference has too few plates for its promise to cover differences between plates.
        statistic, threshold: at the first alarm, or else where the statistic came closest; None without
            judgement.
        n_alarms, n_wells: wells at which the statistic lay above its threshold, and all wells that ticked.
        first_well: well of the first alarm.
        change_time: observations since the stream's last reset at which the change is taken to have begun.
        change_id: the observation "plate/well" there; it may lie in an earlier plate.
        harm: expected loss of the plate's predictions; None without a harm model.
    """

    status: Status
    reason: str = ""
    epoch: int = 0
    model_version: str | None = None
    provisional: bool = False
    statistic: float | None = None
    threshold: float | None = None
    n_alarms: int = 0
    n_wells: int = 0
    first_well: str | None = None
    change_time: int | None = None
    change_id: str | None = None
    harm: Harm | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StreamVerdict:
        """The verdict whose `asdict` is `values`."""
        harm = values["harm"]
        return cls(**{**values, "harm": None if harm is None else Harm(**harm)})


@dataclass(frozen=True)
class PlateVerdict:
    """What all streams of an instrument say about one plate.

    Attributes:
        instrument, plate: whose.
        streams: stream name → verdict. Empty for a plate too old for its verdicts to be kept.
        drift: whether any stream drifts.
        event_id: the same for the same verdict by the same epochs; another one where a replay changed it.
        repeated: the plate had ticked before, and this is what was said then.
        replayed: verdicts of later plates that this late arrival changed.
    """

    instrument: str
    plate: str
    streams: Mapping[str, StreamVerdict]
    drift: bool
    event_id: str
    repeated: bool = False
    replayed: tuple[PlateVerdict, ...] = ()

    @classmethod
    def of(cls, instrument: str, plate: str, streams: Mapping[str, StreamVerdict]) -> PlateVerdict:
        """The verdict that follows from those of the streams."""
        drift = any(verdict.status == "drift" for verdict in streams.values())
        return cls(instrument, plate, dict(streams), drift, event_id(instrument, plate, streams))

    @property
    def drifting(self) -> dict[str, StreamVerdict]:
        """The streams that drift."""
        return {name: verdict for name, verdict in self.streams.items() if verdict.status == "drift"}

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PlateVerdict:
        """The verdict that `to_dict` wrote."""
        streams = {name: StreamVerdict.from_dict(verdict) for name, verdict in values["streams"].items()}
        replayed = tuple(cls.from_dict(verdict) for verdict in values["replayed"])
        return cls(**{**values, "streams": streams, "replayed": replayed})

    def again(self) -> PlateVerdict:
        """The same verdict, told again."""
        return replace(self, repeated=True, replayed=())


def event_id(instrument: str, plate: str, streams: Mapping[str, StreamVerdict]) -> str:
    """A digest of who judged what: the epochs and statuses, alarms and where they began."""
    said = {
        name: [v.epoch, v.status, v.n_alarms, v.first_well, v.change_id]
        for name, v in sorted(streams.items())
    }
    text = json.dumps([instrument, plate, said], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
