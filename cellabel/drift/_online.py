"""The online detector: is the stream still what the reference was?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.drift._calibration import Calibration, Start
from cellabel.drift._fitting import fitted, group_codes
from cellabel.drift._kernel import Bandwidth, Floats, GaussianKernel, as_rows, choose_bandwidths
from cellabel.drift._ledger import COLUMNS, Entry, Ledger, Step, digest
from cellabel.drift._packing import checksum, read_packed, write_packed
from cellabel.drift._reference import Reference
from cellabel.drift._report import FitReport
from cellabel.drift._settings import identifier_of, plain_model, run_time_of, seed_of, window_sizes
from cellabel.drift._window import STATE, Window
from cellabel.errors import InputError

__all__ = ["OnlineMMD", "Step"]

FORMAT = 2
BLOCK = 512
"""Observations that `update_many` takes in one matrix product."""


class OnlineMMD:
    """Watches a stream of embeddings for a change of distribution, by the maximum mean discrepancy.

    Without drift, P(alarm at t | none before) is 1/`expected_run_time` at every t: false alarms have no
    memory. An alarm does not reset the detector, and later ticks go on telling. Everything random comes from
    `seed`; the global random state is neither read nor changed.

    Args:
        expected_run_time: mean observations between false alarms; `expected_run_time(n, 0.05)` of this
            package gives the one at which 5 % of clean plates of n observations alarm.
        window_size: observations compared with the reference, or several such sizes, calibrated jointly.
        bandwidth: σ of the Gaussian kernel: "median", a number, or numbers (the mean of their kernels).
        start: "growing" compares from the first observation on; "full" is silent until the window is full.
        seed: of the calibration.

    Raises:
        InputError: a setting that has no meaning.

    Source: Gretton et al. 2012 (JMLR 13:723) for MMD; Cobb, Van Looveren & Klaise 2022 (AISTATS) for
        memoryless false alarms by thresholds that depend on time.
    """

    def __init__(
        self,
        expected_run_time: float,
        window_size: int | Sequence[int] = 10,
        bandwidth: Bandwidth = "median",
        start: Start = "growing",
        seed: int = 0,
    ) -> None:
        self.expected_run_time = run_time_of(expected_run_time)
        self.windows = window_sizes(window_size)
        self.bandwidth = (
            bandwidth if isinstance(bandwidth, str) else choose_bandwidths(bandwidth, np.empty((0, 1)))
        )
        if self.bandwidth != "median" and isinstance(self.bandwidth, str):
            choose_bandwidths(self.bandwidth, np.empty((0, 1)))
        if start not in ("growing", "full"):
            raise InputError(f"The start {start!r} is unknown; give 'growing' or 'full'.")
        self.start: Start = start
        self.seed = seed_of(seed)
        self._reference: Reference | None = None
        self._calibration: Calibration | None = None
        self._window: Window | None = None
        self._ledger = Ledger()
        self._report: FitReport | None = None
        self._fingerprint = ""

    def fit(
        self,
        reference: ArrayLike,
        groups: Sequence[Any] | NDArray | None = None,
        model: Mapping[str, Any] | Sequence[Any] | str | None = None,
    ) -> FitReport:
        """Calibrate on `reference` and start afresh; earlier state and ids are forgotten.

        Args:
            reference: (N, d) observations without drift.
            groups: (N,) labels of rows that belong together (tiles of a well, wells of a plate); whole groups
                are drawn, and held out, in calibration. From 19 plates on, let groups be plates.
            model: what made the rows (name, version, engine, precision); it enters the fingerprint.

        Returns:
            The verified run length and what the reference cannot support.

        Raises:
            InputError: see the sentence; the detector stays as it was.
        """
        prepared = Reference.of(reference, self.bandwidth)
        codes = None if groups is None else group_codes(groups, len(prepared.rows))
        described = plain_model(model)
        calibration, report = fitted(
            prepared,
            codes,
            self.windows,
            self.expected_run_time,
            self.start,
            np.random.default_rng(self.seed),
        )
        fingerprint = self._fingerprint_of(prepared, codes, described)
        self._adopt(prepared, calibration, report, fingerprint)
        return report

    def _adopt(
        self, reference: Reference, calibration: Calibration, report: FitReport, fingerprint: str
    ) -> None:
        self._reference, self._calibration, self._report = reference, calibration, report
        self._window = Window(reference, calibration)
        self._ledger = Ledger()
        self._fingerprint = fingerprint

    def _fingerprint_of(self, reference: Reference, codes: NDArray | None, model: Any) -> str:
        content = {
            "format": FORMAT,
            "settings": self.settings,
            "model": model,
            "rows": reference.rows,
            "centre": reference.centre,
            "groups": [] if codes is None else codes.astype(np.int64),
        }
        return checksum(content)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor, JSON-able."""
        bandwidth = self.bandwidth if isinstance(self.bandwidth, str) else [float(b) for b in self.bandwidth]
        return {
            "expected_run_time": self.expected_run_time,
            "window_size": list(self.windows),
            "bandwidth": bandwidth,
            "start": self.start,
            "seed": self.seed,
        }

    @property
    def fingerprint(self) -> str:
        """A digest of reference, groups, settings and model; states pass only between equal fingerprints."""
        self._fitted()
        return self._fingerprint

    @property
    def report(self) -> FitReport:
        """The report of the last fit."""
        self._fitted()
        assert self._report is not None
        return self._report

    @property
    def time(self) -> int:
        """Observations since the start or the last reset."""
        return self._fitted().time

    @property
    def dimensions(self) -> int:
        """Length of an observation."""
        return int(self._fitted().reference.rows.shape[1])

    def twin(self) -> OnlineMMD:
        """A detector of the same calibration that has seen nothing yet; the large arrays are shared."""
        window = self._fitted()
        other = OnlineMMD(**self.settings)
        other._adopt(window.reference, window.calibration, self.report, self._fingerprint)
        return other

    @property
    def history(self) -> int:
        """Observations that are kept, at most; no change time lies farther back."""
        return self._fitted().history

    def checked(self, rows: Any) -> Floats:
        """`rows` as the (n, d) array that `update_many` would take.

        Raises:
            InputError: not fitted, another length, or values that are not finite.
        """
        return as_rows(rows, "block of observations", columns=self.dimensions)

    def _fitted(self) -> Window:
        if self._window is None:
            raise InputError("The detector has no reference yet; call fit, or load a fitted one.")
        return self._window

    def update(self, x: ArrayLike, id: str | None = None) -> Step:
        """Take one observation (d,); an `id` seen before gives its first step again and changes nothing.

        Raises:
            InputError: not fitted, another length, or a value that is not finite; the state stays as it was.
        """
        window = self._fitted()
        row = np.asarray(x)
        if row.ndim != 1:
            raise InputError(
                f"The observation has shape {row.shape}; give one row of length {self.dimensions}."
            )
        rows = as_rows(row[None], "observation", columns=self.dimensions)
        key = None if id is None else digest(identifier_of(id))
        if key is not None:
            known = self._ledger.find(key)
            if known is not None:
                return self._step(*known)
        time, statistic = window.push(rows[0] - window.reference.centre)
        return self._record(time, statistic, window.change_time, key)

    def update_many(self, X: ArrayLike, ids: Sequence[str] | None = None) -> list[Step]:
        """Take observations (n, d) in order, one matrix product a block; equals repeated `update` to 1e-7.

        Raises:
            InputError: as `update`, or another number of ids than rows; nothing is taken then.
        """
        window = self._fitted()
        given = np.asarray(X)
        if given.size == 0 and given.ndim == 2 and len(given) == 0:
            return []
        rows = as_rows(given, "block of observations", columns=self.dimensions)
        keys = self._keys(ids, len(rows))
        fresh = self._fresh(keys)
        centred = (
            rows[fresh] - window.reference.centre
            if len(fresh) < len(rows)
            else rows - window.reference.centre
        )
        steps: list[Step] = []
        for start in range(0, len(centred), BLOCK):
            block = centred[start : start + BLOCK]
            first, statistics = window.push_block(block)
            places = fresh[start : start + len(block)]
            steps.extend(self._record_block(window, first, statistics, [keys[place] for place in places]))
        if keys[0] is None:
            return steps
        taken = dict(zip((int(place) for place in fresh), steps, strict=True))
        return [taken[i] if i in taken else self._known(keys[i]) for i in range(len(rows))]

    def _keys(self, ids: Sequence[str] | None, n: int) -> list[int | None]:
        if ids is None:
            return [None] * n
        if isinstance(ids, str) or len(ids) != n:
            raise InputError(f"There are {len(ids)} ids for {n} observations; give one id an observation.")
        return [digest(identifier_of(one)) for one in ids]

    def _fresh(self, keys: list[int | None]) -> NDArray[np.int64]:
        if not keys or keys[0] is None:
            return np.arange(len(keys))
        seen: set[int] = set()
        fresh = []
        for place, key in enumerate(keys):
            assert key is not None
            if key not in seen and self._ledger.find(key) is None:
                fresh.append(place)
            seen.add(key)
        return np.array(fresh, dtype=np.int64)

    def _known(self, key: int | None) -> Step:
        entry = self._ledger.find(key) if key is not None else None
        assert entry is not None
        return self._step(*entry)

    def _record_block(
        self, window: Window, first: int, statistics: Floats, keys: list[int | None]
    ) -> list[Step]:
        times = range(first, first + len(statistics))
        limits = window.thresholds_at(first, len(statistics))
        alarmed = statistics > limits
        changes = window.change_times(np.flatnonzero(alarmed), len(statistics))
        steps = list(map(Step, times, statistics.tolist(), limits.tolist(), alarmed.tolist(), changes))
        for key, step in zip(keys, steps, strict=True):
            if key is not None:
                self._ledger.add(key, Entry(step.time, step.statistic, step.change_time or 0))
        return steps

    def _record(self, time: int, statistic: float, change_time: Any, key: int | None) -> Step:
        drift = statistic > self._threshold(time)
        change = change_time() if drift else 0
        if key is not None:
            self._ledger.add(key, Entry(time, statistic, change))
        return self._step(time, statistic, change)

    def _threshold(self, time: int) -> float:
        return self._fitted().limits[min(time, self.windows[-1]) - 1]

    def _step(self, time: int, statistic: float, change: int) -> Step:
        threshold = self._threshold(time)
        return Step(time, statistic, threshold, statistic > threshold, change or None)

    def reset(self) -> None:
        """Empty the windows and start again at time 1; ids stay known, so nothing seen ticks again."""
        self._fitted().clear()

    def state_dict(self) -> dict[str, Any]:
        """Everything that updates have changed, as arrays and plain values; resuming from it is bit-exact."""
        window = self._fitted()
        content = {
            "format": FORMAT,
            "fingerprint": self._fingerprint,
            **window.state(),
            **self._ledger.to_arrays(),
        }
        return {**content, "checksum": checksum(content)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`.

        Raises:
            InputError: a state of another detector, or a truncated or edited one; the detector stays as it
                was.
        """
        window = self._fitted()
        if not isinstance(state, Mapping):
            raise InputError("This is no detector state; give what state_dict returned.")
        content = {name: value for name, value in state.items() if name != "checksum"}
        if content.get("format") != FORMAT or "checksum" not in state:
            raise InputError("This is no detector state of this format; give what state_dict returned.")
        if content.get("fingerprint") != self._fingerprint:
            raise InputError(
                "The state belongs to a detector of another reference, setting or model; load it into that."
            )
        expected = {"format", "fingerprint", *STATE, *COLUMNS}
        if set(content) != expected or _checksum_or_none(content) != state["checksum"]:
            raise InputError("The detector state is truncated or was edited; restore it from a copy.")
        window.restore(content)
        self._ledger = Ledger.from_arrays(content)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write calibration and state to one npz file, atomically and without pickle."""
        write_packed(path, self.to_content())

    def to_content(self) -> dict[str, Any]:
        """Calibration and state as arrays and plain values."""
        window = self._fitted()
        calibration, reference = window.calibration, window.reference
        content: dict[str, Any] = {
            "format": FORMAT,
            "settings": self.settings,
            "report": self.report.to_dict(),
            "rows": reference.rows,
            "centre": reference.centre,
            "bandwidths": np.array(reference.kernel.bandwidths),
            "self_similarity": reference.self_similarity,
            "thresholds": calibration.thresholds,
            "location": calibration.location,
            "scale": calibration.scale,
            "steady_events": calibration.steady_events,
        }
        content.update({f"state_{name}": value for name, value in self.state_dict().items()})
        return content

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> OnlineMMD:
        """The detector that `save` wrote, in the state it was in.

        Raises:
            InputError: no such file, truncated, edited, or of another kind.
        """
        return cls.from_content(read_packed(path, "The detector file"))

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> OnlineMMD:
        """The detector that `to_content` described.

        Raises:
            InputError: a description of something else.
        """
        if content.get("format") != FORMAT or "settings" not in content:
            raise InputError("This file holds no detector; give one that OnlineMMD.save wrote.")
        detector = cls(**content["settings"])
        kernel = GaussianKernel(tuple(content["bandwidths"].tolist()))
        reference = Reference.centred(content["rows"], content["centre"], kernel, content["self_similarity"])
        calibration = Calibration(
            detector.windows,
            content["thresholds"],
            content["location"],
            content["scale"],
            content["steady_events"],
        )
        state = {
            name.removeprefix("state_"): value for name, value in content.items() if name.startswith("state_")
        }
        detector._adopt(reference, calibration, FitReport.from_dict(content["report"]), state["fingerprint"])
        detector.load_state_dict(state)
        return detector


def _checksum_or_none(content: Mapping[str, Any]) -> str | None:
    try:
        return checksum(content)
    except (TypeError, ValueError):
        return None
