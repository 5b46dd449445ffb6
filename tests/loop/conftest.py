"""A laboratory without microscope or network: plates, embeddings and references written into the stores."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellabel.alerts import AlertLedger
from cellabel.drift import OnlineMMD
from cellabel.loop.streams import ACQUISITION, Epoch, save_epoch
from cellabel.loop.watch import tick_drift
from cellabel.settings import load_settings
from cellabel.stores import Home, open_home

WIDTH = 4
WELLS = [f"{row}{column:02d}" for row in "AB" for column in range(1, 5)]
START = datetime(2025, 3, 3, 8, tzinfo=UTC)
DRIFT = 5.0
"""In reference standard deviations: no clean plate comes near it."""

MARGIN = 4.0
REFERENCE = np.random.default_rng(0).normal(size=(24, WIDTH))


@pytest.fixture(scope="session")
def detector() -> OnlineMMD:
    """Calibrated once on little: these tests are about the plates' order, not about the detector."""
    fitted = OnlineMMD(20, window_size=WIDTH, seed=0)
    fitted.fit(REFERENCE)
    return fitted


@dataclass
class Lab:
    """Stores with fake plates; `hour` is when a plate was imaged, `seen` when the inbox saw it."""

    home: Home
    detector: OnlineMMD
    ledger: AlertLedger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = AlertLedger(self.home.alerts)

    def follow(self, stream: str = "nuclei", version: int = 1, turn: int = 1, **changes: object) -> Epoch:
        """A champion's epoch on an instrument; `acquisition` is the anchor of the images as acquired."""
        instrument = str(changes.pop("instrument", "scope"))
        name = f"{stream}-anchor" if stream == ACQUISITION else f"{stream}-v{version}-{turn}"
        values: dict = {
            "detector": self.detector,
            "reason": "",
            "provisional": True,
            "plates": ("R1", "R2"),
            "centre": np.zeros(WIDTH),
            "spread": np.ones(WIDTH),
            "harm": None,
            "margin": MARGIN,
        }
        epoch = Epoch(
            stream=stream,
            epoch=name,
            model_version=0 if stream == ACQUISITION else version,
            **values | changes,
        )
        save_epoch(self.home, instrument, epoch)
        return epoch

    def plate(
        self,
        plate: str,
        hour: float,
        *,
        drift: float | list[float] = 0.0,
        embedded: bool = True,
        **record: object,
    ) -> None:
        """An accepted plate whose images were looked at, and whose nuclei were predicted by version 1."""
        self.home.plates.update_record(
            plate,
            **{
                "status": "accepted",
                "acquired_at": (START + timedelta(hours=hour)).isoformat(),
                "first_seen": (START + timedelta(hours=hour)).isoformat(),
                "instrument": "scope",
                **record,
            },
        )
        self.home.tables.write(self.rows(plate, drift), ACQUISITION, plate)
        if embedded:
            self.embed(plate, drift=drift)

    def embed(
        self,
        plate: str,
        *,
        drift: float | list[float] = 0.0,
        stream: str = "nuclei",
        version: int = 1,
        width: int = WIDTH,
    ) -> None:
        self.home.tables.write(self.rows(plate, drift, width), "embeddings", stream, f"v{version}", plate)

    def rows(self, plate: str, drift: float | list[float] = 0.0, width: int = WIDTH) -> pd.DataFrame:
        """One row a well, the same for the same plate, `drift` added to all wells or well by well."""
        random = np.random.default_rng(zlib.crc32(plate.encode()))
        shift = np.broadcast_to(np.asarray(drift, dtype=float), (len(WELLS),))
        places = random.permutation(len(REFERENCE))[: len(WELLS)]
        values = np.resize(REFERENCE[places], (len(WELLS), width)) + shift[:, None]
        table = pd.DataFrame(values, columns=[f"e{k:03d}" for k in range(width)])
        table.insert(0, "Metadata_Plate", plate)
        table.insert(1, "Metadata_Well", WELLS)
        return table

    def tick(self, hour: float = 100.0) -> dict[str, str]:
        """One tick at this hour; plate → "drift", "no" or "not_calibrated" of each stream, as text."""
        verdicts = tick_drift(self.home, self.ledger, now=START + timedelta(hours=hour))
        return {
            one.plate: " ".join(f"{name}={said.status}" for name, said in sorted(one.streams.items()))
            for one in verdicts
        }

    def snapshot(self) -> dict[str, object]:
        """Everything that ticks leave behind; the time at which an alert was written aside."""
        return snapshot(self.home)


def snapshot(home: Home) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(Path(home.detectors).rglob("*")):
        if path.is_file() and not path.name.endswith(".part"):
            found[str(path.relative_to(home.detectors))] = path.read_bytes()
    for path in sorted(Path(home.alerts).rglob("*.json")):
        found[f"alerts/{path.name}"] = json.loads(path.read_text()) | {"created_at": ""}
    return found


@pytest.fixture
def make_lab(tmp_path, detector):
    def make(name: str = "home", **settings: object) -> Lab:
        drift = {"late_after_seconds": 3600.0, "window": WIDTH}
        values = {"organelles": ("nuclei", "er"), "drift": drift, **settings}
        return Lab(open_home(load_settings(home=tmp_path / name, **values)), detector)

    return make


@pytest.fixture
def lab(make_lab) -> Lab:
    """One instrument, `scope`, with streams of nuclei and of the images as acquired."""
    made = make_lab()
    made.follow()
    made.follow(ACQUISITION)
    return made
