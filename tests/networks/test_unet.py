import pytest
import torch
from torch import nn

from cellabel import InputError
from cellabel.networks import (
    ACTIVATIONS,
    INITIALISATIONS,
    ConvAutoencoder,
    UNet,
    load_encoder,
    pad_to_grid,
    save_encoder,
)


def small(**changes):
    torch.manual_seed(0)
    return UNet(**({"base_channels": 4, "depth": 3} | changes)).eval()


def reach(network, position, size):
    """Which input rows change the output at (position, position), measured with all-positive weights."""
    for name, parameter in network.named_parameters():
        nn.init.constant_(parameter, 0.1 if name.endswith("weight") else 0.0)
    x = torch.rand(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    network.double()(x)[0, 0, position, position].backward()
    rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
    return position - rows.min().item(), rows.max().item() - position


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (16, 16), (17, 31), (40, 8)])
def test_any_size_comes_out_as_it_went_in(height, width):
    network = small()
    output, bottleneck = network(torch.rand(2, 1, height, width), return_bottleneck=True)
    assert output.shape == (2, 1, height, width)
    assert bottleneck.shape == (2, network.embedding_length, -(-height // 8), -(-width // 8))


def test_the_default_network_is_the_methods():
    network = UNet()
    widths = [block[0].out_channels for block in network.encoder]
    assert widths == [32, 64, 128, 256] and network.embedding_length == 512
    assert all(isinstance(u, nn.ConvTranspose2d) and u.stride == (2, 2) for u in network.upsampling)
    assert network.head.kernel_size == (1, 1)
    assert isinstance(network.bottleneck[1], nn.BatchNorm2d) and isinstance(network.bottleneck[2], nn.ELU)
    assert network(torch.rand(1, 1, 32, 32)).shape == (1, 1, 32, 32)


def test_the_bottleneck_of_the_pass_is_the_encoders():
    network, x = small(), torch.rand(1, 1, 21, 30)
    torch.testing.assert_close(network(x, return_bottleneck=True)[1], network.encode(x))
    torch.testing.assert_close(network(x, return_bottleneck=True)[0], network(x))


def test_padding_repeats_the_edge_below_and_right():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded = pad_to_grid(x, 4)
    assert padded.shape == (1, 1, 4, 4)
    assert torch.equal(padded[0, 0, :2, :3], x[0, 0]) and padded[0, 0, 3, 3] == 5
    assert pad_to_grid(padded, 4) is padded


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_receptive_field_is_the_reach_that_gradients_have(depth):
    network = UNet(base_channels=2, depth=depth, norm="none")
    pool = nn.AvgPool2d(2)  # lets every pixel of a cell through, as max-pooling may

    size, start = 32 * 2**depth, 16 * 2**depth
    original, nn.functional.max_pool2d = nn.functional.max_pool2d, lambda x, _: pool(x)
    try:
        sides = [reach(network, start + p, size) for p in range(network.stride)]
    finally:
        nn.functional.max_pool2d = original
    assert network.receptive_field() == max(max(low, high) for low, high in sides)
    exact = max(max(low - p, high - (network.stride - 1 - p)) for p, (low, high) in enumerate(sides))
    assert exact <= network.halo() < exact + network.stride and network.halo() % network.stride == 0


def test_the_default_networks_halo_is_the_published_one():
    assert UNet(base_channels=1).halo() == 96


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("initialisation", list(INITIALISATIONS))
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_every_option_learns_something(activation, initialisation, norm):
    torch.manual_seed(1)
    network = UNet(
        1, 2, 4, 2, activation=activation, norm=norm, dropout=0.1, initialisation=initialisation
    ).train()
    loss = network(torch.randn(2, 1, 16, 16)).square().mean()
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is not None for p in network.parameters())


def test_orthogonal_initialisation_makes_orthogonal_filters():
    weight = UNet(1, 1, 4, 1, initialisation="orthogonal").bottleneck[0].weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)


def test_he_initialisation_keeps_the_variance():
    weight = UNet(1, 1, 64, 1, initialisation="he").bottleneck[0].weight
    assert weight.var().item() == pytest.approx(2 / (64 * 9), rel=0.05)


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_a_norm_over_the_frame_is_refused_with_the_reason(norm):
    with pytest.raises(InputError, match="tiled"):
        UNet(norm=norm)


@pytest.mark.parametrize(
    "arguments",
    [
        {"norm": "weight"},
        {"activation": "magic"},
        {"initialisation": "magic"},
        {"depth": 0},
        {"depth": 9},
        {"base_channels": 0},
        {"dropout": 1.0},
        {"in_channels": 0},
    ],
)
def test_impossible_networks_are_refused_in_one_sentence(arguments):
    with pytest.raises(InputError, match=r"^[^\n]+\.$"):
        UNet(**arguments)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (1, 2, 8, 8), (1, 1, 0, 8)])
def test_another_shape_is_refused(shape):
    with pytest.raises(InputError, match="takes"):
        small()(torch.zeros(shape))


@pytest.mark.parametrize("size", [(16, 16), (33, 18)])
def test_the_autoencoder_gives_back_the_size_and_a_code(size):
    encoder = ConvAutoencoder(4, 3, 8).eval()
    x = torch.rand(2, 1, *size)
    assert encoder(x).shape == x.shape
    assert encoder.encode(x).shape == (2, 8, -(-size[0] // 8), -(-size[1] // 8))
    with pytest.raises(InputError, match="autoencoder"):
        ConvAutoencoder(0)


def test_an_encoder_comes_back_as_it_was_kept(tmp_path):
    torch.manual_seed(0)
    encoder = ConvAutoencoder(4, 3, 8).eval()
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    again, x = load_encoder(tmp_path / "encoder.safetensors"), torch.rand(1, 1, 40, 24)
    assert torch.equal(again.encode(x), encoder.encode(x)) and not again.training
    (tmp_path / "other").write_bytes(b"no tensors")
    for name in ("other", "absent"):
        with pytest.raises(InputError, match="no encoder"):
            load_encoder(tmp_path / name)
