"""The learning rate as a function of how far the training is."""

from __future__ import annotations

import math

from cellabel.training_settings import TrainingConfig


def learning_rate(config: TrainingConfig, progress: float) -> float:
    """The learning rate at a share `progress` (0…1) of the training.

    Progress is the larger of steps and time spent, so a training that runs out of time has cooled down too.
    """
    progress = min(max(progress, 0.0), 1.0)
    if config.scheduler == "constant":
        return config.learning_rate
    rise = config.warm_up if config.scheduler == "one_cycle" else 0.0
    if progress < rise:
        return config.learning_rate * (0.04 + 0.96 * _half_cosine(progress / rise))
    return config.learning_rate * (1e-3 + 0.999 * _half_cosine(1 - (progress - rise) / (1 - rise)))


def _half_cosine(share: float) -> float:
    """From 0 to 1 with flat ends."""
    return (1 - math.cos(math.pi * share)) / 2
