"""Steps a second of a training against the bare network, and of bf16 against fp32, in the same process.

    python tests/benchmarks/training_speed.py [--blocks 12] [--threads 1] [setting=value …]

The bare network sees one batch again and again: forward, loss, backward, clipping, optimiser. A training adds
crops, augmentations and Lightning; its goal is 95 % of the bare steps a second. The training is paused after
every ten steps for ten of the bare network, so that both see the same machine; the middle pair's ratio
counts. Validations and checkpoints are not in it. Three steps tell how fast bf16 is: a processor that
emulates it takes ten times as long as in fp32.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

from cellabel.datasets import Dataset, build_dataset
from cellabel.networks import UNet
from cellabel.training import TrainingConfig, combined_loss, train
from cellabel.training._crops import Batch
from cellabel.training._module import Fitting

SIDE, WELLS, BLOCK = 512, 6, 10


def dataset() -> Dataset:
    """Six wells of noise; how fast it is does not depend on what is seen."""
    rng = np.random.default_rng(0)

    def field() -> SimpleNamespace:
        spots = np.where(rng.random((SIDE, SIDE)) > 0.97, 4000, 0) + rng.normal(300, 5, (SIDE, SIDE))
        light = rng.normal(20_000, 500, (SIDE, SIDE))
        images = {"transmitted": light.astype(np.uint16), "nuclei": spots.astype(np.uint16)}
        return SimpleNamespace(roles=tuple(images), image=lambda role, plane="middle": images[role])

    plate = SimpleNamespace(
        plate_id="noise",
        content_hash="noise",
        pixel_size_um=0.65,
        plan=None,
        wells={f"A{n:02d}": SimpleNamespace(fields={1: field()}) for n in range(1, WELLS + 1)},
        quarantined=pd.DataFrame(columns=["Metadata_Well", "Metadata_Site", "reason"]),
    )
    return build_dataset([plate], "nuclei")


class Bare:
    """The network alone, fed one batch of noise.

    Args:
        config: of the training beside it.
        precision: fp32 or bf16.
    """

    def __init__(self, config: TrainingConfig, precision: str = "fp32") -> None:
        self.network = UNet(**config.architecture())
        self.optimiser = torch.optim.AdamW(self.network.parameters(), config.learning_rate)
        self.loss = combined_loss({"mse": 1.0, "batch_pcc": 0.1}, binary=False)
        self.clip, self.precision = config.gradient_clip, precision
        shape = (config.batch_size, 1, config.crop_size, config.crop_size)
        self.images, self.targets = (
            torch.empty(shape, memory_format=torch.channels_last).normal_() for _ in range(2)
        )
        self.seconds(2)

    def seconds(self, steps: int) -> float:
        """Seconds a step."""
        began = time.perf_counter()
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
                output = self.network(self.images)
            loss = self.loss(output.float(), self.targets)
            loss.item()
            self.optimiser.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
            self.optimiser.step()
        return (time.perf_counter() - began) / steps


def interleaved(data: Dataset, config: TrainingConfig) -> list[tuple[float, float]]:
    """Seconds a step of training and of the bare network, block by block."""
    alone, pairs, resumed = Bare(config), [], math.nan
    usual = Fitting.on_train_batch_start

    def pausing(fitting: Fitting, batch: Batch, batch_idx: int) -> None:
        nonlocal resumed
        if fitting.global_step % BLOCK == 0:
            taken = (time.perf_counter() - resumed) / BLOCK
            pairs.append((taken, alone.seconds(BLOCK)))
            resumed = time.perf_counter()
        usual(fitting, batch, batch_idx)

    with mock.patch.object(Fitting, "on_train_batch_start", pausing):
        train(data, config)
    return pairs[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=12, help="of ten steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("settings", nargs="*", help="training settings, name=value (JSON)")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(arguments.threads)
    changes: dict[str, Any] = {"intensity_jitter": 0.1, "noise": 0.05, "foreground_share": 0.5}
    changes |= {name: json.loads(text) for name, text in (pair.split("=") for pair in arguments.settings)}
    config = TrainingConfig(
        max_steps=BLOCK * (arguments.blocks + 1),
        validations=1,
        validation_megapixels=0.02,
        precision="fp32",
        num_threads=arguments.threads,
        **changes,
    )
    data = dataset()
    train(data, config.model_copy(update={"max_steps": 2}))  # imports, and fields into the cache
    pairs = interleaved(data, config)
    shares = [bare / training for training, bare in pairs]
    low, middle, high = np.quantile(shares, [0.25, 0.5, 0.75])
    alone = statistics.median(bare for _, bare in pairs)
    print(
        f"training runs at {middle:.1%} of the bare network's steps a second (half of {len(pairs)} blocks "
        f"from {low:.1%} to {high:.1%}; {alone * 1e3:.0f} ms a bare step, {arguments.threads} threads)",
        flush=True,
    )
    print(f"bf16 at {alone / Bare(config, 'bf16').seconds(3):.2f} times the steps a second of fp32")


if __name__ == "__main__":
    main()
