from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity

from cellabel import InputError
from cellabel.organelles import ORGANELLES
from cellabel.training import LOSSES, TrainingConfig, combined_loss
from cellabel.training._losses import _otsu
from cellabel.training._schedule import learning_rate


def pair(seed=0):
    torch.manual_seed(seed)
    return torch.randn(2, 1, 8, 9), torch.rand(2, 1, 8, 9)


def test_pcc_is_one_minus_pearsons_r_image_by_image():
    p, y = pair()
    expected = [
        1 - stats.pearsonr(a.flatten().numpy(), b.flatten().numpy()).statistic
        for a, b in zip(p, y, strict=True)
    ]
    assert LOSSES["pcc"](p, y).item() == pytest.approx(np.mean(expected), abs=1e-6)
    gains = torch.tensor([3.0, 0.5]).view(2, 1, 1, 1)
    assert LOSSES["pcc"](gains * y + 7 * gains, y).item() == pytest.approx(0, abs=1e-6)


def test_pcc_over_the_batch_sees_differences_between_images():
    p, y = pair()
    expected = 1 - stats.pearsonr(p.flatten().numpy(), y.flatten().numpy()).statistic
    assert LOSSES["batch_pcc"](p, y).item() == pytest.approx(expected, abs=1e-6)
    assert LOSSES["batch_pcc"](3 * y + 7, y).item() == pytest.approx(0, abs=1e-6)
    assert LOSSES["batch_pcc"](torch.tensor([3.0, 0.5]).view(2, 1, 1, 1) * y, y).item() > 0.1


@pytest.mark.parametrize("constant", [0.0, 5.0])
@pytest.mark.parametrize("name", ["pcc", "batch_pcc"])
def test_pcc_of_a_constant_is_finite_and_so_is_its_gradient(name, constant):
    p = torch.full((1, 1, 8, 8), constant, requires_grad=True)
    loss = LOSSES[name](p, torch.zeros(1, 1, 8, 8))
    loss.backward()
    assert loss.item() == pytest.approx(1) and torch.isfinite(p.grad).all()


def test_the_simple_losses_are_the_textbooks():
    p, y = pair()
    assert LOSSES["mse"](p, y).item() == pytest.approx(((p - y) ** 2).mean().item())
    assert LOSSES["mae"](p, y).item() == pytest.approx((p - y).abs().mean().item())
    q = torch.sigmoid(p)
    expected = -(y * q.log() + (1 - y) * (1 - q).log()).mean().item()
    assert LOSSES["bce"](p, y).item() == pytest.approx(expected, rel=1e-5)


def test_under_prediction_costs_more():
    y = torch.ones(1, 1, 4, 4)
    assert LOSSES["asymmetric"](y - 0.5, y) == 3 * LOSSES["asymmetric"](y + 0.5, y)


def test_the_gradient_loss_sees_slopes_and_not_levels():
    p, y = pair()
    assert LOSSES["gradient"](y + 5, y).item() == pytest.approx(0, abs=1e-10)
    steep = np.diff((p - y).numpy(), axis=-1)
    across = np.diff((p - y).numpy(), axis=-2)
    expected = (steep**2).mean() + (across**2).mean()
    assert LOSSES["gradient"](p, y).item() == pytest.approx(expected, rel=1e-5)


def test_ssim_is_scikit_images():
    torch.manual_seed(2)
    y = torch.rand(2, 1, 24, 30)
    p = (y + 0.3 * torch.randn(y.shape)).requires_grad_()
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [
        structural_similarity(a[0].detach().numpy(), b[0].numpy(), **settings)
        for a, b in zip(p, y, strict=True)
    ]
    loss = LOSSES["ssim"](p, y)
    assert loss.item() == pytest.approx(1 - np.mean(expected), abs=1e-5)
    loss.backward()
    assert torch.isfinite(p.grad).all() and LOSSES["ssim"](y, y).item() == pytest.approx(0, abs=1e-6)


def spots():
    target = torch.full((1, 1, 16, 16), 0.05) + 0.02 * torch.rand(1, 1, 16, 16)
    target[..., 4:8, 4:8] += 1
    return target


def test_spotlight_does_not_fit_the_background():
    y = spots()
    flat = torch.where(y > 0.5, y, 0.0)
    assert LOSSES["spotlight"](flat, y).item() == pytest.approx(LOSSES["spotlight"](y, y).item(), abs=0.05)
    assert LOSSES["mse"](flat, y) > 0.003


def test_spotlight_wants_the_foreground_right_and_nothing_beside_it():
    y = spots()
    best = LOSSES["spotlight"](y, y).item()
    assert best < 0.15
    assert LOSSES["spotlight"](0.5 * y, y).item() > best + 0.2
    invented = y.clone()
    invented[..., 10:14, 10:14] = 1
    assert LOSSES["spotlight"](invented, y).item() > best + 0.2


def test_spotlights_threshold_is_otsus():
    torch.manual_seed(0)
    values = torch.cat([torch.randn(4000) * 0.1, 1 + torch.randn(2000) * 0.3])
    assert _otsu(values).item() == pytest.approx(threshold_otsu(values.numpy(), nbins=128), abs=0.02)
    assert _otsu(spots()).item() == pytest.approx(0.56, abs=0.05)


def test_spotlight_of_an_empty_target_is_finite_and_so_is_its_gradient():
    p = torch.rand(1, 1, 16, 16, requires_grad=True)
    loss = LOSSES["spotlight"](p, torch.zeros(1, 1, 16, 16))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0


def test_losses_are_added_by_weight_and_see_probabilities_where_binary():
    p, y = pair()
    loss = combined_loss({"mse": 2.0, "mae": 0.5}, binary=False)
    assert loss(p, y).item() == pytest.approx(
        2 * LOSSES["mse"](p, y).item() + 0.5 * LOSSES["mae"](p, y).item()
    )
    both = combined_loss({"bce": 1.0, "pcc": 0.5}, binary=True)
    expected = LOSSES["bce"](p, y) + 0.5 * LOSSES["pcc"](torch.sigmoid(p), y)
    assert both(p, y).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("weights", [{}, {"magic": 1.0}, {"mse": 0.0}, {"mse": float("nan")}, {"bce": 1.0}])
def test_impossible_losses_are_refused_in_one_sentence(weights):
    with pytest.raises(InputError, match=r"^[^\n]+\.$"):
        combined_loss(weights, binary=False)


@pytest.mark.parametrize("recipe", ORGANELLES.values(), ids=lambda recipe: recipe.name)
def test_every_recipes_losses_can_be_combined(recipe):
    combined_loss(recipe.losses, binary=recipe.target == "binary")


def test_the_learning_rate_rises_and_falls():
    config = TrainingConfig(learning_rate=1.0, warm_up=0.25)
    rates = [learning_rate(config, share) for share in np.linspace(0, 1, 101)]
    assert rates[0] == pytest.approx(0.04) and rates[25] == pytest.approx(1) and rates[100] < 0.002
    assert all(a < b for a, b in pairwise(rates[:26]))
    assert all(a > b for a, b in pairwise(rates[25:]))
    assert learning_rate(config, 1.5) == rates[100]
    cosine = TrainingConfig(learning_rate=1.0, scheduler="cosine")
    assert learning_rate(cosine, 0) == pytest.approx(1)
    assert learning_rate(TrainingConfig(learning_rate=0.3, scheduler="constant"), 0.7) == 0.3
