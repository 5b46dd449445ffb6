"""Where one half lies on the scale of a binary target's probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cellabel.networks import UNet
from cellabel.training._validation import ValidationField

__all__ = ["set_operating_point"]


def set_operating_point(network: UNet, fields: Sequence[ValidationField]) -> float:
    """Shift the last layer's intercept until as many pixels lie above one half as the stain marks.

    A stain that the image hardly shows (GFP) is predicted with probabilities near its share of the cells: at
    one half all cells are marked, or none, and the area is off by the same factor in every well. The order of
    pixels, and so every correlation and curve, stays as it is.

    Args:
        network: of a binary target; changed in place.
        fields: fields that were not trained on, with targets of 0 and 1.

    Returns:
        What was subtracted from the logits; 0 where the stain marks no pixel, or all of them.

    Source: Forman 2008, "Quantifying counts and costs via classification" (threshold selection so that the
        predicted share equals the true one).
    """
    training = network.training
    network.eval()
    with torch.no_grad():
        logits = torch.cat([network(field.image).float().ravel() for field in fields])
        share = float(torch.cat([field.target.ravel() for field in fields]).mean())
    network.train(training)
    marked = round(share * len(logits))
    if marked in (0, len(logits)):
        return 0.0
    ordered = logits.sort(descending=True).values
    shift = float((ordered[marked - 1] + ordered[marked]) / 2)
    with torch.no_grad():
        network.head.get_parameter("bias").sub_(shift)
    return shift
