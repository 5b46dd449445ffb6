"""What few reference plates can say of the difference between plates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cellabel.drift._online import OnlineMMD
from cellabel.errors import InputError

__all__ = ["leave_plate_out_margin"]


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
    statistic to threshold is the margin. A plate like the reference then exceeds it with probability 1 / (G +
    1) for G plates, whatever the plates' differences are.

    Args:
        reference: (N, d) rows, in the order of imaging within each plate.
        plates: (N,) the plate of each row.
        expected_run_time: of the detector.
        window_size: of the detector.
        seed: of the detector.

    Returns:
        At least 1; 1 where a plate cannot be left out because too few rows remain.
    """
    rows, names = np.asarray(reference, dtype=float), np.asarray(plates)
    margin = 1.0
    for plate in np.unique(names):
        detector = OnlineMMD(expected_run_time, window_size=window_size, seed=seed)
        try:
            detector.fit(rows[names != plate])
        except InputError:
            return 1.0
        steps = detector.update_many(rows[names == plate])
        margin = max(margin, *(step.statistic / step.threshold for step in steps if step.threshold > 0), 1.0)
    return float(margin)
