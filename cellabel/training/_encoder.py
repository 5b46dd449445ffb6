"""A frozen encoder that owes nothing to any stain or champion."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from cellabel.datasets import Dataset
from cellabel.errors import InputError
from cellabel.networks import AUTOENCODERS, Autoencoder
from cellabel.training._crops import CropSampler
from cellabel.training._schedule import learning_rate
from cellabel.training_settings import TrainingConfig


def train_encoder(
    dataset: Dataset,
    config: TrainingConfig | None = None,
    *,
    kind: str = "conv",
    code_channels: int = 32,
    progress: Callable[[str], None] | None = None,
) -> Autoencoder:
    """Trains an autoencoder on the transmitted-light images of a data set's training side.

    It never sees corrupted images, so that faults which a champion has learnt to ignore stay visible to it.

    Args:
        dataset: whose training fields are cropped.
        config: steps, crops, learning rate, base_channels, depth and seed are used; corruption may not be on.
        kind: one of `cellabel.networks.AUTOENCODERS`.
        code_channels: length of the embedding.
        progress: called with a sentence ten times.

    Returns:
        The encoder in eval mode; `save_encoder` keeps it, `cellabel.prediction.embed_image` uses it.

    Raises:
        InputError: corruption is on, an unknown kind, or a field is smaller than a crop.
    """
    if kind not in AUTOENCODERS:
        raise InputError(f"No autoencoder is called {kind!r}; choose from {', '.join(AUTOENCODERS)}.")
    config = config or TrainingConfig()
    if config.corruption.probability > 0:
        raise InputError(
            "An encoder that has seen corruption is blind to it; train it with corruption.probability=0."
        )
    sampler, steps = CropSampler(dataset, config), config.steps(len(dataset.train))
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        encoder = AUTOENCODERS[kind](config.base_channels, config.depth, code_channels).train()
    optimiser = torch.optim.AdamW(encoder.parameters(), weight_decay=config.weight_decay)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, step / steps)
        images = sampler.batch(step).images
        loss = functional.mse_loss(encoder(images), images)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        if progress is not None and (step + 1) % max(1, steps // 10) == 0:
            progress(f"encoder, step {step + 1} of {steps}: loss {loss.item():.4f}")
    return encoder.eval()
