"""Which corruptions table 5 of the method knows, and how strong each severity is."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from types import MappingProxyType

from cellabel.errors import InputError

__all__ = ["KINDS", "SEVERITIES", "amount_of"]

SEVERITIES: Mapping[str, Mapping[int, float]] = MappingProxyType(
    {
        "defocus": MappingProxyType({0: 0.0, 1: 0.5, 2: 1.0, 3: 1.5, 4: 2.0, 5: 3.0}),
        "contrast": MappingProxyType(
            {-5: 3.5, -4: 3.0, -3: 2.5, -2: 2.0, -1: 1.5, 0: 1.0, 1: 0.9, 2: 0.8, 3: 0.7, 4: 0.5, 5: 0.3}
        ),
        "brightness": MappingProxyType(
            {-5: -150.0, -4: -135.0, -3: -120.0, -2: -90.0, -1: -50.0, 0: 0.0}
            | {1: 50.0, 2: 90.0, 3: 120.0, 4: 135.0, 5: 150.0}
        ),
    }
)
"""kind → severity → radius in px (defocus), gain (contrast), or bias of 255 (brightness)."""

KINDS = tuple(SEVERITIES)
"""The kinds of corruption."""


def amount_of(kind: str, severity: int) -> float:
    """How strong a case of table 5 is: an entry of `SEVERITIES`.

    Raises:
        InputError: no such kind, or a severity that the kind does not have.
    """
    if not isinstance(kind, str) or kind not in SEVERITIES:
        raise InputError(f"No corruption is called {kind!r}; choose one of {', '.join(KINDS)}.")
    known = SEVERITIES[kind]
    if not isinstance(severity, Real) or isinstance(severity, bool) or severity not in known:
        raise InputError(
            f"{kind} has no severity {severity!r}; choose a whole number from {min(known)} to {max(known)}."
        )
    return known[int(severity)]
