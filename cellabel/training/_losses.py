"""Losses, each a function of output and target, combined by weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from cellabel.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]

_UNDER_PREDICTION_COSTS = 3.0


def _mse(predicted: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(predicted, target)


def _mae(predicted: Tensor, target: Tensor) -> Tensor:
    return functional.l1_loss(predicted, target)


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, target)


def _pcc(predicted: Tensor, target: Tensor) -> Tensor:
    """1 − Pearson's r over all pixels of the batch; 1 where either is constant."""
    p, y = predicted.flatten() - predicted.mean(), target.flatten() - target.mean()
    # Two roots, not the root of the product: the product of two small sums of squares underflows.
    norms = p.square().sum().clamp_min(1e-12).sqrt() * y.square().sum().clamp_min(1e-12).sqrt()
    return 1 - (p * y).sum() / norms


def _asymmetric(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared differences, too low a prediction costing three times as much (sparse stains)."""
    difference = predicted - target
    return (torch.where(difference < 0, _UNDER_PREDICTION_COSTS, 1.0) * difference.square()).mean()


def _gradient(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared differences of the slopes along both axes."""
    difference = predicted - target
    return torch.diff(difference, dim=-1).square().mean() + torch.diff(difference, dim=-2).square().mean()


LOSSES: dict[str, Loss] = {
    "mse": _mse,
    "mae": _mae,
    "bce": _bce,
    "pcc": _pcc,
    "asymmetric": _asymmetric,
    "gradient": _gradient,
}
"""Loss name → function of output and target, (N, 1, H, W) each, to a scalar. "bce" takes logits."""

SCALE_BLIND = frozenset({"pcc"})
"""Losses that gain and offset of the prediction do not change: alone they leave intensities arbitrary."""


def combined_loss(weights: Mapping[str, float], *, binary: bool) -> Loss:
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

    def loss(output: Tensor, target: Tensor) -> Tensor:
        predicted = torch.sigmoid(output) if binary else output
        terms = [
            weight * LOSSES[name](output if name == "bce" else predicted, target)
            for name, weight in weights.items()
        ]
        return torch.stack(terms).sum()

    return loss
