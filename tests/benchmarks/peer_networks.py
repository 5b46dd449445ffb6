"""Our UNet beside MONAI's and VisCy's, on the same crops and seconds: what they measure on unseen wells.

    python tests/benchmarks/peer_networks.py --work FOLDER [--organelle nuclei]
        [--only MONAI] [--seconds 300] [--train-plates 6] [--test-plates 4] [setting=value …]

in an environment of its own, because VisCy's backbone needs a torchvision that fits its torch: what this
project requires at the versions of `constraints.txt`, but torch with torchvision from one index, and monai,
viscy, timm and huggingface_hub without what they ask for beside.

Plates, split and scores are those of `quality.py` (the folder can be shared). Crops, augmentations, loss,
optimiser and schedule are one configuration; only the network differs. Each gets the same seconds, so that a
network that is cheaper by step may take more of them; steps are printed.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as lightning
import pandas as pd
import torch
from quality import agreement, options, settings_of, split
from torch import Tensor, nn

from cellabel.datasets import Dataset
from cellabel.networks import OrganelleModel, UNet, pad_to_grid
from cellabel.plates import Plate
from cellabel.training import TrainingConfig
from cellabel.training._callbacks import callbacks
from cellabel.training._module import Fitting
from cellabel.training._surroundings import quiet, threads


class Padded(nn.Module):
    """A network for sizes that are multiples of `stride`, for any size: padded and cut back as ours is."""

    def __init__(self, network: nn.Module, stride: int) -> None:
        super().__init__()
        self.network, self.stride = network, stride

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) → the same."""
        height, width = images.shape[-2:]
        return self.network(pad_to_grid(images, self.stride))[..., :height, :width]


class OnePlane(nn.Module):
    """A network of stacks of planes, for images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) → the same."""
        return self.network(images[:, :, None])[:, :, 0]


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
    else:
        found |= {
            "MONAI BasicUNet, 16 channels": lambda: BasicUNet(2, 1, 1, features=(16, 32, 64, 128, 256, 16)),
            "MONAI UNet, 16 channels, residual": lambda: Padded(
                MonaiUNet(2, 1, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2), 16
            ),
        }
    try:
        from viscy.unet.networks.unext2 import UNeXt2
    except ImportError as error:
        print(f"VisCy's UNeXt2 is left out: {error}.")
    else:
        # ConvNeXt V2 in its smallest size; one plane in place of the stack of five that it is made for.
        found["VisCy UNeXt2, convnextv2_atto, one plane"] = lambda: Padded(
            OnePlane(UNeXt2(in_stack_depth=1, backbone="convnextv2_atto", stem_kernel_size=(1, 4, 4))), 32
        )
    return found


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


def scores(network: nn.Module, dataset: Dataset, tested: list[Plate]) -> dict[str, float]:
    """Median pixel Pearson of a field; Pearson and Lin's concordance of every primary metric over wells."""
    config = {
        "network": {},
        "organelle": dataset.organelle,
        "target": dataset.recipe.target,
        "target_scale": dataset.target_scale,
        "pixel_size_um": dataset.pixel_size_um,
        "intensity_units": "stain",
    }
    model, metrics = OrganelleModel(network, config).eval(), dataset.recipe.primary_metrics  # type: ignore[arg-type]
    table, pearson = agreement(model, tested, metrics)
    told = {"pixel Pearson": pearson}
    for metric in metrics:
        told |= {
            f"{metric} r": table.loc[metric, "pearson"],
            f"{metric} Lin": table.loc[metric, "concordance"],
        }
    return told


def main() -> None:
    parser = options(__doc__, 300)
    parser.add_argument("--organelle", default="nuclei")
    parser.add_argument("--only", default="", help="networks whose name holds this")
    chosen = parser.parse_intermixed_args()
    config = TrainingConfig(**settings_of(chosen))
    dataset, tested = split(chosen, chosen.organelle)
    rows = []
    for name, build in networks().items():
        if chosen.only not in name:
            continue
        torch.manual_seed(config.seed)
        network, cpu = build(), time.process_time()
        parameters = sum(one.numel() for one in network.parameters())
        network, steps = fitted(network, dataset, config)
        row = {"network": name, "parameters": parameters, "steps": steps, "cpu_s": time.process_time() - cpu}
        rows.append(row | scores(network, dataset, tested))
        print(json.dumps(rows[-1]), flush=True)
    wells = chosen.wells * len(tested)
    print(f"{chosen.organelle}, {wells} wells of {len(tested)} unseen plates, {chosen.seconds:.0f} s:")
    print(pd.DataFrame(rows).set_index("network").T.to_string(float_format="%.3f"))


if __name__ == "__main__":
    main()
