"""A family of streams that keeps one promise together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike, NDArray

from cellabel.drift._calibration import Start
from cellabel.drift._kernel import Bandwidth
from cellabel.drift._online import OnlineMMD, Step
from cellabel.drift._packing import checksum, read_packed, write_packed
from cellabel.drift._report import FitReport
from cellabel.errors import InputError

__all__ = ["StreamBank"]


class StreamBank:
    """S streams of one instrument, say one an organelle, ticking together.

    The family raises one false alarm in `expected_run_time` ticks; each stream by itself gets S times as long
    a run time. That is exact for small rates and independent streams, and cautious where streams are
    correlated.

    Args:
        streams: their names.
        expected_run_time: of the whole family, in ticks (observations of every stream).
        window_size, bandwidth, start: as for `OnlineMMD`.
        seed: stream i is calibrated with seed + i.
    """

    def __init__(
        self,
        streams: Sequence[str],
        expected_run_time: float,
        window_size: int | Sequence[int] = 10,
        bandwidth: Bandwidth = "median",
        start: Start = "growing",
        seed: int = 0,
    ) -> None:
        names = list(streams)
        if isinstance(streams, str) or not names or len(set(names)) != len(names):
            raise InputError(f"The streams {streams!r} are not one or more different names.")
        each = len(names) * OnlineMMD(expected_run_time).expected_run_time
        self.expected_run_time = float(expected_run_time)
        self._detectors = {
            name: OnlineMMD(each, window_size, bandwidth, start, seed + place)
            for place, name in enumerate(names)
        }

    def __getitem__(self, stream: str) -> OnlineMMD:
        if stream not in self._detectors:
            raise InputError(f"No stream is called {stream!r}; there are {', '.join(self._detectors)}.")
        return self._detectors[stream]

    def __iter__(self) -> Iterator[str]:
        return iter(self._detectors)

    def __len__(self) -> int:
        return len(self._detectors)

    def fit(
        self,
        references: Mapping[str, ArrayLike],
        groups: Sequence[Any] | NDArray | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> dict[str, FitReport]:
        """Calibrate every stream; all of them or, when one is refused, none.

        Args:
            references: stream → (N, d) observations.
            groups: labels of the rows, shared by all streams.
            model: stream → what made its rows.

        Raises:
            InputError: a stream without reference or an unknown one, or a reference that is refused.
        """
        self._same_streams(references, "references")
        fitted, reports = {}, {}
        for name, detector in self._detectors.items():
            fitted[name] = OnlineMMD(**detector.settings)
            reports[name] = fitted[name].fit(references[name], groups, (model or {}).get(name))
        self._detectors = fitted
        return reports

    def update(self, observations: Mapping[str, ArrayLike], id: str | None = None) -> dict[str, Step]:
        """One observation of every stream; all are taken, or none.

        Raises:
            InputError: a stream is missing or unknown, or an observation is refused.
        """
        self._same_streams(observations, "observations")
        for name, detector in self._detectors.items():
            detector.checked([observations[name]])
        return {name: detector.update(observations[name], id) for name, detector in self._detectors.items()}

    def update_many(
        self, observations: Mapping[str, ArrayLike], ids: Sequence[str] | None = None
    ) -> dict[str, list[Step]]:
        """Observations (n, d) of every stream, the same n of each; all are taken, or none.

        Raises:
            InputError: a stream is missing or unknown, lengths differ, or an observation is refused.
        """
        self._same_streams(observations, "observations")
        rows = {name: detector.checked(observations[name]) for name, detector in self._detectors.items()}
        lengths = {name: len(block) for name, block in rows.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(
                f"The streams' blocks differ in length ({lengths}); give one row a stream and tick."
            )
        return {name: detector.update_many(rows[name], ids) for name, detector in self._detectors.items()}

    def reset(self) -> None:
        """Empty the windows of all streams."""
        for detector in self._detectors.values():
            detector.reset()

    @property
    def reports(self) -> dict[str, FitReport]:
        """Stream → the report of its last fit."""
        return {name: detector.report for name, detector in self._detectors.items()}

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Stream → everything that updates have changed."""
        return {name: detector.state_dict() for name, detector in self._detectors.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Continue from `state`; all streams do, or none.

        Raises:
            InputError: a stream is missing or unknown, or its state is refused.
        """
        self._same_streams(state, "states")
        for name, detector in self._detectors.items():
            detector.twin().load_state_dict(state[name])
        for name, detector in self._detectors.items():
            detector.load_state_dict(state[name])

    @property
    def fingerprint(self) -> str:
        """A digest of the fingerprints of all streams."""
        return checksum({name: detector.fingerprint for name, detector in self._detectors.items()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all calibrations and states to one npz file, atomically and without pickle."""
        content: dict[str, Any] = {
            "streams": list(self._detectors),
            "expected_run_time": self.expected_run_time,
        }
        for place, detector in enumerate(self._detectors.values()):
            content.update({f"{place}/{name}": value for name, value in detector.to_content().items()})
        write_packed(Path(path), content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StreamBank:
        """The bank that `save` wrote, in the state it was in.

        Raises:
            InputError: no such file, truncated, edited, or of another kind.
        """
        content = read_packed(path, "The file of streams")
        if "streams" not in content:
            raise InputError(f"The file {path} holds no streams; give one that StreamBank.save wrote.")
        bank = cls(content["streams"], content["expected_run_time"])
        for place, name in enumerate(content["streams"]):
            start = f"{place}/"
            own = {key.removeprefix(start): value for key, value in content.items() if key.startswith(start)}
            bank._detectors[name] = OnlineMMD.from_content(own)
        return bank

    def _same_streams(self, given: Mapping[str, Any], what: str) -> None:
        different = sorted(set(given) ^ set(self._detectors))
        if different:
            raise InputError(
                f"The {what} and the streams differ in {', '.join(different)}; give one for each of "
                f"{', '.join(self._detectors)}."
            )
