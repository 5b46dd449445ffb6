"""The last observations of a stream and the exact MMD² of each window over them.

Every tick sums the window's kernel values again from the buffers. Nothing is carried over by adding and
subtracting, so rounding cannot drift, and a state restored from its arrays goes on bit by bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cellabel.drift._calibration import Calibration
from cellabel.drift._kernel import Floats
from cellabel.drift._reference import Reference

__all__ = ["Window"]


STATE = ("time", "rows", "means", "lags")
"""Names of the parts of a window's state."""


class Window:
    """Buffers of the last observations, newest first.

    `lags[i, l]` is the kernel between the observation i ticks ago and the one l + 1 ticks before that;
    `means[i]` is the similarity m(y) of the observation i ticks ago with the reference; `rows` keeps the
    observations themselves.
    """

    def __init__(self, reference: Reference, calibration: Calibration) -> None:
        self.reference = reference
        self.calibration = calibration
        self.limits = calibration.thresholds.tolist()
        self._longest = longest = max(calibration.windows)
        self.history = max(3 * longest, 32)
        ages, lags = np.arange(longest)[:, None], np.arange(1, longest)[None, :]
        masks = [(ages + lags < window).ravel() for window in calibration.windows]
        self._pair_masks = np.array(masks, dtype=np.float64)
        self._mean_masks = np.array(
            [np.arange(longest) < window for window in calibration.windows], dtype=np.float64
        )
        self._tabulate()
        self.clear()

    def _tabulate(self) -> None:
        """Per tick 1..W (the last for all later ones): the factors of the sums in the statistic."""
        ticks = np.arange(1, self._longest + 1)
        fill = np.minimum(ticks[:, None], np.array(self.calibration.windows))
        several = len(self.calibration.windows) > 1
        scale = self.calibration.scale[fill - 1] if several else np.ones(fill.shape)
        location = self.calibration.location[fill - 1] if several else np.zeros(fill.shape)
        self._of_pairs = 2.0 / np.maximum(fill * (fill - 1), 1) / scale
        self._of_means = -2.0 / fill / scale
        self._constant = (self.reference.self_similarity - location) / scale

    def clear(self) -> None:
        """Forget all observations."""
        self.time = 0
        self._lags = np.zeros((self._longest, self._longest - 1))
        self._means = np.zeros(self.history)
        self._rows = np.zeros((self.history, self.reference.rows.shape[1]))

    def state(self) -> dict[str, Any]:
        """The buffers, only as far as they are filled."""
        kept = min(self.time, self.history)
        return {
            "time": self.time,
            "rows": self._rows[self._places(kept)],
            "means": self._means[:kept].copy(),
            "lags": self._lags[: min(self.time, self._longest)].copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.clear()
        self.time = int(state["time"])
        kept = len(state["rows"])
        self._rows[self._places(kept)] = state["rows"]
        self._means[:kept] = state["means"]
        self._lags[: len(state["lags"])] = state["lags"]

    def _places(self, count: int) -> Any:
        """Where in the ring the last `count` observations lie, newest first."""
        return (self.time - 1 - np.arange(count)) % self.history

    def push(self, row: Floats) -> tuple[int, float]:
        """Take one centred observation; its time and statistic."""
        similarity = self.reference.similarity(row)
        before = self._rows[self._places(min(self.time, self._longest - 1))]
        before -= row
        lags = self.reference.kernel.of_half_distances(np.einsum("ij,ij->i", before, before) * -0.5)
        self._lags[1:] = self._lags[:-1]
        self._lags[0] = 0.0
        self._lags[0, : len(lags)] = lags
        self._means[1:] = self._means[:-1]
        self._means[0] = similarity
        self._rows[self.time % self.history] = row
        self.time += 1
        pairs = self._pair_masks @ self._lags.ravel()
        means = self._mean_masks @ self._means[: self._longest]
        at = min(self.time, self._longest) - 1
        values = self._of_pairs[at] * pairs + self._of_means[at] * means + self._constant[at]
        return self.time, float(values.max())

    def push_block(self, rows: Floats) -> tuple[int, Floats]:
        """Take centred observations (n, d); the time of the first, and all statistics."""
        n, width, first = len(rows), self._longest, self.time + 1
        known = min(self.time, self.history)
        self._seen = np.concatenate([self._rows[self._places(known)][::-1], rows])
        self._seen_means = np.concatenate([self._means[:known][::-1], self.reference.similarities(rows)])
        lags = np.zeros((width - 1 + n, width - 1))
        lags[: width - 1] = self._lags[: width - 1][::-1]
        for lag in range(1, min(width, known + n)):
            earlier = max(0, lag - known)  # rows without a predecessor so far back
            newer = self._seen[known + earlier :]
            older = self._seen[known + earlier - lag : len(self._seen) - lag]
            lags[width - 1 + earlier :, lag - 1] = self.reference.kernel.paired(newer, older)
        padded = np.concatenate([np.zeros(max(0, width - known)), self._seen_means])[-(width - 1 + n) :]
        spans = np.lib.stride_tricks.sliding_window_view(lags, width, axis=0)[:, :, ::-1]
        pairs = np.einsum("tla,kal->tk", spans, self._pair_masks.reshape(-1, width, width - 1))
        sums = np.lib.stride_tricks.sliding_window_view(padded, width)[:, ::-1] @ self._mean_masks.T
        at = np.minimum(np.arange(first, first + n), width) - 1
        values = (self._of_pairs[at] * pairs + self._of_means[at] * sums + self._constant[at]).max(axis=1)
        self._keep(n, lags)
        return first, values

    def _keep(self, n: int, lags: Floats) -> None:
        self.time += n
        kept = min(self.time, self.history)
        self._rows[self._places(kept)] = self._seen[::-1][:kept]
        self._means[:kept] = self._seen_means[::-1][:kept]
        recent = lags[::-1][: self._longest]
        self._lags[: len(recent)] = recent

    def thresholds_at(self, first: int, n: int) -> Floats:
        """Thresholds of the ticks `first` to `first + n − 1`."""
        return self.calibration.thresholds[np.minimum(np.arange(first, first + n), self._longest) - 1]

    def change_time(self) -> int:
        """Time c + 1 of the first changed observation; c maximises (T − c) · MMD²(reference, y_{c+1..T})."""
        kept = min(self.time, self.history)
        return self._change(self._rows[self._places(kept)], self._means[:kept], self.time)

    def change_times(self, alarms: Any, n: int) -> list[int | None]:
        """Change times at places `alarms` of the block of `n` just pushed; None elsewhere."""
        times: list[int | None] = [None] * n
        before = len(self._seen) - n
        for alarm in alarms.tolist():
            end = before + alarm + 1
            start = max(0, end - self.history)
            rows, means = self._seen[start:end][::-1], self._seen_means[start:end][::-1]
            times[alarm] = self._change(rows, means, self.time - n + alarm + 1)
        return times

    def _change(self, rows: Floats, means: Floats, time: int) -> int:
        """As `change_time`, of rows newest first up to `time`; where there is no pair, A stands in for it."""
        lengths = np.arange(1, len(rows) + 1)
        within = self.reference.kernel(rows, rows)
        pairs = np.cumsum(np.tril(within, -1).sum(axis=1))
        own = self.reference.self_similarity
        pair_means = np.full(len(rows), own)
        pair_means[1:] = 2.0 * pairs[1:] / (lengths[1:] * (lengths[1:] - 1.0))
        scores = lengths * (own + pair_means - 2.0 * np.cumsum(means) / lengths)
        return int(time - np.argmax(scores))
