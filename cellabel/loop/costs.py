"""What a training costs: time, device, energy where the platform tells it, and money by a price table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cellabel.settings import MachinePrice

__all__ = ["Meter", "priced"]

RAPL = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of Intel and AMD processors, one folder a package."""


class Meter:
    """Measures what happens inside a `with`: seconds, and joules where processor or graphics card count them.

    Attributes:
        seconds: wall time.
        joules: of the whole machine's processor packages and graphics card, whoever used them; None where
            nothing counts it or may be read.
    """

    def __init__(self, rapl: Path = RAPL) -> None:
        self._rapl = rapl
        self.seconds = 0.0
        self.joules: float | None = None

    def __enter__(self) -> Self:
        self._before, self._began = self._counters(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = round(time.perf_counter() - self._began, 1)
        after = self._counters()
        spent = [after[name] - start for name, start in self._before.items() if name in after]
        rounds = [_number(self._rapl / name / "max_energy_range_uj") or 0.0 for name in self._before]
        whole = [one + (span if one < 0 else 0.0) for one, span in zip(spent, rounds, strict=False)]
        self.joules = round(sum(whole), 1) if whole else None

    def _counters(self) -> dict[str, float]:
        """Counter → joules so far; empty where nothing counts."""
        folders = sorted(self._rapl.glob("intel-rapl:?"))
        found = {folder.name: _number(folder / "energy_uj") for folder in folders}
        found["graphics card"] = _graphics_card_joules()
        return {name: joules for name, joules in found.items() if joules is not None}


def priced(
    seconds: float, joules: float | None, device: str, prices: Mapping[str, MachinePrice], currency: str
) -> dict[str, Any]:
    """The cost of a training as a record: seconds, device, energy, and money on each machine of the table."""
    return {
        "seconds": seconds,
        "device": device,
        "energy_kwh": None if joules is None else round(joules / 3.6e6, 6),
        "currency": currency,
        "money": {
            name: round(seconds / price.speed / 3600 * price.per_hour, 6) for name, price in prices.items()
        },
    }


def training_device() -> str:
    """The device that trainings run on here."""
    import torch

    from cellabel.registry import environment

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{environment()['processor']}, {torch.get_num_threads()} threads"


def _number(file: Path) -> float | None:
    """A counter in microjoules, as joules; None where it is not there or may not be read."""
    try:
        return int(file.read_text()) / 1e6
    except (OSError, ValueError):
        return None


def _graphics_card_joules() -> float | None:
    """The card's own energy counter, where NVIDIA's library is installed and a card is there."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0))) / 1000
    except pynvml.NVMLError:
        return None
