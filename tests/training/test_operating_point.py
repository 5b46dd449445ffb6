import numpy as np
import pytest
import torch

from cellabel.networks import UNet
from cellabel.training._operating_point import set_operating_point
from cellabel.training._validation import ValidationField


@pytest.fixture
def network():
    torch.manual_seed(0)
    return UNet(base_channels=4, depth=2)


def fields(share, n=3, side=32):
    rng = np.random.default_rng(0)
    targets = (rng.random((n, 1, 1, side, side)) < share).astype(np.float32)
    images = rng.standard_normal(targets.shape).astype(np.float32)
    return [
        ValidationField(None, torch.from_numpy(image), torch.from_numpy(target))
        for image, target in zip(images, targets, strict=True)
    ]


def marked(network, some):
    network.eval()
    with torch.no_grad():
        return float(torch.cat([network(field.image).ravel() > 0 for field in some]).float().mean())


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_as_many_pixels_lie_above_one_half_as_the_stain_marks(network, share):
    some = fields(share)
    set_operating_point(network, some)
    true = float(torch.cat([field.target.ravel() for field in some]).mean())
    assert marked(network, some) == pytest.approx(true, abs=2e-3)


def test_only_the_intercept_moves_and_the_mode_stays(network):
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    shift = set_operating_point(network, fields(0.2))
    assert network.training
    changed = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["head.bias"]
    assert float(before["head.bias"] - network.head.bias) == pytest.approx(shift)


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_stain_that_marks_nothing_or_everything_moves_nothing(network, share):
    assert set_operating_point(network, fields(share)) == 0.0
