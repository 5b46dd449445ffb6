"""Packages of the BioImage Model Zoo: valid, complete, and the same prediction without this software."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import numpy as np
import pytest
import yaml

from cellabel import InputError
from cellabel.registry._bioimageio import standalone_source

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module", params=["continuous", "binary"])
def model(request):
    from cellabel.networks import OrganelleModel, UNet

    torch.manual_seed(0)
    network = UNet(base_channels=4, depth=2)
    config = {
        "network": network.config, "organelle": "nuclei", "target": request.param, "target_scale": 200.0,
        "pixel_size_um": 0.65, "intensity_units": "stain",
    }  # fmt: skip
    return OrganelleModel(network, config).eval()


@pytest.fixture
def package(registry, model, tmp_path):
    from cellabel.networks import save_model

    folder = tmp_path / "network"
    folder.mkdir()
    save_model(model, folder)
    registry.register(folder, "nuclei")
    return registry.export("nuclei", 1, tmp_path / "out" / "nuclei.zip", authors=["Ada"], licence="CC-BY-4.0")


def test_a_package_is_valid_for_the_specification(package):
    spec = pytest.importorskip("bioimageio.spec")
    found = spec.load_description(package, perform_io_checks=True)
    assert isinstance(found, spec.model.ModelDescr), found.validation_summary.format()
    assert found.validation_summary.status in ("passed", "valid-format")
    assert [author.name for author in found.authors] == ["Ada"] and str(found.license) == "CC-BY-4.0"


ALONE = """
import runpy, sys, torch, yaml, numpy as np
assert "cellabel" not in sys.modules
folder = sys.argv[1]
record = yaml.safe_load(open(f"{folder}/rdf.yaml"))
entry = record["weights"]["pytorch_state_dict"]
made = runpy.run_path(f"{folder}/architecture.py")[entry["architecture"]["callable"]]
network = made(**entry["architecture"]["kwargs"]).eval()
network.load_state_dict(torch.load(f"{folder}/weights.pt", weights_only=True))
with torch.inference_mode():
    for name in ("test", "other"):
        image = torch.from_numpy(np.load(f"{folder}/{name}_input.npy"))
        np.save(f"{folder}/{name}_found.npy", network(image).numpy())
assert not [name for name in sys.modules if name.startswith("cellabel")]
"""


def test_a_package_predicts_the_same_on_pytorch_alone(package, model, tmp_path):
    from cellabel.prediction import predict_image

    folder = tmp_path / "alone"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    image = np.random.default_rng(3).gamma(2.0, 300.0, (45, 70)).astype(np.float32)
    np.save(folder / "other_input.npy", image[None, None])
    subprocess.run([sys.executable, "-I", "-c", ALONE, str(folder)], check=True, timeout=300, cwd=folder)
    scale = 1.0 if model.binary else 200.0
    expected = predict_image(model, image) * scale
    np.testing.assert_allclose(np.load(folder / "other_found.npy")[0, 0], expected, atol=2e-5 * scale)
    kept = np.load(folder / "test_output.npy")
    np.testing.assert_allclose(np.load(folder / "test_found.npy"), kept, atol=1e-5 * scale)
    assert kept.shape == np.load(folder / "test_input.npy").shape


def test_a_flat_image_is_a_flat_input(model):
    from cellabel.networks._portable import _prepared

    assert torch.equal(_prepared(torch.zeros(2, 1, 8, 8)), torch.zeros(2, 1, 8, 8))


def test_a_package_says_what_goes_in_and_what_comes_out(package, model):
    with zipfile.ZipFile(package) as archive:
        record = yaml.safe_load(archive.read("rdf.yaml"))
        readme = archive.read("README.md").decode()
    assert record["inputs"][0]["id"] == "transmitted" and record["outputs"][0]["id"] == "nuclei"
    assert record["inputs"][0]["axes"][2]["size"] == {"min": 4, "step": 1}
    assert record["name"] == "cellabel-nuclei version 1" and "# nuclei from transmitted light" in readme


def test_a_package_needs_a_name_that_ends_in_zip(registry, model, tmp_path, package):
    with pytest.raises(InputError, match=r"nuclei.tar is no .zip"):
        registry.export("nuclei", 1, tmp_path / "nuclei.tar")
    with pytest.raises(InputError, match="no version 7"):
        registry.export("nuclei", 7, tmp_path / "nuclei.zip")


def test_source_that_cannot_be_taken_along_is_refused():
    with pytest.raises(InputError, match="cannot be taken along"):
        standalone_source("cellabel.loop.training")
