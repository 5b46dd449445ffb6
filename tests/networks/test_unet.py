import pytest
import torch
from torch import nn

from cellabel import InputError
from cellabel.networks import (
    ACTIVATIONS,
    AUTOENCODERS,
    INITIALISATIONS,
    UPSAMPLINGS,
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


def test_blocks_of_pixels_quarter_the_work_and_keep_size_and_place():
    network = UNet(base_channels=4, depth=2, block=2)
    assert network.stride == 8 and network.embedding_length == 16
    assert network.encoder[0][0].in_channels == 4 and network.head.out_channels == 4
    x = torch.rand(2, 1, 21, 30, requires_grad=True)
    output, bottleneck = network.eval()(x, return_bottleneck=True)
    assert output.shape == x.shape and bottleneck.shape == (2, 16, 3, 4)
    with torch.no_grad():  # the skip of the first step alone: pixels must come back where they were
        network.head.weight.zero_()
        network.head.bias.copy_(torch.arange(4.0))
    assert torch.equal(network(x)[0, 0, :2, :2], torch.tensor([[0.0, 1.0], [2.0, 3.0]]))


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
@pytest.mark.parametrize(("upsampling", "block"), [("transposed", 1), ("resize", 1), ("transposed", 2)])
def test_the_receptive_field_is_the_reach_that_gradients_have(depth, upsampling, block):
    network = UNet(base_channels=2, depth=depth, norm="none", upsampling=upsampling, block=block)
    pool = nn.AvgPool2d(2)  # lets every pixel of a cell through, as max-pooling may

    size, start = 32 * network.stride, 16 * network.stride
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
@pytest.mark.parametrize(("norm", "upsampling"), [("batch", "transposed"), ("none", "resize")])
def test_every_option_learns_something(activation, initialisation, norm, upsampling):
    torch.manual_seed(1)
    options = {"norm": norm, "initialisation": initialisation, "upsampling": upsampling}
    network = UNet(1, 2, 4, 2, activation=activation, dropout=0.1, **options).train()
    loss = network(torch.randn(2, 1, 16, 16)).square().mean()
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is not None for p in network.parameters())


def test_orthogonal_initialisation_makes_orthogonal_filters():
    weight = UNet(1, 1, 4, 1, initialisation="orthogonal").bottleneck[0].weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)


def test_he_initialisation_keeps_the_variance():
    weight = UNet(1, 1, 64, 1, initialisation="he").bottleneck[0].weight
    assert weight.var().item() == pytest.approx(2 / (64 * 9), rel=0.05)


def test_xavier_initialisation_stands_between_both_directions():
    weight = UNet(1, 1, 64, 1, initialisation="xavier").bottleneck[0].weight
    assert weight.var().item() == pytest.approx(2 / ((64 + 128) * 9), rel=0.05)


def test_normal_initialisation_is_narrow_and_leaves_biases_at_zero():
    network = UNet(1, 1, 16, 1, norm="none", initialisation="normal")
    assert network.bottleneck[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not network.bottleneck[0].bias.any()


def test_resize_convolution_leaves_no_checkerboard():
    constant = torch.ones(1, 8, 6, 6)
    inner = (..., slice(1, -1), slice(1, -1))
    assert UPSAMPLINGS["resize"](8, 4)(constant)[inner].std((-1, -2)).max() < 1e-6
    assert UPSAMPLINGS["transposed"](8, 4)(constant)[inner].std((-1, -2)).max() > 1e-3


@pytest.mark.parametrize(("upsampling", "block"), [("transposed", 1), ("resize", 1), ("transposed", 2)])
def test_an_exported_network_takes_any_size(upsampling, block):
    network = small(depth=2, upsampling=upsampling, block=block)
    auto = torch.export.Dim.AUTO
    sizes = ({0: auto, 2: auto, 3: auto},)
    exported = torch.export.export(network, (torch.rand(2, 1, 37, 30),), dynamic_shapes=sizes).module()
    for shape in [(1, 1, 37, 30), (3, 1, 64, 48), (2, 1, network.stride + 1, 100)]:
        x = torch.rand(shape)
        torch.testing.assert_close(exported(x), network(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_an_exported_autoencoder_takes_any_size(kind):
    network, auto = AUTOENCODERS[kind](4, 2, 8).eval(), torch.export.Dim.AUTO
    sizes = ({0: auto, 2: auto, 3: auto},)
    exported = torch.export.export(network, (torch.rand(2, 1, 37, 30),), dynamic_shapes=sizes).module()
    for shape in [(1, 1, 64, 48), (2, 1, 41, 100)]:
        x = torch.rand(shape)
        torch.testing.assert_close(exported(x), network(x), atol=1e-6, rtol=0)


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
        {"upsampling": "magic"},
        {"depth": 0},
        {"depth": 9},
        {"base_channels": 0},
        {"dropout": 1.0},
        {"in_channels": 0},
        {"block": 0},
        {"depth": "4"},
        {"depth": True},
        {"base_channels": 2.5},
        {"dropout": "x"},
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
@pytest.mark.parametrize("kind", list(AUTOENCODERS))
def test_the_autoencoders_give_back_the_size_and_a_code(kind, size):
    encoder = AUTOENCODERS[kind](4, 3, 8).eval()
    x = torch.rand(2, 1, *size)
    assert encoder(x).shape == x.shape
    assert encoder.encode(x).shape == (2, 8, -(-size[0] // 8), -(-size[1] // 8))
    with pytest.raises(InputError, match="autoencoder"):
        AUTOENCODERS[kind](0)


@pytest.mark.parametrize("kind", list(AUTOENCODERS))
def test_an_encoder_comes_back_as_it_was_kept(kind, tmp_path):
    torch.manual_seed(0)
    encoder = AUTOENCODERS[kind](4, 3, 8).eval()
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    again, x = load_encoder(tmp_path / "encoder.safetensors"), torch.rand(1, 1, 40, 24)
    assert type(again) is type(encoder)
    assert torch.equal(again.encode(x), encoder.encode(x)) and not again.training


def test_what_is_no_encoder_is_refused(tmp_path):
    (tmp_path / "other").write_bytes(b"no tensors")
    for name in ("other", "absent"):
        with pytest.raises(InputError, match="no encoder"):
            load_encoder(tmp_path / name)
