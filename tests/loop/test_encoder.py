"""The frozen encoder: trained once, on clean labelled plates, and then nothing but looked through."""

from __future__ import annotations

import pytest

from cellabel.errors import InputError
from cellabel.loop import (
    embed_plate,
    encoder_sight,
    freeze_encoder,
    open_encoder,
    take_in,
)
from cellabel.loop.streams import ACQUISITION, ENCODER, encoder_store, encoder_table, open_epoch
from cellabel.simulation import simulate_plate

FIELD = {"wells": 6, "sites": 1, "size": 128, "preset": "10x", "parental": 0, "reference": 0, "blanks": 0}


@pytest.fixture(scope="module")
def microscope(tmp_path_factory):
    """Four labelled plates, and one that was imaged out of focus."""
    root = tmp_path_factory.mktemp("microscope")
    for seed in range(4):
        name = f"P{seed}"
        options = {"stains": ("nuclei",), "clone_offset": 6 * seed, "instrument": "scope", **FIELD}
        simulate_plate(root / name, plate_id=name, seed=seed, **options)
    simulate_plate(
        root / "D", plate_id="D", seed=9, stains=(), drift=("defocus", 8.0), instrument="scope", **FIELD
    )
    return root


@pytest.fixture(scope="module")
def frozen(microscope, tmp_path_factory):
    """A home whose encoder was frozen on three of the plates."""
    from cellabel.settings import load_settings
    from cellabel.stores import open_home

    drift = {"window": 4, "min_reference_wells": 12}
    home = open_home(
        load_settings(home=tmp_path_factory.mktemp("home"), organelles=("er", "nuclei"), drift=drift)
    )
    for name in ("P0", "P1", "P2"):
        take_in(home, name, microscope / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellabel.loop.encoder.STEPS", 30)
        return home, freeze_encoder(home)


def test_the_encoder_learns_from_the_labelled_plates_and_anchors_the_frozen_streams(frozen):
    home, made = frozen
    assert made.encoder.plates == ("P0", "P1", "P2")
    assert list(zip(made.summary["instrument"], made.summary["stream"], strict=True)) == [
        ("scope", ENCODER),
        ("scope", ACQUISITION),
    ]
    for stream in (ENCODER, ACQUISITION):
        epoch = open_epoch(home, "scope", stream)
        assert epoch.plates == ("P0", "P1", "P2") and epoch.detector is not None and epoch.margin >= 1
    assert open_epoch(home, "scope", ENCODER).model_version == 1


def test_it_is_never_trained_again(frozen, microscope, monkeypatch):
    home, made = frozen
    take_in(home, "P3", microscope / "P3")
    anchor = open_epoch(home, "scope", ENCODER).detector.fingerprint
    monkeypatch.setattr("cellabel.training.train_encoder", lambda *args, **kwargs: 1 / 0)
    again = freeze_encoder(home)
    assert again.encoder.version == made.encoder.version and again.encoder.plates == made.encoder.plates
    assert open_epoch(home, "scope", ENCODER).detector.fingerprint == anchor


def test_a_plate_is_embedded_once_for_each_content(frozen, microscope, monkeypatch):
    home, made = frozen
    taken = take_in(home, "D", microscope / "D")
    table = embed_plate(home, taken.plate, made.encoder)
    assert table["Metadata_Well"].tolist() == sorted(taken.plate.wells)
    with monkeypatch.context() as patch:
        patch.setattr("cellabel.loop.encoder.embed_field", lambda *args: 1 / 0)
        assert embed_plate(home, taken.plate, open_encoder(home)).equals(table)
    home.tables.write(table.assign(Metadata_MadeOf="another content"), *encoder_table("D"))
    assert embed_plate(home, taken.plate, made.encoder).equals(table)


def test_it_sees_defocus_and_more_of_it_better(frozen):
    home, _ = frozen
    sight = encoder_sight(home)
    assert sight["condition"].tolist() == ["defocus 2 µm", "defocus 4 µm"]
    assert sight["moved"].iloc[1] > max(sight["moved"].iloc[0], 1.0)


def test_an_encoder_whose_weights_were_touched_is_refused(frozen):
    home, _ = frozen
    weights = encoder_store(home).path(ENCODER) / "encoder.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + b"?")
    try:
        with pytest.raises(InputError, match="are not those of v1-"):
            open_encoder(home)
    finally:
        weights.write_bytes(before)


def test_without_a_labelled_plate_there_is_no_encoder(make_lab):
    home = make_lab("bare").home
    assert open_encoder(home) is None
    for call in (freeze_encoder, encoder_sight):
        with pytest.raises(InputError):
            call(home)
