"""Fitting a network to a data set: losses, augmentations that the microscope could have made, and the loop.

The crops of step n are a pure function of seed and n, so a training that was killed and resumed ends with the
weights of one that was not. Lightning runs the loop and is imported only when training starts.
"""

from cellabel.training._encoder import train_encoder
from cellabel.training._losses import LOSSES, SCALE_BLIND, combined_loss
from cellabel.training._train import TrainingResult, train
from cellabel.training_settings import CorruptionAugmentation, TrainingConfig

__all__ = [
    "LOSSES",
    "SCALE_BLIND",
    "CorruptionAugmentation",
    "TrainingConfig",
    "TrainingResult",
    "combined_loss",
    "train",
    "train_encoder",
]
