"""Our UNet beside MONAI's, on the same crops, steps or seconds: what they measure on unseen wells.

    pip install --no-deps --target PEERS monai
    PYTHONPATH=PEERS python tests/benchmarks/peer_networks.py --work FOLDER [--organelle nuclei]
        [--seconds 300] [--train-plates 6] [--test-plates 4] [setting=value …]

Plates, split and scores are those of `quality.py` (the folder can be shared). Crops, augmentations, loss,
optimiser and schedule are one configuration; only the network differs. Each gets the same seconds, so that a
network that is cheaper by step may take more of them; steps are printed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as lightning
import pandas as pd
import torch
from quality import split
from torch import nn

from cellabel.datasets import Dataset
from cellabel.evaluation import downstream_metrics
from cellabel.loop.held_out import LabelledField, evaluate_model
from cellabel.networks import OrganelleModel, UNet
from cellabel.organelles import organelle
from cellabel.training import TrainingConfig
from cellabel.training._callbacks import callbacks
from cellabel.training._module import Fitting
from cellabel.training._surroundings import quiet, threads

WELL = ["Metadata_Plate", "Metadata_Well"]


def networks() -> dict[str, Callable[[], nn.Module]]:
    """Name → network that maps (N, 1, H, W) to the same size."""
    found: dict[str, Callable[[], nn.Module]] = {
        "cellabel UNet, 16 channels, depth 3, blocks of 2 px": lambda: UNet(1, 1, 16, 3, block=2),
        "cellabel UNet, 16 channels, depth 4": lambda: UNet(1, 1, 16, 4),
    }
    try:
        from monai.networks.nets import BasicUNet
        from monai.networks.nets import UNet as MonaiUNet
    except ImportError:
        print("MONAI is not installed: its networks are left out.")
        return found
    return found | {
        "MONAI BasicUNet, 16 channels": lambda: BasicUNet(2, 1, 1, features=(16, 32, 64, 128, 256, 16)),
        "MONAI UNet, 16 channels, residual": lambda: MonaiUNet(
            2, 1, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2
        ),
    }


def fitted(network: nn.Module, dataset: Dataset, config: TrainingConfig) -> tuple[nn.Module, int]:
    """The network with the weights of its best validation, and the steps that it took."""
    losses = dict(config.losses or dataset.recipe.losses)
    with tempfile.TemporaryDirectory() as scratch, quiet(), threads(config.num_threads):
        fitting = Fitting(network, dataset, config, losses)  # type: ignore[arg-type]
        trainer = lightning.Trainer(
            max_steps=fitting.total_steps,
            max_epochs=-1,
            accelerator="cpu",
            logger=False,
            callbacks=callbacks(config, Path(scratch) / "last.ckpt", {}),
            gradient_clip_val=config.gradient_clip,
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            default_root_dir=scratch,
        )
        trainer.fit(fitting)
        fitting.judged.load_state_dict(fitting.best_state)
        return fitting.judged.eval(), int(fitting.history[-1]["step"])


def scores(network: nn.Module, dataset: Dataset, fields: list[LabelledField]) -> dict[str, float]:
    """Pixel Pearson, and Pearson and Lin's concordance of every primary metric over wells."""
    config = {
        "network": {},
        "organelle": dataset.organelle,
        "target": dataset.recipe.target,
        "target_scale": dataset.target_scale,
        "pixel_size_um": dataset.pixel_size_um,
        "intensity_units": "stain",
    }
    held_out = evaluate_model(OrganelleModel(network, config).eval(), fields, {"clean": None})  # type: ignore[arg-type]
    metrics = organelle(dataset.organelle).primary_metrics
    true, predicted = (held_out.wells(side)[[*WELL, *metrics]] for side in ("true", "predicted"))
    table = downstream_metrics(true, predicted, n_bootstrap=0).set_index("feature")
    found = {"pixel Pearson": held_out.pixel_pearson()}
    for metric in metrics:
        found |= {
            f"{metric} r": table.loc[metric, "pearson"],
            f"{metric} Lin": table.loc[metric, "concordance"],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of plates; kept for the next run")
    parser.add_argument("--organelle", default="nuclei")
    parser.add_argument("--seconds", type=float, default=300, help="of training a network")
    parser.add_argument("--train-plates", type=int, default=6)
    parser.add_argument("--test-plates", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("settings", nargs="*", help="training settings, name=value (JSON)")
    chosen = parser.parse_intermixed_args()
    chosen.family, chosen.preset, chosen.wells, chosen.size = "a", "10x", 24, 512
    torch.set_num_threads(chosen.threads)
    settings = {"max_steps": 100_000, "time_limit_s": chosen.seconds, "num_threads": chosen.threads}
    settings |= {name: json.loads(text) for name, text in (one.split("=", 1) for one in chosen.settings)}
    config = TrainingConfig(**settings)
    dataset, tested = split(chosen, chosen.organelle)
    fields = [LabelledField.of(plate, f.well, f.site) for plate in tested for f in plate.fields()]
    rows = []
    for name, build in networks().items():
        torch.manual_seed(config.seed)
        network, cpu = build(), time.process_time()
        parameters = sum(one.numel() for one in network.parameters())
        network, steps = fitted(network, dataset, config)
        row = {"network": name, "parameters": parameters, "steps": steps, "cpu_s": time.process_time() - cpu}
        rows.append(row | scores(network, dataset, fields))
        print(json.dumps(rows[-1]), flush=True)
    print(f"{chosen.organelle}, {len(fields)} wells of {len(tested)} unseen plates, {chosen.seconds:.0f} s:")
    print(pd.DataFrame(rows).set_index("network").T.to_string(float_format="%.3f"))


if __name__ == "__main__":
    main()
