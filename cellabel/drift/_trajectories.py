"""Streams without drift, drawn from the reference itself: the law from which thresholds are calibrated.

A trajectory is a sequence of reference rows. At every tick the rows in its window (or the whole groups that
they belong to) are held out of the reference, so each window meets a reference that has not seen it. All sums
over the remaining reference follow from the zero-diagonal kernel matrix K, its row sums and its total: with Y
the rows held out, Σ_{x∉Y} k(x, y_j) = r_j − Σ_{l∈Y} K_jl and Σ_{x,x'∉Y} K = F − 2 Σ_Y r + Σ_{Y,Y} K. A window
costs O(W²), not O(N²).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellabel.drift._kernel import Floats, row_blocks
from cellabel.drift._reference import Reference

__all__ = ["HeldOut"]

Indices = NDArray[Any]


@dataclass(frozen=True)
class HeldOut:
    """Kernel sums of a reference, and trajectories drawn from it.

    Attributes:
        matrix: (N, N) float32 kernel, zero diagonal.
        row_sums: (N,) float64.
        total: sum over the matrix.
        groups: (N,) codes 0..G−1 of groups that are drawn and held out whole, or None: every row for itself.
        to_group: (N, G) float32, Σ_{x∈g} K(x, row); None without groups.
        between: (G, G) sums of the kernel between groups; None without groups.
        group_rows: rows of each group; empty without groups.
    """

    matrix: NDArray[np.float32]
    row_sums: Floats
    total: float
    groups: NDArray[np.int64] | None = None
    to_group: NDArray[np.float32] | None = None
    between: Floats | None = None
    group_rows: tuple[NDArray[np.int64], ...] = ()

    @classmethod
    def of(cls, reference: Reference, groups: NDArray[np.int64] | None = None) -> HeldOut:
        """The kernel sums of `reference`, whose rows belong to `groups` (codes 0..G−1)."""
        n = len(reference.rows)
        matrix = np.empty((n, n), dtype=np.float32)
        row_sums = np.empty(n)
        to_group = None
        if groups is not None:
            membership = np.eye(int(groups.max()) + 1)[groups]
            to_group = np.empty(membership.shape)
        for block in row_blocks(n, n):
            values = reference.kernel(reference.rows[block], reference.rows)
            values[np.arange(len(values)), np.arange(block.start, block.stop)] = 0.0
            matrix[block] = values
            row_sums[block] = values.sum(axis=1)
            if to_group is not None:
                to_group[block] = values @ membership
        total = float(row_sums.sum())
        if groups is None or to_group is None:
            return cls(matrix, row_sums, total)
        between = membership.T @ to_group
        members = tuple(np.flatnonzero(groups == code) for code in range(membership.shape[1]))
        return cls(matrix, row_sums, total, groups, to_group.astype(np.float32), between, members)

    def draw(
        self, rng: np.random.Generator, n: int, length: int, window: int, before: Indices | None = None
    ) -> Indices:
        """Row indices (n, length) of trajectories in which no row (or group) recurs within `window` ticks.

        With `before`, (n, any) indices, the new ticks continue those trajectories (rows only, not groups).
        """
        if self.groups is not None:
            return self._draw_groups(rng, n, length, window)
        n_rows = len(self.row_sums)
        known = 0 if before is None else before.shape[1]
        path = np.empty(
            (known + length, n), dtype=np.int32
        )  # a tick a row, so that ticks compare in one sweep
        if before is not None:
            path[:known] = before.T
        for t in range(known, known + length):
            recent, drawn = path[max(0, t - window + 1) : t], path[t]
            drawn[:] = rng.integers(0, n_rows, n, dtype=np.int32)
            clash = np.flatnonzero(np.logical_or.reduce(recent == drawn, axis=0))
            while clash.size:
                drawn[clash] = rng.integers(0, n_rows, clash.size, dtype=np.int32)
                clash = clash[np.logical_or.reduce(recent[:, clash] == drawn[clash], axis=0)]
        return np.ascontiguousarray(path[known:].T)

    def _draw_groups(self, rng: np.random.Generator, n: int, length: int, window: int) -> Indices:
        """Whole groups one after the other, the rows of each in random order."""
        sizes = np.array([len(rows) for rows in self.group_rows])
        padded = np.full((len(sizes), int(sizes.max())), -1, dtype=np.int32)
        for code, rows in enumerate(self.group_rows):
            padded[code, : len(rows)] = rows
        apart = _groups_in_reach(sizes, window)
        path = np.empty((n, length), dtype=np.int32)
        filled = np.zeros(n, dtype=np.int64)
        drawn: list[NDArray[np.int64]] = []
        while (filled < length).any():
            codes = rng.integers(0, len(sizes), n)
            recent = np.stack(drawn[-apart:], axis=1) if drawn and apart else np.empty((n, 0), dtype=np.int64)
            clash = np.flatnonzero((recent == codes[:, None]).any(axis=1))
            while clash.size:
                codes[clash] = rng.integers(0, len(sizes), clash.size)
                clash = clash[(recent[clash] == codes[clash, None]).any(axis=1)]
            drawn.append(codes)
            keys = rng.random((n, padded.shape[1]), dtype=np.float32)
            keys[padded[codes] < 0] = 2.0
            row = padded[codes[:, None], np.argsort(keys, axis=1)]
            place = filled[:, None] + np.arange(padded.shape[1])
            inside = (row >= 0) & (place < length)
            path[np.nonzero(inside)[0], place[inside]] = row[inside]
            filled += sizes[codes]
        return path

    def statistics(self, path: Indices, windows: Sequence[int]) -> list[NDArray[np.float64]]:
        """MMD² at every tick of `path` (n, T) for each of `windows`; one not yet full uses what there is.

        At the first tick there is no pair, and the statistic is A − 2 m(y).
        """
        if self.groups is None:
            return self._single_statistics(path, windows)
        return self._group_statistics(path, windows)

    def _single_statistics(self, path: Indices, windows: Sequence[int]) -> list[NDArray[np.float64]]:
        length, n_rows = path.shape[1], len(self.row_sums)
        flat = self.matrix.ravel()
        starts = path.astype(np.int64) * n_rows
        running = np.cumsum(self.row_sums[path], axis=1)
        forward = np.zeros(path.shape)  # Σ_{lag < w} K[y_u, y_{u + lag}]
        pairs = np.zeros(path.shape)
        result = {}
        for window in range(1, max(windows) + 1):
            if 1 < window <= length:
                forward[:, : length - window + 1] += flat.take(
                    starts[:, : length - window + 1] + path[:, window - 1 :]
                )
                pairs[:, window - 1 :] += forward[:, : length - window + 1]
            if window in windows:
                m = np.minimum(np.arange(1, length + 1), window)
                sums = running.copy()
                sums[:, window:] -= running[:, :-window]
                left = n_rows - m
                own = (self.total - 2.0 * sums + 2.0 * pairs) / (left * (left - 1.0))
                result[window] = own + _within(pairs, m) - (2.0 / (m * left)) * (sums - 2.0 * pairs)
        return [result[window] for window in windows]

    def _group_statistics(self, path: Indices, windows: Sequence[int]) -> list[NDArray[np.float64]]:
        assert self.groups is not None and self.to_group is not None and self.between is not None
        n_rows, n_groups = self.to_group.shape
        length = path.shape[1]
        codes = self.groups[path]
        opens = np.ones(path.shape)
        opens[:, 1:] = codes[:, 1:] != codes[:, :-1]
        sizes = np.array([len(rows) for rows in self.group_rows], dtype=np.float64)
        group_sums = np.array([self.row_sums[rows].sum() for rows in self.group_rows])
        kernel, to_group, between = self.matrix.ravel(), self.to_group.ravel(), self.between.ravel()
        running = np.cumsum(self.row_sums[path], axis=1)
        pairs, forward = np.zeros(path.shape), np.zeros(path.shape)
        # Sums over the groups in a window: each group counts once, where it opens. The leftmost row always
        # stands for its group, so every sum is kept in two parts: the window without its leftmost row, and
        # that row's share.
        cross, held_cross = np.zeros(path.shape), np.zeros(path.shape)
        held_size, held_sum = np.zeros(path.shape), np.zeros(path.shape)
        of_row, of_group, of_pair = np.zeros(path.shape), np.zeros(path.shape), np.zeros(path.shape)
        result = {}
        for window in range(1, min(max(windows), length) + 1):
            left, right = slice(0, length - window + 1), slice(window - 1, length)
            first, last = codes[:, left], codes[:, right]
            row_first, row_last = path[:, left].astype(np.int64), path[:, right].astype(np.int64)
            of_group[:, left] += to_group.take(row_last * n_groups + first)
            if window > 1:
                forward[:, left] += kernel.take(row_first * n_rows + row_last)
                of_row[:, left] += opens[:, right] * to_group.take(row_first * n_groups + last)
                of_pair[:, left] += opens[:, right] * between.take(first * n_groups + last)
                pairs[:, right] += forward[:, left]
            own_pair = 2.0 * of_pair[:, left] + self.between.diagonal()[first]
            if window in windows:
                result[window] = [
                    _plus(cross, right, of_row[:, left] + of_group[:, left]),
                    _plus(held_cross, right, own_pair),
                    _plus(held_size, right, sizes[first]),
                    _plus(held_sum, right, group_sums[first]),
                    pairs.copy(),
                ]
            cross[:, right] += opens[:, left] * of_group[:, left] + of_row[:, left]
            held_cross[:, right] += opens[:, left] * own_pair
            held_size[:, right] += opens[:, left] * sizes[first]
            held_sum[:, right] += opens[:, left] * group_sums[first]
        return [self._assemble(running, min(window, length), result) for window in windows]

    def _assemble(self, running: Floats, window: int, parts: dict[int, list[Floats]]) -> NDArray[np.float64]:
        cross, held_cross, held_size, held_sum, pairs = parts[window]
        m = np.minimum(np.arange(1, running.shape[1] + 1), window)
        sums = running.copy()
        sums[:, window:] -= running[:, :-window]
        left = len(self.row_sums) - held_size
        own = (self.total - 2.0 * held_sum + held_cross) / (left * (left - 1.0))
        return own + _within(pairs, m) - 2.0 / (m * left) * (sums - cross)


def _plus(base: Floats, where: slice, addition: Floats) -> Floats:
    total = base.copy()
    total[:, where] += addition
    return total


def _within(pairs: Floats, m: NDArray[np.int64]) -> Floats:
    return 2.0 * pairs / np.maximum(m * (m - 1), 1)


def _groups_in_reach(sizes: NDArray[np.int64], window: int) -> int:
    """How many earlier groups a window can still touch when a new group begins."""
    smallest = np.sort(sizes)
    reach = int(np.searchsorted(np.cumsum(smallest), window - 1)) + 1
    return min(reach, len(sizes) - 1, window - 1)
