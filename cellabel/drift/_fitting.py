"""From a reference to a verified calibration, with what it cannot support said in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellabel.drift._calibration import (
    GROUP_COST,
    TICK_BUDGET,
    Calibration,
    Start,
    calibrate,
    for_whole_reference,
    simulate_runs,
)
from cellabel.drift._reference import Reference
from cellabel.drift._report import (
    FitReport,
    RunLength,
    hazard_by_age,
    intraclass_correlation,
    neighbour_correlation,
)
from cellabel.drift._trajectories import HeldOut
from cellabel.drift._uncertainty import log_run_length_spread
from cellabel.errors import InputError

__all__ = ["fitted", "group_codes"]

PLATES_FOR_FIVE_PERCENT = 19
VERIFICATION_TICKS = 1_500_000

ROWS_FOR_FULL_EFFORT, LEAST_EFFORT = 400, 0.2
"""A small reference leaves its detector's run length uncertain by a factor; simulating on helps nothing."""


def group_codes(groups: Sequence[Any] | NDArray, n: int) -> NDArray[np.int64]:
    """Codes 0..G−1 of the labels in `groups`, in the order of first appearance.

    Raises:
        InputError: no sequence of labels, or another number of labels than rows.
    """
    if isinstance(groups, str) or not isinstance(groups, Iterable):
        raise InputError(f"The groups {groups!r} are no labels; give one label a row, such as its plate.")
    labels = [str(label) for label in groups]
    if len(labels) != n:
        raise InputError(
            f"There are {len(labels)} group labels for {n} reference rows; give one label a row."
        )
    order: dict[str, int] = {}
    return np.array([order.setdefault(label, len(order)) for label in labels], dtype=np.int64)


def fitted(
    reference: Reference,
    codes: NDArray[np.int64] | None,
    windows: tuple[int, ...],
    expected_run_time: float,
    start: Start,
    rng: np.random.Generator,
) -> tuple[Calibration, FitReport]:
    """Calibrate, verify on independent runs, and report.

    Raises:
        InputError: fewer rows or groups than a window needs.
    """
    _refuse_too_few(len(reference.rows), codes, windows)
    held_out = HeldOut.of(reference, codes)
    effort = float(np.clip(len(reference.rows) / ROWS_FOR_FULL_EFFORT, LEAST_EFFORT, 1.0))
    calibration = calibrate(
        held_out, windows, expected_run_time, start, rng, look_ups=int(effort * TICK_BUDGET)
    )
    ticks = effort * VERIFICATION_TICKS / (GROUP_COST if held_out.group_rows else 1)
    n_runs, longest_run = _verification_size(expected_run_time, windows[-1], ticks, codes is not None)
    lengths, ended = simulate_runs(held_out, calibration, n_runs, longest_run, rng)
    run_length = _run_length(lengths, ended, log_run_length_spread(held_out, calibration))
    width = max(1, round(expected_run_time / 4))
    n_bins = max(1, min(16, longest_run // width))
    icc = None if codes is None else intraclass_correlation(reference.rows, codes)
    deployed = for_whole_reference(calibration, held_out)
    report = FitReport(
        run_length=run_length,
        hazard=hazard_by_age(lengths, ended, width, n_bins),
        hazard_bin=width,
        icc=icc,
        threshold=float(deployed.thresholds[-1]),
        thresholds=tuple(deployed.thresholds.tolist()),
        n=len(reference.rows),
        dimensions=int(reference.rows.shape[1]),
        n_groups=None if codes is None else int(codes.max()) + 1,
        warnings=tuple(_warnings(reference, codes, windows, expected_run_time, run_length, icc)),
    )
    return deployed, report


def _verification_size(expected_run_time: float, window: int, ticks: float, grouped: bool) -> tuple[int, int]:
    """How many runs, and the tick at which one is cut short; runs of groups are drawn in full length."""
    lifetimes = 3 if grouped else 8
    n_runs = int(np.clip(ticks / (lifetimes if grouped else 1) / expected_run_time, 100, 1000))
    most = (2 if 100 * expected_run_time <= ticks else 1) * ticks / n_runs
    return n_runs, int(min(lifetimes * expected_run_time + 20 * window, most))


def _refuse_too_few(n: int, codes: NDArray[np.int64] | None, windows: tuple[int, ...]) -> None:
    needed = 2 * windows[-1] - 1
    if n < needed:
        raise InputError(
            f"The reference has {n} rows, but a window of {windows[-1]} needs {needed}; "
            "add rows or shorten the window."
        )
    if codes is not None and codes.max() + 1 < needed:
        raise InputError(
            f"The reference has {codes.max() + 1} groups, but a window of {windows[-1]} needs {needed}; "
            "add groups or shorten the window."
        )


def _run_length(lengths: NDArray, ended: NDArray, spread: float) -> RunLength:
    """Mean by alarms per tick lived; runs cut short count as if they went on without memory."""
    alarms = max(int(ended.sum()), 1)
    mean = float(lengths.sum()) / alarms
    square = np.where(
        ended, lengths.astype(float) ** 2, lengths.astype(float) ** 2 + 2 * lengths * mean + 2 * mean**2
    )
    cv = float(np.sqrt(max(square.mean() - mean**2, 0.0)) / mean)
    both = np.sqrt(1.0 / alarms + spread**2)
    low, high = mean * np.exp(-1.96 * both), mean * np.exp(1.96 * both)
    return RunLength(mean, (float(low), float(high)), cv, len(lengths))


def _warnings(
    reference: Reference,
    codes: NDArray | None,
    windows: tuple[int, ...],
    expected_run_time: float,
    run_length: RunLength,
    icc: float | None,
) -> list[str]:
    found = []
    low, high = run_length.ci
    if high > 1.5 * low:
        found.append(
            f"The true run length lies anywhere from {low:.0f} to {high:.0f} observations; "
            "a larger reference narrows this."
        )
    if expected_run_time < 4:
        found.append(
            f"An expected run time of {expected_run_time:g} leaves too few streams without an alarm to "
            "calibrate the later ticks on; give at least 4."
        )
    if codes is None:
        correlation, z = neighbour_correlation(reference.rows)
        if z > 4:
            found.append(
                f"Consecutive reference rows are correlated ({correlation:.2f}) and no groups are given, so "
                "false alarms will come sooner than promised; give the well or plate of each row as groups."
            )
        if len(reference.rows) < expected_run_time:
            found.append(
                f"{len(reference.rows)} rows cannot show an event of one in {expected_run_time:.0f}; "
                "the first ticks rest on an extrapolated tail."
            )
        found.append("No groups were given: differences between plates are not covered by this calibration.")
    elif codes.max() + 1 < PLATES_FOR_FIVE_PERCENT:
        found.append(
            f"{codes.max() + 1} groups bound false alarms per group at no less than "
            f"{1 / (codes.max() + 2):.0%}; verdicts are provisional below {PLATES_FOR_FIVE_PERCENT} plates."
        )
    if icc is not None and icc > 0.02 and codes is not None:
        found.append(
            f"Rows of one group are alike (intra-class correlation {icc:.2f}); "
            "the mean of a group makes a better observation than its rows."
        )
    return found
