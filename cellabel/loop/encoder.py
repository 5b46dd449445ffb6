"""The frozen encoder: eyes that owe nothing to a stain, a champion or a retraining.

It is trained once, on the transmitted-light images of the first labelled plates, and never again. A champion
that has learnt to ignore a fault no longer sees it; the encoder goes on seeing it.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.datasets import Dataset, build_dataset
from cellabel.errors import InputError
from cellabel.loop.embeddings import embedding_columns, well_embeddings
from cellabel.loop.held_out import gate_conditions
from cellabel.loop.streams import ENCODER, ENCODER_VERSION, encoder_store, encoder_table
from cellabel.loop.training import plates_for_training
from cellabel.organelles import organelle
from cellabel.plates import Plate, open_plate
from cellabel.stores import Home

if TYPE_CHECKING:
    from cellabel.networks import Autoencoder

__all__ = ["FrozenEncoder", "embed_field", "embed_plate", "encoder_sight", "open_encoder", "train_once"]

WEIGHTS = "encoder.safetensors"
STEPS, CHANNELS, CODE = 150, 8, 16
SIGHT_FIELDS = 8
SCALES = 2
LEAST_SPREAD = 1e-3
POOLING = "texture"


@dataclass(frozen=True)
class FrozenEncoder:
    """The encoder and where it comes from.

    Attributes:
        network: in eval mode.
        version: names its weights by their digest.
        plates: whose images it has learnt from; the reference of its drift stream.
        seconds: that training took.
    """

    network: Autoencoder
    version: str
    plates: tuple[str, ...]
    seconds: float


def open_encoder(home: Home) -> FrozenEncoder | None:
    """The encoder, or None where none has been trained yet.

    Raises:
        InputError: its weights are not those that were frozen.
    """
    from cellabel.networks import load_encoder

    store = encoder_store(home)
    record = store.record(ENCODER)
    if record is None:
        return None
    data = (store.path(ENCODER) / WEIGHTS).read_bytes()
    if _version(data) != record["version"]:
        raise InputError(
            f"The weights of the frozen encoder in {store.root} are not those of {record['version']}: "
            "restore them from a backup, its references are worth nothing without."
        )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / WEIGHTS
        path.write_bytes(data)
        network = load_encoder(path)
    return FrozenEncoder(network, record["version"], tuple(record["plates"]), float(record["seconds"]))


def train_once(home: Home, *, progress: Callable[[str], None] | None = None) -> FrozenEncoder:
    """The encoder; trained on the labelled plates where there is none yet, and kept for ever.

    Raises:
        InputError: no accepted plate is labelled.
    """
    known = open_encoder(home)
    if known is not None:
        return known
    from cellabel.networks import save_encoder
    from cellabel.training import TrainingConfig, train_encoder

    dataset, plates = _labelled(home)
    crop = min(128, *(min(dataset.image(sample).shape) for sample in dataset.train))
    config = TrainingConfig(
        max_steps=STEPS, base_channels=CHANNELS, crop_size=crop, seed=home.settings.models.seed
    )
    began = time.perf_counter()
    network = train_encoder(dataset, config, code_channels=CODE, progress=progress)
    seconds = round(time.perf_counter() - began, 1)
    with tempfile.TemporaryDirectory() as scratch:
        save_encoder(network, Path(scratch) / WEIGHTS)
        data = (Path(scratch) / WEIGHTS).read_bytes()
    record = {"plates": list(plates), "seconds": seconds, "fields": len(dataset.train)}
    with encoder_store(home).write(ENCODER, _version(data), record) as folder:
        (folder / WEIGHTS).write_bytes(data)
    return FrozenEncoder(network, _version(data), plates, seconds)


def embed_plate(home: Home, plate: Plate, encoder: FrozenEncoder) -> pd.DataFrame:
    """One row a well of a plate by the frozen encoder; computed once for each content of the plate."""
    parts = encoder_table(plate.plate_id)
    made_of = f"{encoder.version} {POOLING} {plate.content_hash}"
    if home.tables.has(*parts):
        known = home.tables.read(*parts)
        if set(known["Metadata_MadeOf"]) == {made_of}:
            return known
    rows = [
        {"Metadata_Plate": field.plate_id, "Metadata_Well": field.well}
        | embedding_columns(embed_field(encoder.network, field.image("transmitted")))
        for field in plate.fields()
    ]
    table = well_embeddings(pd.DataFrame(rows)).assign(Metadata_MadeOf=made_of)
    home.tables.write(table, *parts)
    return table


def embed_field(network: Autoencoder, image: NDArray) -> NDArray[np.float32]:
    """Means and log spreads over a raw image (H, W) of what the encoder's finest steps make of it.

    The code itself, averaged, says what cells there are: over wells it varies as much as a defocus of 6.5 µm
    moves it. How strongly the finest filters answer says how the image was taken.
    """
    import torch

    from cellabel.preprocessing import prepare_input

    prepared = torch.from_numpy(prepare_input(image))[None, None]
    with torch.inference_mode():
        maps = [one[0].flatten(1).numpy() for one in network.scales(prepared)[:SCALES]]
    pooled = [part for one in maps for part in (one.mean(axis=1), np.log(one.std(axis=1) + LEAST_SPREAD))]
    return np.concatenate(pooled).astype(np.float32)


def encoder_sight(home: Home) -> pd.DataFrame:
    """How far defocus by the pupil moves the embeddings of the reference: one row a condition.

    Returns:
        condition, and moved: root mean square over the embedding's numbers of the shift of the fields' mean,
        in standard deviations of the fields in focus.

    Raises:
        InputError: no encoder has been frozen, or its plates are gone.
    """
    encoder = open_encoder(home)
    if encoder is None:
        raise InputError("There is no frozen encoder: materialise encoder/frozen_encoder first.")
    plate = open_plate(home.plates, encoder.plates[0])
    images = [field.image("transmitted") for field in plate.fields()][:SIGHT_FIELDS]
    clean = np.stack([embed_field(encoder.network, image) for image in images])
    spread = np.maximum(clean.std(axis=0), 1e-6)
    settings = home.settings.promotion
    rows = []
    for name, defocus in gate_conditions(settings.defocus_um, settings.numerical_aperture, plate).items():
        assert defocus is not None
        blurred = np.stack([embed_field(encoder.network, defocus(image)) for image in images])
        moved = (blurred.mean(axis=0) - clean.mean(axis=0)) / spread
        rows.append({"condition": name, "moved": float(np.sqrt(np.mean(moved**2)))})
    return pd.DataFrame(rows)


def _labelled(home: Home) -> tuple[Dataset, tuple[str, ...]]:
    """The data set of the stain that most plates show: only its transmitted-light images are looked at."""
    names = {one: plates_for_training(home, organelle(one)) for one in home.settings.organelles}
    recipe = max(names, key=lambda one: len(names[one]))
    if not names[recipe]:
        raise InputError(
            "No accepted plate is stained, so there is no reference for a frozen encoder: import one."
        )
    plates: Sequence[Plate] = [open_plate(home.plates, name) for name in names[recipe]]
    settings = home.settings.models
    dataset = build_dataset(plates, organelle(recipe), test_share=settings.test_share, seed=settings.seed)
    return dataset, tuple(names[recipe])


def _version(weights: bytes) -> str:
    return f"v{ENCODER_VERSION}-{hashlib.sha256(weights).hexdigest()[:12]}"
