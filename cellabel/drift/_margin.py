"""What few reference plates can say of the difference between plates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cellabel.drift._calibration import TICK_BUDGET, calibrate, for_whole_reference
from cellabel.drift._kernel import Floats, as_rows
from cellabel.drift._reference import Reference
from cellabel.drift._trajectories import HeldOut
from cellabel.drift._window import Window
from cellabel.errors import InputError

__all__ = ["leave_plate_out_margin"]

LOOK_UPS = TICK_BUDGET // 4
"""Effort of one left-out plate: its thresholds may be off by 1 or 2 %, where plates differ by tens."""


def leave_plate_out_margin(
    reference: ArrayLike,
    plates: Sequence[Any],
    *,
    expected_run_time: float,
    window_size: int = 10,
    seed: int = 0,
) -> float:
    """The factor on the thresholds at which no reference plate would have alarmed against the others.

    Fewer than 19 plates cannot be drawn as groups, and a calibration on pooled wells alarms on most clean
    plates as soon as plates differ. Each plate is therefore streamed against the rest; the largest ratio of
    statistic to threshold is the margin (below zero, where the first thresholds lie, the excess counts
    alike). A plate like the reference then exceeds it with probability 1 / (G + 1) for G plates, whatever the
    plates' differences are.

    Args:
        reference: (N, d) rows, in the order of imaging within each plate.
        plates: (N,) the plate of each row.
        expected_run_time: of the detector.
        window_size: of the detector.
        seed: of the detector.

    Returns:
        At least 1; 1 where a plate cannot be left out because too few rows remain.
    """
    rows, names = as_rows(reference, "reference"), np.asarray(plates)
    margin = 1.0
    for plate in np.unique(names):
        out = names == plate
        if rows[~out].shape[0] < 2 * window_size - 1:
            return 1.0
        excess = _largest_excess(rows[~out], rows[out], expected_run_time, window_size, seed)
        margin = max(margin, 1.0 + excess)
    return margin


def _largest_excess(
    rest: Floats, plate: Floats, expected_run_time: float, window_size: int, seed: int
) -> float:
    """By how much of itself the statistic passes its threshold at most, `plate` streamed against `rest`."""
    try:
        reference = Reference.of(rest, "median")
    except InputError:
        return 0.0
    held_out = HeldOut.of(reference)
    rng = np.random.default_rng(seed)
    calibration = calibrate(held_out, (window_size,), expected_run_time, "growing", rng, look_ups=LOOK_UPS)
    window = Window(reference, for_whole_reference(calibration, held_out))
    first, statistics = window.push_block(plate - reference.centre)
    limits = window.thresholds_at(first, len(plate))
    return float(((statistics - limits) / np.abs(limits)).max())
