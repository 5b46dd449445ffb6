"""Thresholds with memoryless false alarms, from the survivors of simulated streams, and their verification.

At each tick of the growing start the threshold is the quantile among the trajectories that have not alarmed
yet. The steady threshold is the one at which the survivors' hazard, alarms per tick lived, is 1/ERT: all
first passages over many ticks count, so its spread is a tenth of that of a single tick's quantile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import comb
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellabel.drift._kernel import Floats
from cellabel.drift._trajectories import HeldOut

__all__ = ["Calibration", "Start", "calibrate", "for_whole_reference", "simulate_runs"]

Start = Literal["growing", "full"]

CHUNK = 120_000
"""Ticks of one block of trajectories; a few MB an array, so that blocks stay in the cache."""

TICK_BUDGET = 40_000_000
"""Kernel values looked up in one calibration, at most: ticks times the longest window."""

GROUP_COST = 4
"""How much dearer a tick is where whole groups are held out."""

LEAST_SURVIVORS = 200
"""Trajectories kept through the growing start, so that run times of a few ticks leave some to go on with."""

TAIL_EVENTS = 100
"""Threshold crossings below which a quantile is extrapolated along an exponential tail."""


@dataclass(frozen=True)
class Calibration:
    """What a statistic is compared with.

    Attributes:
        windows: window sizes, rising.
        thresholds: (W,) by the number m = 1..W of observations in the longest window; the last one is the
            steady one.
        location, scale: (W,) by fill m; several windows are compared as (MMD² − location) / scale, one is not
            touched.
        slope: how fast log run length rises with the steady threshold.
        steady_events: simulated alarms behind the steady threshold; few mean that it was extrapolated.
    """

    windows: tuple[int, ...]
    thresholds: Floats
    location: Floats
    scale: Floats
    steady_events: float
    slope: float = 0.0

    def combine(self, statistics: list[Floats], first_tick: int) -> Floats:
        """What is compared with the threshold, of (n, T) MMD² by window at T ticks from `first_tick`."""
        if len(self.windows) == 1:
            return statistics[0]
        ticks = np.arange(first_tick, first_tick + statistics[0].shape[1])
        combined: Floats | None = None
        for window, values in zip(self.windows, statistics, strict=True):
            fill = np.minimum(ticks, window) - 1
            standard = (values - self.location[fill]) / self.scale[fill]
            combined = standard if combined is None else np.maximum(combined, standard, out=combined)
        assert combined is not None
        return combined


def calibrate(
    held_out: HeldOut,
    windows: tuple[int, ...],
    expected_run_time: float,
    start: Start,
    rng: np.random.Generator,
    *,
    look_ups: int = TICK_BUDGET,
) -> Calibration:
    """Thresholds for `windows` at which the false alarms of `held_out`'s trajectories are memoryless.

    `look_ups` are the kernel values it may cost; the thresholds' spread falls with their root.
    """
    longest = max(windows)
    ticks = max(4 * longest, 40, 3 * _typical_group(held_out))
    growing = int(np.clip(150 * expected_run_time, 20_000, 80_000))
    budget = look_ups // (GROUP_COST if held_out.group_rows else 1)
    n = int(np.clip(budget // ((longest + ticks) * longest), 2_000, growing))
    location, scale = np.zeros(longest), np.ones(longest)
    if len(windows) > 1:
        location, scale = _marginals(held_out, longest, expected_run_time, n, rng)
    calibration = Calibration(windows, np.full(longest, np.inf), location, scale, 0.0)
    values = _simulate(held_out, calibration, n, longest + ticks, rng)
    thresholds = np.full(longest, np.inf)
    for m in range(1, longest):
        if start == "growing":
            thresholds[m - 1] = tail_quantile(
                _distinct(held_out, values[:, m - 1], m), 1.0 / expected_run_time
            )
            alive = values[values[:, m - 1] <= thresholds[m - 1]]
            values = alive if len(alive) >= LEAST_SURVIVORS else values
    full = values[:, longest - 1 :]
    thresholds[-1], events = steady_threshold(full, expected_run_time)
    sooner, later = (steady_threshold(full, factor * expected_run_time)[0] for factor in (0.5, 2.0))
    return Calibration(windows, thresholds, location, scale, events, float(np.log(4.0)) / (later - sooner))


def _distinct(held_out: HeldOut, values: NDArray, m: int) -> NDArray:
    """Each value once, where so few rows have fewer sets of `m` than there are trajectories.

    One in ERT of a few repeated values is their largest or none; of the distinct ones it is extrapolated.
    """
    sizes = [len(rows) for rows in held_out.group_rows]
    if sizes and m > min(sizes):
        return values  # the m rows come from two groups or more, in far more ways
    within = sum(comb(size, m) for size in sizes) if sizes else comb(len(held_out.row_sums), m)
    return np.unique(values) if within < len(values) else values


def _typical_group(held_out: HeldOut) -> int:
    if not held_out.group_rows:
        return 0
    return round(len(held_out.row_sums) / len(held_out.group_rows))


def _marginals(
    held_out: HeldOut, longest: int, expected_run_time: float, n: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Mean, and distance from it to the (1 − 1/ERT) quantile, of MMD² by the window's fill."""
    alone = Calibration((longest,), np.empty(0), np.zeros(longest), np.ones(longest), 0.0)
    values = _simulate(held_out, alone, n, longest, rng)
    location = values.mean(axis=0)
    upper = np.array([tail_quantile(values[:, m], 1.0 / expected_run_time) for m in range(longest)])
    return location, upper - location


def _simulate(
    held_out: HeldOut, calibration: Calibration, n: int, ticks: int, rng: np.random.Generator
) -> NDArray:
    """(n, ticks) combined statistics from fresh starts."""
    values = np.empty((n, ticks), dtype=np.float32)
    step = max(1, CHUNK // ticks)
    for first in range(0, n, step):
        size = min(step, n - first)
        path = held_out.draw(rng, size, ticks, max(calibration.windows))
        statistics = held_out.statistics(path, calibration.windows)
        values[first : first + size] = calibration.combine(statistics, 1)
    return values


def tail_quantile(values: NDArray, upper: float) -> float:
    """The value that a share `upper` exceeds; beyond the data's reach along an exponential tail."""
    expected = upper * len(values)
    if expected >= TAIL_EVENTS / 5:
        return float(np.quantile(values, 1.0 - upper))
    events = min(max(2, min(TAIL_EVENTS, len(values) // 5)), len(values) - 1)
    if events < 1:
        return float(values[0])
    ordered = np.sort(np.partition(values, len(values) - events - 1)[-events - 1 :])
    excess = float((ordered[1:] - ordered[0]).mean())
    return float(ordered[0]) + excess * float(np.log(events / max(expected, 1e-300)))


def steady_threshold(values: NDArray, expected_run_time: float) -> tuple[float, float]:
    """The threshold that rows of `values` (n, ticks) first pass once in `expected_run_time` ticks."""
    reach = values.size / TAIL_EVENTS  # the longest run time with enough first passages
    events = values.size / expected_run_time
    if expected_run_time <= reach:
        return _passage_threshold(values, expected_run_time), events
    near, far = reach / 5.0, reach
    low, high = _passage_threshold(values, near), _passage_threshold(values, far)
    slope = (high - low) / np.log(far / near)
    return high + slope * float(np.log(expected_run_time / far)), events


def _passage_threshold(values: NDArray, run_time: float) -> float:
    """By bisection; trajectories whose highest value lies below all thresholds still possible only count."""
    ticks = values.shape[1]
    highest = values.max(axis=1)
    # A passage lasts some ticks, so more than 1/run_time of all values lie above the threshold; a part of
    # the values is enough to find a place safely below it.
    low = float(np.quantile(values[:: max(1, len(values) // 20_000)], max(0.0, 1.0 - 40.0 / run_time)))
    high = float(highest.max())
    rows, highest = values[highest > low], highest[highest > low]
    for _ in range(40):
        middle = 0.5 * (low + high)
        above = rows > middle
        crossed = highest > middle
        lived = (len(values) - int(crossed.sum())) * ticks + int((above.argmax(axis=1) + 1)[crossed].sum())
        if crossed.sum() * run_time > lived:
            low = middle
            rows, highest = rows[crossed], highest[crossed]
        else:
            high = middle
        if high - low <= 1e-6 * abs(high):
            break
    return 0.5 * (low + high)


def for_whole_reference(calibration: Calibration, held_out: HeldOut) -> Calibration:
    """The calibration for windows that meet the whole reference, as deployed ones do."""
    if len(calibration.windows) > 1:
        return calibration
    ratio = _reference_size_correction(held_out, max(calibration.windows))
    return replace(calibration, thresholds=calibration.thresholds * ratio)


def _reference_size_correction(held_out: HeldOut, longest: int) -> Floats:
    """Ratio of standard deviations: trajectories meet N minus the held-out rows, a deployed window all N.

    The degenerate part of MMD² has variance 2c/(m(m−1)) + 4c/(mN); c cancels. At m = 1 the mean similarity
    varies with the row itself, which dominates, and nothing is corrected.
    """
    n = len(held_out.row_sums)
    m = np.arange(1, longest + 1)
    held = m if not held_out.group_rows else np.maximum(m, _typical_group(held_out))
    pair = 2.0 / np.maximum(m * (m - 1), 1)
    ratio = np.sqrt((pair + 4.0 / (m * n)) / (pair + 4.0 / (m * (n - held))))
    ratio[0] = 1.0
    return ratio


def simulate_runs(
    held_out: HeldOut, calibration: Calibration, n_runs: int, longest_run: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Run lengths of `n_runs` fresh trajectories, and which ended in an alarm within `longest_run` ticks."""
    lengths = np.full(n_runs, longest_run, dtype=np.int64)
    ended = np.zeros(n_runs, dtype=bool)
    if held_out.groups is not None:
        _runs_in_one_piece(held_out, calibration, lengths, ended, rng)
    else:
        _runs_in_blocks(held_out, calibration, lengths, ended, rng)
    return lengths, ended


def _runs_in_one_piece(
    held_out: HeldOut,
    calibration: Calibration,
    lengths: NDArray[np.int64],
    ended: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    longest_run = int(lengths[0])
    step = max(1, CHUNK // longest_run)
    for first in range(0, len(lengths), step):
        part = slice(first, min(first + step, len(lengths)))
        path = held_out.draw(rng, part.stop - first, longest_run, max(calibration.windows))
        above = _alarms(held_out, calibration, path, 1)
        ended[part] = above.any(axis=1)
        lengths[part] = np.where(ended[part], above.argmax(axis=1) + 1, longest_run)


def _runs_in_blocks(
    held_out: HeldOut,
    calibration: Calibration,
    lengths: NDArray[np.int64],
    ended: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    window = max(calibration.windows)
    longest_run = int(lengths[0])
    alive = np.arange(len(lengths))
    done = 0
    before = None
    while alive.size and done < longest_run:
        block = min(max(64, window), longest_run - done)
        path = held_out.draw(rng, alive.size, block, window, before)
        if before is not None:
            path = np.concatenate([before, path], axis=1)
        known = path.shape[1] - block
        above = _alarms(held_out, calibration, path, done - known + 1)[:, known:]
        alarmed = above.any(axis=1)
        lengths[alive[alarmed]] = done + above[alarmed].argmax(axis=1) + 1
        ended[alive[alarmed]] = True
        alive, before = alive[~alarmed], path[~alarmed, -(window - 1) :]
        done += block
    return None


def _alarms(held_out: HeldOut, calibration: Calibration, path: NDArray, first_tick: int) -> NDArray[np.bool_]:
    ticks = np.arange(first_tick, first_tick + path.shape[1])
    limits = calibration.thresholds[np.minimum(ticks, max(calibration.windows)) - 1]
    return calibration.combine(held_out.statistics(path, calibration.windows), first_tick) > limits
