import numpy as np
import pandas as pd
import pytest
import torch

from cellabel import InputError
from cellabel.networks import OrganelleModel, UNet
from cellabel.plates import PlateWriter, read_plate
from cellabel.prediction import predict_image, predict_plate
from cellabel.segmentation import segment


def picture(seed, size=64):
    """Dark discs on a bright, noisy ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    image = rng.normal(20_000, 100, (size, size))
    for cy, cx in rng.uniform(8, size - 8, (3, 2)):
        image[(y - cy) ** 2 + (x - cx) ** 2 < 25] += 8000
    return image.astype(np.uint16)


def plate(folder, pixel_size_um=0.65, missing=None, size=64):
    places = [("A01", 1), ("A01", 2), ("B03", 1)]
    path = folder / "P1.zarr"
    with PlateWriter(
        path,
        "P1",
        fields=places,
        channels=["transmitted", "nuclei"],
        pixel_size_um=pixel_size_um,
        attributes={"content_hash": "abc"},
        missing=missing,
    ) as writer:
        for number, place in enumerate(places):
            images = {"transmitted": picture(number, size), "nuclei": picture(number + 9, size)}
            absent = (missing or {}).get(place, {})
            writer.write_field(*place, {role: i for role, i in images.items() if role not in absent})
    return read_plate(path)


def model(target="continuous", organelle="nuclei", pixel_size_um=0.65):
    torch.manual_seed(0)
    network = UNet(base_channels=4, depth=2)
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(4, 1, 32, 32))
    config = {
        "network": network.config,
        "organelle": organelle,
        "target": target,
        "target_scale": 250.0 if target == "continuous" else 1.0,
        "pixel_size_um": pixel_size_um,
        "intensity_units": "stain",
    }
    return OrganelleModel(network, config, name="cellabel-nuclei", version="7").eval()


def test_a_predicted_plate_opens_beside_the_original(tmp_path):
    stained, nuclei, heard = plate(tmp_path), model(), []
    prediction = predict_plate(stained, nuclei, tmp_path / "predicted.zarr", progress=heard.append)
    written = read_plate(prediction.path)
    assert written.channels == ("nuclei",) and written.pixel_size_um == 0.65
    assert written.content_hash == "abc"
    assert written.attributes["predicted"]["model_version"] == "7"
    assert prediction.fields == [("P1", "A01", 1), ("P1", "A01", 2), ("P1", "B03", 1)]
    for field in stained.fields():
        again = written.wells[field.well].fields[field.site]
        expected = predict_image(nuclei, field.image("transmitted")) * np.float32(250)
        np.testing.assert_array_equal(again.image("nuclei"), expected)
        np.testing.assert_array_equal(again.labels("nuclei"), segment(expected, "nuclei"))
    assert heard[1] == "nuclei of plate P1: well A01, site 2 (2 of 3)" and len(heard) == 3


def test_embeddings_have_two_rows_a_field(tmp_path):
    stained, nuclei = plate(tmp_path), model()
    table = predict_plate(stained, nuclei, tmp_path / "predicted.zarr").embeddings
    assert list(table.columns[:5]) == ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "kind", "e000"]
    assert list(table["kind"]) == ["field", "foreground"] * 3
    assert table.shape == (6, 4 + nuclei.network.embedding_length)
    image = stained.wells["B03"].fields[1].image("transmitted")
    alone = predict_image(nuclei, image, return_embeddings=True)
    np.testing.assert_array_equal(table.iloc[4, 4:].to_numpy(np.float32), alone.embedding)
    np.testing.assert_array_equal(table.iloc[5, 4:].to_numpy(np.float32), alone.foreground_embedding)
    assert pd.api.types.is_float_dtype(table["e000"])


def test_tiles_change_nothing(tmp_path):
    stained, nuclei = plate(tmp_path), model()
    whole = predict_plate(stained, nuclei, tmp_path / "whole.zarr")
    tiled = predict_plate(stained, nuclei, tmp_path / "tiled.zarr", tile=16)
    numbers = [c for c in whole.embeddings if c.startswith("e0")]
    np.testing.assert_allclose(tiled.embeddings[numbers], whole.embeddings[numbers], atol=1e-5)
    first, second = (read_plate(p.path).wells["A01"].fields[1].image("nuclei") / 250 for p in (whole, tiled))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_binary_model_writes_probabilities(tmp_path):
    prediction = predict_plate(plate(tmp_path), model("binary", "gfp"), tmp_path / "predicted.zarr")
    stain = read_plate(prediction.path).wells["A01"].fields[1].image("gfp")
    assert 0 <= stain.min() < stain.max() <= 1


@pytest.mark.parametrize(("pixel_size_um", "side"), [(0.325, 32), (0.66, 64), (0.75, 74)])
def test_another_pixel_size_is_resampled_to_the_models(tmp_path, pixel_size_um, side):
    stained, nuclei, seen = plate(tmp_path, pixel_size_um), model(), []
    nuclei.network.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[-1]))
    prediction = predict_plate(stained, nuclei, tmp_path / "predicted.zarr")
    assert seen[0] == -(-side // 4) * 4
    assert read_plate(prediction.path).wells["A01"].fields[1].image("nuclei").shape == (64, 64)


def test_a_field_without_transmitted_light_is_left_out(tmp_path):
    stained = plate(tmp_path, missing={("A01", 2): {"transmitted": "file is missing"}})
    prediction = predict_plate(stained, model(), tmp_path / "predicted.zarr")
    assert prediction.left_out == [("P1", "A01", 2)] and len(prediction.fields) == 2


def test_a_plate_without_transmitted_light_is_refused(tmp_path):
    places = [("A01", 1), ("A01", 2), ("B03", 1)]
    stained = plate(tmp_path, missing={place: {"transmitted": "file is missing"} for place in places})
    with pytest.raises(InputError, match="Plate P1 has no transmitted-light image"):
        predict_plate(stained, model(), tmp_path / "predicted.zarr")
