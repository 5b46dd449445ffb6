"""The arguments of a detector: what has a meaning, and what to say to what has none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from cellabel.errors import InputError

__all__ = ["identifier_of", "plain_model", "run_time_of", "seed_of", "window_sizes"]


def run_time_of(value: Any) -> float:
    """Observations per false alarm, above 1.

    Raises:
        InputError: no number, or not above 1.
    """
    try:
        run_time = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The expected run time {value!r} is no number; give observations per false alarm."
        ) from error
    if not (np.isfinite(run_time) and run_time > 1):
        raise InputError(
            f"The expected run time {value!r} is not above 1; give observations per false alarm."
        )
    return run_time


def window_sizes(value: Any) -> tuple[int, ...]:
    """One or several window sizes, rising, each 2 or more.

    Raises:
        InputError: no whole number, or one below 2.
    """
    sizes = (
        tuple(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else (value,)
    )
    whole = [size for size in sizes if isinstance(size, int | np.integer) and not isinstance(size, bool)]
    if not sizes or len(whole) != len(sizes):
        raise InputError(
            f"The window size {value!r} is no whole number (or several); give 2 or more observations."
        )
    if min(whole) < 2:
        raise InputError(f"The window size {min(whole)} is below 2; give 2 or more observations.")
    return tuple(sorted({int(size) for size in whole}))


def identifier_of(value: Any) -> str:
    """The id of an observation, a text.

    Raises:
        InputError: anything but a text.
    """
    if not isinstance(value, str):
        raise InputError(f"The id {value!r} is no text; give a string such as 'P7/C05'.")
    return value


def plain_model(model: Any) -> Any:
    """The description of a model as JSON gives it back.

    Raises:
        InputError: values that JSON does not know.
    """
    try:
        return json.loads(json.dumps(model, sort_keys=True))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The model description is not plain ({error}); give text, numbers, lists or maps."
        ) from error


def seed_of(value: Any) -> int:
    """A whole number from 0 on.

    Raises:
        InputError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise InputError(f"The seed {value!r} is not a whole number from 0 on; give one.")
    return int(value)
