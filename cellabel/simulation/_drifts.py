"""Faults of the microscope and changes of the biology, each with a size in its physical unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from cellabel.errors import InputError

__all__ = ["BIOLOGY_KINDS", "DRIFT_KINDS", "Drift", "drift_weights", "read_drifts"]


@dataclass(frozen=True)
class DriftKind:
    """Meaning of a drift's size, and the sizes that make sense."""

    meaning: str
    lower: float
    upper: float


DRIFT_KINDS: Mapping[str, DriftKind] = MappingProxyType(
    {
        "defocus": DriftKind("µm added to the focus", -25.0, 25.0),
        "lamp": DriftKind("fraction added to the lamp's level, −0.3 is 30 % darker", -0.95, 3.0),
        "bias": DriftKind("degrees added to the bias of the prism", -180.0, 180.0),
        "tilt": DriftKind("µm of focus from one end of the plate to the other", -50.0, 50.0),
        "dust": DriftKind("number of spots", 1, 200),
        "medium": DriftKind("refractive index of the medium instead of 1.337", 1.30, 1.40),
        "vibration": DriftKind("µm of amplitude", 0.0, 5.0),
        "condenser": DriftKind("factor on the condenser's aperture", 0.2, 1.5),
        "decentre": DriftKind("condenser off its axis, as a fraction of the objective's aperture", -1.0, 1.0),
        "camera": DriftKind("degrees of turn, 90, 180 or 270", 90, 270),
        "mirror": DriftKind("1: the image is mirrored left to right", 1, 1),
        "density": DriftKind("fraction added to the number of cells", -0.95, 3.0),
        "new_clone": DriftKind("standard deviations between the new clone and the population", 0.0, 6.0),
        "passage": DriftKind("passages added", 1, 60),
        "mass_death": DriftKind("fraction of the cells that are dead", 0.0, 1.0),
        "unfixed": DriftKind("µm a minute that living cells move between channels", 0.0, 2.0),
    }
)

BIOLOGY_KINDS = frozenset({"density", "new_clone", "passage", "mass_death", "unfixed"})
"""The kinds that are no fault of the microscope."""


@dataclass(frozen=True)
class Drift:
    """One drift: its kind, its size in the kind's unit, and where and how it begins."""

    kind: str
    size: float
    onset: str | None = None
    shape: str = "step"


def read_drifts(
    drift: tuple[str, float] | Sequence[tuple[str, float]] | None,
    onset: str | None,
    shape: str,
    wells: Sequence[str],
) -> tuple[Drift, ...]:
    """Check the drift arguments of `simulate_plate`.

    Raises:
        InputError: an unknown kind or shape, a size out of range, or an onset that is no well of the plate.
    """
    if shape not in ("step", "ramp"):
        raise InputError(f"The drift's shape is {shape!r}; choose 'step' or 'ramp'.")
    if drift is None:
        if onset is not None:
            raise InputError(
                f"drift_from is {onset!r} but there is no drift; give drift=(kind, size) as well."
            )
        return ()
    if onset is not None and onset not in wells:
        raise InputError(
            f"drift_from {onset!r} is no well of this plate; choose one from {wells[0]} to {wells[-1]}."
        )
    if isinstance(drift, str) or not isinstance(drift, Sequence):
        raise InputError(f"The drift {drift!r} is not a pair of kind and size, such as ('defocus', 3.0).")
    pairs = [drift] if len(drift) == 2 and isinstance(drift[0], str) else list(drift)
    return tuple(_read_drift(pair, onset, shape) for pair in pairs)


def _read_drift(pair: object, onset: str | None, shape: str) -> Drift:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"The drift {pair!r} is not a pair of kind and size, such as ('defocus', 3.0).")
    kind, size = pair
    if not isinstance(kind, str) or kind not in DRIFT_KINDS:
        raise InputError(f"No drift is called {kind!r}; the kinds are {', '.join(DRIFT_KINDS)}.")
    known = DRIFT_KINDS[kind]
    number = isinstance(size, int | float | np.number) and not isinstance(size, bool)
    if not number or not math.isfinite(size) or not known.lower <= size <= known.upper:
        raise InputError(
            f"The drift {kind!r} has the size {size!r}; give {known.meaning}, "
            f"from {known.lower:g} to {known.upper:g}."
        )
    if kind == "camera" and size % 90:
        raise InputError(f"The camera is turned by {size!r} degrees; choose 90, 180 or 270.")
    return Drift(kind, float(size), onset, shape)


def drift_weights(drift: Drift, wells: Sequence[str]) -> dict[str, float]:
    """Share of the drift's size in each well: 0 before the onset, then 1 (step) or rising to 1 (ramp)."""
    start = 0 if drift.onset is None else list(wells).index(drift.onset)
    n_drifted = len(wells) - start
    return {
        well: 0.0 if i < start else 1.0 if drift.shape == "step" else (i - start + 1) / n_drifted
        for i, well in enumerate(wells)
    }
