"""A trained network with what its output needs to mean something, and how it is kept."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cellabel.errors import InputError
from cellabel.networks._unet import UNet
from cellabel.organelles import ORGANELLES

WEIGHTS_NAME = "weights.safetensors"
CONFIG_NAME = "config.json"
_REQUIRED = ("network", "organelle", "target", "target_scale", "pixel_size_um", "intensity_units")


class OrganelleModel(nn.Module):
    """A network that predicts one organelle.

    Args:
        network: maps the prepared input (N, 1, H, W) to scaled intensities, or logits where binary.
        config: "network" (the UNet's arguments), "organelle", "target" ("continuous" or "binary"),
            "target_scale" (stain units per network unit), "pixel_size_um", "intensity_units" ("stain" or
            "arbitrary"), "core" (see `core`, may be absent), and where it comes from.
        name: of the registered model, or "".
        version: of the registered model, else a digest of the weights.
    """

    def __init__(
        self, network: UNet, config: Mapping[str, Any], *, name: str = "", version: str = ""
    ) -> None:
        super().__init__()
        self.network = network
        self.config = dict(config)
        self.name = name
        self.version = version

    @property
    def organelle(self) -> str:
        """Name of the recipe."""
        return str(self.config["organelle"])

    @property
    def binary(self) -> bool:
        """Whether the output is a logit, to be read as a probability."""
        return self.config["target"] == "binary"

    @property
    def target_scale(self) -> float:
        """Stain units per network unit; 1 where binary."""
        return float(self.config["target_scale"])

    @property
    def floor(self) -> float:
        """Height above background (stain units) under which its predictions show nothing; 0 where unknown.

        A prediction has no noise that would say what is nothing, so an empty field needs an absolute floor.
        """
        known = ORGANELLES.get(self.organelle)
        if known is None or self.binary or self.config["intensity_units"] != "stain":
            return 0.0
        return known.floor * self.target_scale

    @property
    def core(self) -> float | None:
        """How far its predictions' objects are cut to their core, as the stains that it learnt from are.

        None where unknown: each prediction is then judged by itself.
        """
        known = self.config.get("core")
        return None if known is None else float(known)

    @property
    def pixel_size_um(self) -> float:
        """Pixel size (µm) of the images that it was trained on."""
        return float(self.config["pixel_size_um"])

    def forward(self, images: Tensor) -> Tensor:
        """What the network says: (N, 1, H, W), in network units or logits."""
        return self.network(images)


def save_model(model: OrganelleModel, folder: str | os.PathLike[str]) -> None:
    """Writes weights, then configuration with the weights' digest, into an existing folder."""
    folder = Path(folder)
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS_NAME)
    config = model.config | {"weights_sha256": _sha256(folder / WEIGHTS_NAME)}
    scratch = folder / f".{CONFIG_NAME}.tmp"
    scratch.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    scratch.replace(folder / CONFIG_NAME)


def load_model(folder: str | os.PathLike[str], *, name: str = "", version: str = "") -> OrganelleModel:
    """Reads a model that training wrote, in eval mode.

    Args:
        folder: holds `weights.safetensors` and `config.json`.
        name: of the registered model, if it is one.
        version: likewise; else a digest of the weights is taken.

    Raises:
        InputError: a missing, foreign or damaged file.
    """
    folder = Path(folder)
    config, weights_path = _read_config(folder), folder / WEIGHTS_NAME
    if not weights_path.is_file():
        raise InputError(f"The model in {folder} has no {WEIGHTS_NAME}; train or download it again.")
    digest = _sha256(weights_path)
    if config.get("weights_sha256", digest) != digest:
        raise InputError(
            f"The weights in {weights_path} are not those that {CONFIG_NAME} names; download them again."
        )
    try:
        network = UNet(**config["network"])
        network.load_state_dict(load_file(weights_path))
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise InputError(
            f"The weights in {weights_path} do not fit the network of {CONFIG_NAME}; train the model again."
        ) from error
    model = OrganelleModel(network, config, name=name, version=version or digest[:12])
    return model.eval()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise InputError(
            f"The folder {folder} holds no model: {CONFIG_NAME} is missing; name a model's folder."
        )
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            f"The file {path} is not readable as JSON; train or download the model again."
        ) from error
    missing = [key for key in _REQUIRED if not isinstance(config, dict) or key not in config]
    if missing:
        raise InputError(f"The file {path} lacks {', '.join(missing)}; train or download the model again.")
    scales = (config["target_scale"], config["pixel_size_um"])
    if not all(isinstance(value, int | float) and math.isfinite(value) and value > 0 for value in scales):
        raise InputError(f"The file {path} has a scale that is not a positive number; train the model again.")
    return config


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
