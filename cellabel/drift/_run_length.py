"""Run lengths: from an accepted share of false alarms to an expected run time, and measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from cellabel.drift._online import OnlineMMD
from cellabel.drift._report import RunLength
from cellabel.errors import InputError

__all__ = ["expected_run_time", "false_alarm_share", "run_length"]

Sampler = Callable[[np.random.Generator, int], ArrayLike]
BLOCK = 256


def expected_run_time(n_units: int, false_alarms: float = 0.05) -> float:
    """The expected run time at which a share `false_alarms` of clean plates of `n_units` observations alarms.

    1 − (1 − 1/ERT)^n solved for ERT: about 19.5 n for 5 %.

    Args:
        n_units: observations a plate (wells), times the streams that share the accepted share.
        false_alarms: accepted share of clean plates, above 0 and below 1.

    Raises:
        InputError: values outside of these ranges.
    """
    if n_units < 1:
        raise InputError(f"A plate of {n_units!r} observations is none; give 1 or more.")
    if not 0 < false_alarms < 1:
        raise InputError(f"The accepted share of false alarms {false_alarms!r} is not between 0 and 1.")
    return float(-1 / np.expm1(np.log1p(-false_alarms) / n_units))


def false_alarm_share(n_units: int, expected_run_time: float) -> float:
    """The share of clean plates of `n_units` observations that alarms at an expected run time."""
    return float(-np.expm1(n_units * np.log1p(-1 / expected_run_time)))


def run_length(
    detector: OnlineMMD, sampler: Sampler, n_runs: int = 100, seed: int = 0, *, longest: int | None = None
) -> RunLength:
    """Measure how long a fitted detector runs until it alarms on what `sampler` gives.

    Args:
        detector: fitted; a twin of it runs, and its own state stays as it is.
        sampler: `(generator, n) → (n, d)` fresh observations, without drift to verify the promise.
        n_runs: independent runs, each from an empty window.
        seed: of the generator that the sampler gets.
        longest: ticks at which a run is given up and counts as unfinished; 50 times the expected run time.

    Returns:
        Mean, its 95 % interval by the scatter of the runs, and coefficient of variation.
    """
    if n_runs < 2:
        raise InputError(f"{n_runs} runs have no scatter; give 2 or more.")
    rng = np.random.default_rng(seed)
    limit = int(50 * detector.expected_run_time) if longest is None else longest
    twin = detector.twin()
    lengths = np.array([_one_run(twin, sampler, rng, limit) for _ in range(n_runs)], dtype=np.float64)
    alarms = max(1, int((lengths <= limit).sum()))
    lived = np.minimum(lengths, limit)
    mean = float(lived.sum() / alarms)
    cv = float(lived.std(ddof=1) / lived.mean())
    spread = 1.96 * max(cv, 1e-9) / np.sqrt(alarms)
    return RunLength(mean, (float(mean * np.exp(-spread)), float(mean * np.exp(spread))), cv, n_runs)


def _one_run(detector: OnlineMMD, sampler: Sampler, rng: np.random.Generator, limit: int) -> int:
    """Ticks until the first alarm; `limit` + 1 where there was none within `limit`."""
    detector.reset()
    while detector.time < limit:
        steps = detector.update_many(sampler(rng, min(BLOCK, limit - detector.time)))
        first = next((step.time for step in steps if step.drift), None)
        if first is not None:
            return first
    return limit + 1
