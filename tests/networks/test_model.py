import json

import pytest
import torch

from cellabel import InputError
from cellabel.networks import CONFIG_NAME, WEIGHTS_NAME, OrganelleModel, UNet, load_model, save_model


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = UNet(base_channels=2, depth=2)
    config = {
        "network": network.config,
        "organelle": "nuclei",
        "target": "continuous",
        "target_scale": 812.5,
        "pixel_size_um": 0.325,
        "intensity_units": "stain",
    }
    return OrganelleModel(network, config).eval()


def test_a_model_comes_back_as_it_was_kept(model, tmp_path):
    save_model(model, tmp_path)
    again = load_model(tmp_path, name="cellabel-nuclei", version="3")
    x = torch.rand(1, 1, 20, 24)
    assert torch.equal(again(x), model(x)) and not again.training
    assert (again.name, again.version, again.organelle) == ("cellabel-nuclei", "3", "nuclei")
    assert again.target_scale == 812.5 and again.pixel_size_um == 0.325 and not again.binary
    assert {k: again.config[k] for k in model.config} == model.config
    assert sorted(p.name for p in tmp_path.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]


def test_a_model_without_a_version_is_known_by_its_weights(model, tmp_path):
    save_model(model, tmp_path)
    first = load_model(tmp_path).version
    with torch.no_grad():
        model.network.head.bias += 1
    save_model(model, tmp_path)
    assert len(first) == 12 and load_model(tmp_path).version != first


def damage_weights(folder):
    path = folder / WEIGHTS_NAME
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def change_config(**changes):
    def change(folder):
        path = folder / CONFIG_NAME
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def truncate_without_digest(folder):
    path = folder / CONFIG_NAME
    config = json.loads(path.read_text())
    del config["weights_sha256"]
    path.write_text(json.dumps(config))
    weights = folder / WEIGHTS_NAME
    weights.write_bytes(weights.read_bytes()[:100])


@pytest.mark.parametrize(
    "harm",
    [
        damage_weights,
        truncate_without_digest,
        lambda folder: (folder / WEIGHTS_NAME).unlink(),
        lambda folder: (folder / CONFIG_NAME).unlink(),
        lambda folder: (folder / CONFIG_NAME).write_text("{"),
        lambda folder: (folder / CONFIG_NAME).write_text("[]"),
        change_config(network={"base_channels": 3, "depth": 2}),
        change_config(network={"width": 3}),
        change_config(target_scale=float("nan")),
        change_config(target_scale=0),
        change_config(pixel_size_um="wide"),
    ],
)
def test_a_damaged_model_is_refused_in_one_sentence(model, tmp_path, harm):
    save_model(model, tmp_path)
    harm(tmp_path)
    with pytest.raises(InputError, match=r"^[^\n]+\.$"):
        load_model(tmp_path)
