"""The drift streams at rest: epochs, and which champion they follow. Neither torch nor mlflow."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from cellabel.drift import HarmModel, OnlineMMD
from cellabel.errors import InputError
from cellabel.stores import ArtefactStore, Home, read_json, replace_bytes

__all__ = [
    "ACQUISITION",
    "ENCODER",
    "ENCODER_VERSION",
    "FROZEN",
    "Epoch",
    "FollowedChampion",
    "encoder_store",
    "encoder_table",
    "epoch_store",
    "followed_champion",
    "instrument_slug",
    "judging_times",
    "open_detector",
    "open_epoch",
    "open_harm",
    "save_epoch",
    "stream_table",
    "watch_index",
]

ACQUISITION = "acquisition"
"""The stream of the images as acquired, before any normalisation: it depends on no model."""

ENCODER = "encoder"
"""The stream of an encoder that was trained once and never again: it depends on no champion."""

ENCODER_VERSION = 1
"""There is one encoder: another would be other eyes, with no memory of the reference."""

FROZEN = (ENCODER, ACQUISITION)
"""The streams that no retraining changes: they run beside the champions' in every epoch."""


class EpochStore(ArtefactStore):
    """Epochs: names are `<instrument>/<stream>`."""

    what = "drift reference"


class EncoderStore(ArtefactStore):
    """The frozen encoder, under the name of its stream."""

    what = "frozen encoder"


@dataclass(frozen=True)
class FollowedChampion:
    """The champion that an organelle's streams follow (0: none yet), and how many turns there were."""

    version: int
    turn: int


@dataclass(frozen=True)
class Epoch:
    """One epoch of a stream.

    Attributes:
        stream: organelle, `encoder` or `acquisition`.
        epoch: its id.
        detector: calibrated on the reference; None where it could not be.
        reason: why it could not be calibrated, or "".
        provisional: whether there are too few reference plates to cover what differs between plates.
        model_version: of the champion; 1 for the encoder, 0 for the acquisition.
        plates: those of the reference; they never tick.
        centre, spread: (d,) of the reference, by which rows are standardised.
        harm: distance → expected loss; None for a frozen stream, or where it could not be calibrated.
        margin: factor on the thresholds for the differences between few plates.
    """

    stream: str
    epoch: str
    detector: OnlineMMD | None
    reason: str
    provisional: bool
    model_version: int
    plates: tuple[str, ...]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    harm: HarmModel | None
    margin: float = 1.0

    def standardise(self, rows: NDArray) -> NDArray[np.float64]:
        """(n, d) rows in reference standard deviations.

        Raises:
            InputError: rows of another length than the reference's.
        """
        rows = np.asarray(rows, dtype=float)
        if rows.ndim != 2 or rows.shape[1] != len(self.centre):
            raise InputError(
                f"Rows of shape {rows.shape} do not fit the reference of {self.epoch} ({len(self.centre)} "
                f"numbers a "
                "well): predict the plate again with the present champion."
            )
        return (rows - self.centre) / self.spread


def instrument_slug(instrument: str) -> str:
    """An instrument's name as a folder name; `unknown` where nobody tells."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", instrument).strip("-._") or "unknown"


def epoch_store(home: Home) -> EpochStore:
    """Where the epochs lie."""
    return EpochStore(str(home.detectors / "streams"))


def encoder_store(home: Home) -> EncoderStore:
    """Where the frozen encoder lies."""
    return EncoderStore(str(home.detectors / "encoders"))


def encoder_table(plate: str) -> tuple[str, ...]:
    """Where a plate's rows by the frozen encoder lie among the tables."""
    return ("embeddings", ENCODER, f"v{ENCODER_VERSION}", plate)


def stream_table(epoch: Epoch, plate: str) -> tuple[str, ...]:
    """Where a plate's rows for an epoch's stream lie among the tables."""
    if epoch.stream == ACQUISITION:
        return (ACQUISITION, plate)
    return ("embeddings", epoch.stream, f"v{epoch.model_version}", plate)


def followed_champion(home: Home, organelle: str) -> FollowedChampion:
    """Which champion the organelle's drift streams follow."""
    content = read_json(home.detectors / "followed" / f"{organelle}.json") or {}
    return FollowedChampion(int(content.get("version", 0)), int(content.get("turn", 0)))


def watch_index(home: Home, slug: str) -> UPath:
    """What is known of an instrument's watch without opening it: epochs, plates, times of judgement."""
    return home.detectors / "watch" / f"{slug}.json"


def judging_times(home: Home, slug: str) -> dict[str, str]:
    """Plate → when it was first judged, of an instrument."""
    return dict((read_json(watch_index(home, slug)) or {}).get("judged", {}))


def save_epoch(home: Home, slug: str, epoch: Epoch) -> None:
    """Make an epoch the current one of its stream; the earlier ones stay."""
    record = {
        "stream": epoch.stream,
        "reason": epoch.reason,
        "provisional": epoch.provisional,
        "model_version": epoch.model_version,
        "plates": list(epoch.plates),
        "detector": _save_detector(home, epoch.detector),
        "harm": _save_harm(home, epoch.harm),
        "margin": epoch.margin,
    }
    with epoch_store(home).write(f"{slug}/{epoch.stream}", epoch.epoch, record) as folder:
        (folder / "scale.npz").write_bytes(_arrays({"centre": epoch.centre, "spread": epoch.spread}))


def open_epoch(home: Home, slug: str, stream: str) -> Epoch | None:
    """The current epoch of a stream, or None where there has been none."""
    record = epoch_store(home).record(f"{slug}/{stream}")
    if record is None:
        return None
    scale = _read_arrays(epoch_store(home).path(f"{slug}/{stream}") / "scale.npz")
    return Epoch(
        stream=stream,
        epoch=str(record["version"]),
        detector=open_detector(home, record["detector"]),
        reason=str(record["reason"]),
        provisional=bool(record["provisional"]),
        model_version=int(record["model_version"]),
        plates=tuple(record["plates"]),
        centre=scale["centre"],
        spread=scale["spread"],
        harm=open_harm(home, record["harm"]),
        margin=float(record["margin"]),
    )


def open_detector(home: Home, fingerprint: str | None) -> OnlineMMD | None:
    """A calibrated detector by its fingerprint, an object of its own each time."""
    if fingerprint is None:
        return None
    return _calibrated(str(home.detectors / "calibrations" / f"{fingerprint}.npz")).twin()


def open_harm(home: Home, fingerprint: str | None) -> HarmModel | None:
    """A harm model by its fingerprint."""
    if fingerprint is None:
        return None
    state = _read_arrays(home.detectors / "harm" / f"{fingerprint}.npz")
    return HarmModel.from_state(
        {name: value if value.ndim else float(value) for name, value in state.items()}
    )


@lru_cache(maxsize=64)
def _calibrated(path: str) -> OnlineMMD:
    """The detector of a file, which never ticks; files are named by what they hold, and stay as they are."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "detector.npz"
        copy.write_bytes(UPath(path).read_bytes())
        return OnlineMMD.load(copy)


def _save_detector(home: Home, detector: OnlineMMD | None) -> str | None:
    if detector is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        detector.save(Path(scratch) / "detector.npz")
        data = (Path(scratch) / "detector.npz").read_bytes()
    replace_bytes(home.detectors / "calibrations" / f"{detector.fingerprint}.npz", data)
    return detector.fingerprint


def _save_harm(home: Home, harm: HarmModel | None) -> str | None:
    if harm is None:
        return None
    replace_bytes(home.detectors / "harm" / f"{harm.fingerprint}.npz", _arrays(harm.state_dict()))
    return harm.fingerprint


def _arrays(content: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in content.items()}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _read_arrays(path: UPath) -> dict[str, NDArray]:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
        return dict(content)
