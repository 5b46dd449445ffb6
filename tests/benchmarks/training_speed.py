"""Steps a second of whole trainings against the bare network, and of bf16 against fp32, in the same process.

    python tests/benchmarks/training_speed.py [--steps 20] [--threads 1] [setting=value …]

The bare network sees one batch again and again: forward, loss, backward, optimiser. A training adds the
crops, augmentations, Lightning, checkpoint and one validation; its goal is 95 % of the bare steps a second.
Rounds alternate, and the middle round's ratio counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from cellabel.datasets import Dataset, build_dataset
from cellabel.networks import UNet
from cellabel.training import TrainingConfig, combined_loss, train

SIDE, WELLS = 512, 6


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


def bare(config: TrainingConfig, precision: str) -> float:
    """Seconds a step of the network alone."""
    network = UNet(base_channels=config.base_channels, depth=config.depth)
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate)
    loss = combined_loss({"mse": 1.0, "batch_pcc": 0.1}, binary=False)
    shape = (config.batch_size, 1, config.crop_size, config.crop_size)
    images, targets = (torch.empty(shape, memory_format=torch.channels_last).normal_() for _ in range(2))
    for step in range(config.max_steps + 1):
        if step == 1:
            began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = network(images)
        optimiser.zero_grad()
        torch.autograd.backward(loss(output.float(), targets))
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
        optimiser.step()
    return (time.perf_counter() - began) / config.max_steps


def whole(data: Dataset, config: TrainingConfig) -> float:
    """Seconds a step of `train`, its loop from first to last step, without the validation."""
    return float(train(data, config).metrics["seconds"]) / config.max_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("settings", nargs="*", help="training settings, name=value (JSON)")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(arguments.threads)
    changes: dict[str, Any] = {"intensity_jitter": 0.1, "noise": 0.05, "foreground_share": 0.5}
    changes |= {name: json.loads(text) for name, text in (pair.split("=") for pair in arguments.settings)}
    config = TrainingConfig(
        max_steps=arguments.steps,
        validations=1,
        validation_megapixels=0.02,
        precision="fp32",
        num_threads=arguments.threads,
        **changes,
    )
    data = dataset()
    whole(data, config.model_copy(update={"max_steps": 2}))  # imports, and fields into the cache
    rounds = []
    for _ in range(arguments.rounds):
        alone, together, bf16 = bare(config, "fp32"), whole(data, config), bare(config, "bf16")
        rounds.append((alone / together, alone / bf16, alone))
        print(f"bare {alone * 1e3:.0f} ms, training {together * 1e3:.0f} ms, bf16 {bf16 * 1e3:.0f} ms a step")
    share, faster, alone = (statistics.median(values) for values in zip(*rounds, strict=True))
    print(
        f"training runs at {share:.1%} of the bare network's steps a second ({1 / alone:.2f}/s, "
        f"{arguments.threads} threads); bf16 at {faster:.2f} times those of fp32"
    )


if __name__ == "__main__":
    main()
