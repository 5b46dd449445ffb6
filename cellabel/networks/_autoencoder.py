"""Two small autoencoders: embeddings that owe nothing to any champion."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cellabel.errors import InputError
from cellabel.networks._unet import crop_to, pad_to_grid


class Autoencoder(nn.Module):
    """An encoder to a small code and a decoder back, no skips: the code must carry the image.

    Args:
        base_channels: channels of the first step; they double with each step.
        depth: number of halvings.
        code_channels: channels of the code, the embedding's length.

    Raises:
        InputError: a size below 1.
    """

    kind: ClassVar[str]

    def __init__(self, base_channels: int = 16, depth: int = 4, code_channels: int = 32) -> None:
        super().__init__()
        if min(base_channels, depth, code_channels) < 1:
            raise InputError(
                f"An autoencoder cannot have base_channels={base_channels}, depth={depth}, "
                f"code_channels={code_channels}; all are at least 1."
            )
        self.config: dict[str, int] = {
            "base_channels": base_channels,
            "depth": depth,
            "code_channels": code_channels,
        }
        widths = [base_channels * 2**step for step in range(depth)]
        self.encoder = nn.Sequential(*self._down([1, *widths]), nn.Conv2d(widths[-1], code_channels, 1))
        self.decoder = nn.Sequential(nn.Conv2d(code_channels, widths[-1], 1), *self._up([1, *widths][::-1]))

    def _down(self, widths: list[int]) -> list[nn.Module]:
        raise NotImplementedError

    def _up(self, widths: list[int]) -> list[nn.Module]:
        raise NotImplementedError

    @property
    def stride(self) -> int:
        """Side of the cell of the image (px) that one pixel of the code stands for."""
        return int(2 ** self.config["depth"])

    @property
    def embedding_length(self) -> int:
        """Channels of the code."""
        return self.config["code_channels"]

    def encode(self, images: Tensor) -> Tensor:
        """The code of (N, 1, H, W): (N, code_channels, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return self.encoder(pad_to_grid(images, self.stride))

    def scales(self, images: Tensor) -> list[Tensor]:
        """What the filters answer to (N, 1, H, W), layer after layer, the finest first."""
        found, maps = [], pad_to_grid(images, self.stride)
        for layer in list(self.encoder.children())[:-1]:
            maps = layer(maps)
            if isinstance(layer, nn.ELU):
                found.append(maps.clone())  # the next layer may work in place
        return found

    def forward(self, images: Tensor) -> Tensor:
        """The image as the code remembers it, (N, 1, H, W) for H and W of any size."""
        height, width = images.shape[-2:]
        return crop_to(self.decoder(self.encode(images)), height, width)


class ConvAutoencoder(Autoencoder):
    """Strided convolutions down, transposed ones up: fast."""

    kind = "conv"

    def _down(self, widths: list[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            convolution = nn.Conv2d(inside, outside, 3, stride=2, padding=1)
            layers += [convolution, nn.BatchNorm2d(outside), nn.ELU(True)]
        return layers

    def _up(self, widths: list[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            layers += [nn.ELU(True), nn.ConvTranspose2d(inside, outside, 4, stride=2, padding=1)]
        return layers


class PoolingAutoencoder(Autoencoder):
    """The UNet's blocks without its skips: two convolutions and a max-pool down, resize-convolutions up."""

    kind = "pooling"

    def _down(self, widths: list[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            for channels in (inside, outside):
                layers += [nn.Conv2d(channels, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ELU(True)]
            layers.append(nn.MaxPool2d(2))
        return layers

    def _up(self, widths: list[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            layers += [nn.ELU(True), nn.Upsample(scale_factor=2, mode="nearest")]
            layers.append(nn.Conv2d(inside, outside, 3, padding=1))
        return layers


AUTOENCODERS: dict[str, type[Autoencoder]] = {
    network.kind: network for network in (ConvAutoencoder, PoolingAutoencoder)
}
"""Kind → autoencoder."""


def save_encoder(encoder: Autoencoder, path: str | os.PathLike[str]) -> None:
    """Writes weights and sizes into one safetensors file, replaced in one step."""
    path = Path(path)
    scratch = path.with_name(f".{path.name}.tmp")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(weights, scratch, {"kind": encoder.kind, "config": json.dumps(encoder.config)})
    scratch.replace(path)


def load_encoder(path: str | os.PathLike[str]) -> Autoencoder:
    """Reads an encoder that `save_encoder` wrote, in eval mode.

    Raises:
        InputError: no such file, or not an encoder.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            kind = AUTOENCODERS[metadata.get("kind", ConvAutoencoder.kind)]
            encoder = kind(**json.loads(metadata["config"]))
            encoder.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"The file {path} holds no encoder; train it again.") from error
    return encoder.eval()
