import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cellabel import InputError
from cellabel.networks import ConvAutoencoder, OrganelleModel, UNet
from cellabel.prediction import Prediction, embed_image, predict_image


def network(depth=2, base=4, seed=0, **arguments):
    """A UNet whose batch statistics are those of some data, so that outputs are neither tiny nor huge."""
    torch.manual_seed(seed)
    made = UNet(base_channels=base, depth=depth, **arguments).train()
    with torch.no_grad():
        for _ in range(10):
            made(torch.randn(4, 1, 64, 64))
    return made.eval()


def picture(height=150, width=203, seed=0):
    return np.random.default_rng(seed).integers(500, 60_000, (height, width)).astype(np.uint16)


def model(target="continuous", **arguments):
    made = network(**arguments)
    config = {"network": made.config, "organelle": "nuclei", "target": target, "target_scale": 500.0}
    return OrganelleModel(made, config | {"pixel_size_um": 0.65, "intensity_units": "stain"})


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("tile", [1, 15, 16, 33, 64, 100, 1000])
def test_every_tile_gives_the_whole_images_prediction(depth, tile):
    unet, image = network(depth), picture(90, 77) if tile < 10 else picture()
    full = predict_image(unet, image, tile=10_000)
    assert full.std() > 0.05
    np.testing.assert_allclose(predict_image(unet, image, tile=tile), full, atol=1e-5, rtol=0)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 120))
@settings(max_examples=25, deadline=None)
def test_no_size_of_image_or_tile_shows_a_seam(height, width, tile):
    unet, image = network(), picture(height, width)
    tiled = predict_image(unet, image, tile=tile, return_embeddings=True)
    full = predict_image(unet, image, return_embeddings=True)
    assert tiled.image.shape == (height, width) and tiled.image.dtype == np.float32
    np.testing.assert_allclose(tiled.image, full.image, atol=1e-5, rtol=0)
    np.testing.assert_allclose(tiled.tile_embeddings, full.tile_embeddings, atol=1e-5, rtol=0)
    np.testing.assert_allclose(tiled.foreground_embedding, full.foreground_embedding, atol=1e-5, rtol=0)


def test_a_thinner_halo_would_show(monkeypatch):
    unet, image = network(), picture()
    full = predict_image(unet, image)
    monkeypatch.setattr(UNet, "halo", lambda self: 4)
    assert np.abs(predict_image(unet, image, tile=32) - full).max() > 1e-3


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("option", [{"upsampling": "resize"}, {"block": 2}])
def test_every_kind_of_network_is_tiled_exactly(depth, option):
    unet, image = network(depth, **option), picture()
    full = predict_image(unet, image, tile=10_000)
    np.testing.assert_allclose(predict_image(unet, image, tile=33), full, atol=1e-5, rtol=0)


def test_the_default_network_is_tiled_exactly():
    unet, image = network(depth=4, base=8), picture(300, 330)
    full = predict_image(unet, image, return_embeddings=True)
    tiled = predict_image(unet, image, tile=100, return_embeddings=True)
    np.testing.assert_allclose(tiled.image, full.image, atol=1e-5, rtol=0)
    np.testing.assert_allclose(tiled.embedding, full.embedding, atol=1e-5, rtol=0)


def test_a_big_image_is_tiled_by_itself(monkeypatch):
    unet, image = network(), picture()
    full = predict_image(unet, image)
    sizes = []
    unet.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[-2:]))
    monkeypatch.setattr("cellabel.prediction._image.FULL_FRAME_BYTES", 1000)
    monkeypatch.setattr("cellabel.prediction._image._DEFAULT_TILE", 64)
    np.testing.assert_allclose(predict_image(unet, image), full, atol=1e-5, rtol=0)
    assert len(sizes) == 12 and max(max(s) for s in sizes) <= 64 + 2 * unet.halo()


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_every_part_is_set_and_restored(training):
    whole = model()
    whole.train(training)
    whole.network.bottleneck.eval()
    modes = [m.training for m in whole.modules()]
    state = {k: v.clone() for k, v in whole.state_dict().items()}
    first = predict_image(whole, picture())
    assert [m.training for m in whole.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in whole.state_dict().items())
    np.testing.assert_array_equal(first, predict_image(whole.eval(), picture()))


def test_the_mode_is_restored_after_an_error():
    class Broken(nn.Module):
        def forward(self, images):
            raise RuntimeError("broken")

    broken = Broken().train()
    with pytest.raises(RuntimeError, match="broken"):
        predict_image(broken, picture())
    assert broken.training


def test_a_binary_model_gives_probabilities():
    logits = predict_image(model().network, picture())
    probability = predict_image(model("binary"), picture())
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logits)), atol=1e-6)
    np.testing.assert_allclose(predict_image(model(), picture()), logits, atol=1e-6)


def test_gain_and_offset_of_the_camera_do_not_change_the_prediction():
    unet, image = network(), picture()
    faint = (image // 2 + 300).astype(np.uint16)
    assert np.abs(predict_image(unet, faint) - predict_image(unet, image)).max() < 0.02


def test_embeddings_average_fixed_cells_of_the_image():
    unet, image = network(), picture(256, 384)
    prediction = predict_image(unet, image, return_embeddings=True)
    assert isinstance(prediction, Prediction)
    assert prediction.tile_embeddings.shape == (6, unet.embedding_length)
    np.testing.assert_allclose(prediction.embedding, prediction.tile_embeddings.mean(0), rtol=1e-5)
    from cellabel.preprocessing import prepare_input

    with torch.inference_mode():
        code = unet.encode(torch.from_numpy(prepare_input(image))[None, None])[0].numpy()
    np.testing.assert_allclose(prediction.tile_embeddings[4], code[:, 32:, 32:64].mean((1, 2)), atol=1e-5)
    np.testing.assert_array_equal(prediction.image, predict_image(unet, image))


def test_the_foreground_embedding_looks_where_the_stain_is():
    unet, image = network(), picture(64, 64)
    with torch.no_grad():
        unet.head.weight.zero_()
        unet.head.bias.fill_(1.0)
    even = predict_image(unet, image, return_embeddings=True)
    np.testing.assert_allclose(even.foreground_embedding, even.embedding, atol=1e-6)
    with torch.no_grad():
        unet.head.bias.fill_(-1.0)
    nothing = predict_image(unet, image, return_embeddings=True)
    np.testing.assert_allclose(nothing.foreground_embedding, nothing.embedding, atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda unet: nn.Conv2d(1, 1, 3, padding=1), nn.Sequential])
def test_a_bare_module_predicts_whole_images_whatever_the_tile(wrap):
    bare = wrap(network())
    whole = predict_image(bare, picture())
    assert whole.shape == (150, 203)
    np.testing.assert_allclose(predict_image(bare, picture(), tile=64), whole, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="bottleneck"):
        predict_image(bare, picture(), return_embeddings=True)


@pytest.mark.parametrize("wrap", [lambda unet: unet, nn.Sequential])
def test_a_network_is_given_images_in_its_own_precision(wrap):
    single = predict_image(network(), picture())
    double = predict_image(wrap(network().double()), picture())
    assert double.dtype == np.float32
    np.testing.assert_allclose(double, single, atol=1e-5, rtol=0)


@pytest.mark.parametrize("made", [nn.Conv2d(1, 1, 3), nn.Flatten(), nn.MaxPool2d(2)])
def test_an_output_of_another_size_is_refused(made):
    with pytest.raises(InputError, match="size of its input"):
        predict_image(made, picture())


@pytest.mark.parametrize("made", [None, "nuclei", lambda image: image])
def test_what_is_no_network_is_refused(made):
    with pytest.raises(InputError, match="is no network"):
        predict_image(made, picture())


@pytest.mark.parametrize(
    ("image", "arguments"),
    [
        (np.full((8, 8), np.nan), {}),
        (np.array([[0.0, np.inf], [1.0, 2.0]]), {}),
        (np.zeros((3, 8, 8)), {}),
        (np.zeros((0, 8)), {}),
        (picture(), {"engine": "abacus"}),
        (picture(), {"tile": 0}),
        (picture(), {"tile": 2.5}),
        (picture(), {"tile": True}),
    ],
)
def test_bad_input_is_told_in_one_sentence(image, arguments):
    with pytest.raises(InputError, match=r"^[^\n]+\.$"):
        predict_image(network(), image, **arguments)


def test_an_autoencoder_embeds_without_predicting():
    torch.manual_seed(0)
    encoder = ConvAutoencoder(4, 3, 8).train()
    embedding = embed_image(encoder, picture())
    assert embedding.shape == (8,) and encoder.training
    np.testing.assert_array_equal(embedding, embed_image(encoder, picture()))
