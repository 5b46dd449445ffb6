"""What every projection and clustering asks of its rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError


def as_rows(values: ArrayLike, what: str, least: int) -> NDArray[np.float64]:
    """(n, d) float64 rows, finite, at least `least` of them, and not all the same.

    Raises:
        InputError: otherwise.
    """
    rows = np.asarray(values, dtype=float)
    if rows.ndim != 2 or not rows.shape[1]:
        raise InputError(f"The {what} have shape {rows.shape}: give one row of numbers a well, (n, d).")
    if len(rows) < least:
        raise InputError(f"{len(rows)} rows of {what} are too few: give at least {least}.")
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if wrong.size:
        raise InputError(
            f"Row {wrong[0]} of the {what} is not finite, and {wrong.size} rows in all: leave them out."
        )
    if not np.ptp(rows, axis=0).any():
        raise InputError(f"All {len(rows)} rows of the {what} are the same: there is nothing to tell apart.")
    return rows
