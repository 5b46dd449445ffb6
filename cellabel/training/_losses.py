"""Losses, each a function of output and target, combined by weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from cellabel.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]

_UNDER_PREDICTION_COSTS = 3.0
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_SOFTNESS = 0.2


def _mse(predicted: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(predicted, target)


def _mae(predicted: Tensor, target: Tensor) -> Tensor:
    return functional.l1_loss(predicted, target)


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, target)


def _pcc(predicted: Tensor, target: Tensor) -> Tensor:
    """1 − Pearson's r of each image, averaged; 1 where either is constant, without a pull."""
    return (1 - _pearson(predicted.flatten(1), target.flatten(1))).mean()


def _batch_pcc(predicted: Tensor, target: Tensor) -> Tensor:
    """1 − Pearson's r over all pixels of the batch, so that differences between images count as well."""
    return 1 - _pearson(predicted.flatten()[None], target.flatten()[None])[0]


def _pearson(predicted: Tensor, target: Tensor) -> Tensor:
    """Pearson's r of each row."""
    p, y = (values - values.mean(1, keepdim=True) for values in (predicted, target))
    # Two roots, not the root of the product: the product of two small sums of squares underflows.
    norms = p.square().sum(1).clamp_min(1e-12).sqrt() * y.square().sum(1).clamp_min(1e-12).sqrt()
    return (p * y).sum(1) / norms


def _asymmetric(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared differences, too low a prediction costing three times as much (sparse stains)."""
    difference = predicted - target
    return (torch.where(difference < 0, _UNDER_PREDICTION_COSTS, 1.0) * difference.square()).mean()


def _gradient(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared differences of the slopes along both axes."""
    difference = predicted - target
    return torch.diff(difference, dim=-1).square().mean() + torch.diff(difference, dim=-2).square().mean()


def _ssim(predicted: Tensor, target: Tensor) -> Tensor:
    """1 − mean structural similarity (Wang et al. 2004): Gaussian window of 11 px, σ 1.5, range 1.

    The target scale makes a bright pixel about 1, so the constants that quiet flat parts fit as they are.
    """
    reach = torch.arange(_SSIM_WINDOW, device=target.device, dtype=target.dtype) - _SSIM_WINDOW // 2
    weights = torch.exp(-reach.square() / (2 * _SSIM_SIGMA**2))
    weights = weights / weights.sum()

    def blurred(images: Tensor) -> Tensor:
        rows = functional.conv2d(images.flatten(0, 1)[:, None], weights.view(1, 1, -1, 1))
        return functional.conv2d(rows, weights.view(1, 1, 1, -1))

    p, y = blurred(predicted), blurred(target)
    p_variance = blurred(predicted.square()) - p.square()
    y_variance = blurred(target.square()) - y.square()
    covariance = blurred(predicted * target) - p * y
    light, contrast = 0.01**2, 0.03**2
    similarity = (2 * p * y + light) * (2 * covariance + contrast)
    return 1 - (similarity / ((p * p + y * y + light) * (p_variance + y_variance + contrast))).mean()


def _spotlight(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared differences on the foreground alone, plus 1 − Dice of the softly thresholded prediction.

    The threshold is Otsu's, of the batch's target. After Spotlight (arXiv 2507.05383): background that the
    microscope saw but the transmitted light cannot show is not fitted; it only has to stay background.
    """
    threshold = _otsu(target)
    mask = (target > threshold).to(target.dtype)
    error = (mask * (predicted - target).square()).sum() / mask.sum().clamp_min(1.0)
    soft = torch.sigmoid((predicted - threshold) / (_SOFTNESS * threshold.abs().clamp_min(0.05)))
    dice = (2 * (soft * mask).sum() + 1) / (soft.sum() + mask.sum() + 1)
    return error + 1 - dice


def _otsu(values: Tensor, bins: int = 128) -> Tensor:
    """Otsu's threshold (1979): the one with the greatest variance between the classes. No gradient."""
    values = values.detach().flatten().float()
    low, high = values.min(), values.max()
    if not low < high:
        return high + 0.5  # a constant target has no foreground; half a bright pixel above it would be some
    counts = torch.histc(values, bins, low.item(), high.item())
    centres = low + (high - low) * (torch.arange(bins, device=values.device) + 0.5) / bins
    below, sums = counts.cumsum(0), (counts * centres).cumsum(0)
    above = below[-1] - below
    means = sums / below.clamp_min(1.0), (sums[-1] - sums) / above.clamp_min(1.0)
    variance = (below * above * (means[0] - means[1]).square())[:-1]
    best = variance >= variance.max() * (1 - 1e-6)  # empty bins between the classes are all as good
    return ((centres[:-1] + centres[1:]) / 2)[best].mean()


LOSSES: dict[str, Loss] = {
    "mse": _mse,
    "mae": _mae,
    "bce": _bce,
    "pcc": _pcc,
    "batch_pcc": _batch_pcc,
    "asymmetric": _asymmetric,
    "gradient": _gradient,
    "ssim": _ssim,
    "spotlight": _spotlight,
}
"""Loss name → function of output and target, (N, 1, H, W) each, to a scalar. "bce" takes logits."""

SCALE_BLIND = frozenset({"pcc", "batch_pcc"})
"""Losses that gain and offset of the prediction do not change: alone they leave intensities arbitrary."""


class CombinedLoss:
    """The weighted sum of some losses; a class, so that it can be sent to another process.

    Args:
        weights: loss name → weight.
        binary: whether the output is logits: all losses but "bce" then see probabilities.
    """

    def __init__(self, weights: Mapping[str, float], *, binary: bool) -> None:
        self.weights = dict(weights)
        self.binary = binary

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of output and target, (N, 1, H, W) each."""
        predicted = torch.sigmoid(output) if self.binary else output
        terms = [
            weight * LOSSES[name](output if name == "bce" else predicted, target)
            for name, weight in self.weights.items()
        ]
        return torch.stack(terms).sum()


def combined_loss(weights: Mapping[str, float], *, binary: bool) -> CombinedLoss:
    """The weighted sum of some losses.

    Args:
        weights: loss name → weight.
        binary: whether the output is logits: all losses but "bce" then see probabilities.

    Raises:
        InputError: an unknown loss, a weight that is not positive, or "bce" without a binary target.
    """
    if not weights:
        raise InputError(f"No loss is given; name at least one of {', '.join(LOSSES)}.")
    for name, weight in weights.items():
        if name not in LOSSES:
            raise InputError(f"No loss is called {name!r}; choose from {', '.join(LOSSES)}.")
        if not 0 < weight < float("inf"):
            raise InputError(f"The loss {name} has the weight {weight!r}; give a positive number.")
    if "bce" in weights and not binary:
        raise InputError("The loss bce needs a binary target; choose mse, mae or pcc for a continuous one.")
    return CombinedLoss(weights, binary=binary)
