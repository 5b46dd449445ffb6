"""One image through a network: tiled exactly, with its embedding."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellabel.errors import InputError
from cellabel.networks import OrganelleModel, UNet, pad_to_grid
from cellabel.preprocessing import prepare_input

EMBEDDING_CELL_PX = 128
"""Side of the cells of the image (px, about); the bottleneck averaged over one is one tile embedding."""

FULL_FRAME_BYTES = 1_500_000_000
"""A whole image is predicted in one piece while the activations stay below this."""

_BYTES_PER_PIXEL_AND_CHANNEL = 24
_DEFAULT_TILE = 1024


@dataclass(frozen=True)
class Prediction:
    """A predicted image and what the network's bottleneck made of it.

    Attributes:
        image: (H, W) float32, network units (stain units divided by the target scale), or a probability.
        embedding: (d,) float32, mean of the tile embeddings.
        tile_embeddings: (n, d) float32, the bottleneck averaged over each fixed cell of the image, row by
            row.
        foreground_embedding: (d,) float32, the bottleneck averaged with the predicted stain as weight; the
            plain mean where nothing is predicted.
    """

    image: NDArray[np.float32]
    embedding: NDArray[np.float32]
    tile_embeddings: NDArray[np.float32]
    foreground_embedding: NDArray[np.float32]


class Encoder(Protocol):
    """What `embed_image` needs of a network."""

    stride: int

    def encode(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) → (N, d, ⌈H / stride⌉, ⌈W / stride⌉)."""
        ...


@overload
def predict_image(
    model: nn.Module,
    image: NDArray,
    *,
    tile: int | None = None,
    engine: str = "torch",
    return_embeddings: Literal[False] = False,
) -> NDArray[np.float32]: ...


@overload
def predict_image(
    model: nn.Module,
    image: NDArray,
    *,
    tile: int | None = None,
    engine: str = "torch",
    return_embeddings: Literal[True],
) -> Prediction: ...


def predict_image(
    model: nn.Module,
    image: NDArray,
    *,
    tile: int | None = None,
    engine: str = "torch",
    return_embeddings: bool = False,
) -> NDArray[np.float32] | Prediction:
    """Predicts the stain of one transmitted-light image.

    Args:
        model: an `OrganelleModel`, or a bare network that maps (1, 1, H, W) to the same size. The image is
            given in the network's own precision.
        image: (H, W), raw: it is normalised here, once, over the whole image.
        tile: side of the tiles, px, rounded up to the network's grid; None takes the whole image where memory
            allows. It never changes the result. Only a `UNet` is tiled: what any other network sees around a
            pixel is unknown, so it takes the whole image in one pass.
        engine: what computes; "torch".
        return_embeddings: give a `Prediction` with embeddings from the same pass.

    Returns:
        (H, W) float32 in network units (times the model's `target_scale` these are stain units), or a
        probability where the model is binary; or a `Prediction`.

    Raises:
        InputError: NaN, infinite or no pixels, not (H, W), an unknown engine, a tile below 1, no network,
            one whose output has another size, or embeddings of one without a known bottleneck.
    """
    if engine != "torch":
        raise InputError(f'No engine is called {engine!r}; use engine="torch".')
    if tile is not None and (not isinstance(tile, int | np.integer) or isinstance(tile, bool) or tile < 1):
        raise InputError(f"A tile of {tile!r} px is no tile; pass a whole number of pixels from 1, or None.")
    if not isinstance(model, nn.Module):
        raise InputError(
            f"A {type(model).__name__} is no network; pass an nn.Module, such as a UNet or a loaded model."
        )
    network = model.network if isinstance(model, OrganelleModel) else model
    if not isinstance(network, UNet) and return_embeddings:
        raise InputError(
            f"Embeddings need a network whose bottleneck is known, unlike {type(network).__name__}; "
            "pass a UNet, or leave return_embeddings out."
        )
    prepared = _as_parameters(model, torch.from_numpy(prepare_input(image))[None, None])
    with _evaluating(model):
        if isinstance(network, UNet):
            output, bottleneck = _predict_tiles(network, prepared, tile, return_embeddings)
        else:
            output, bottleneck = _predict_whole(model, prepared), None
        output = output.float()
        if isinstance(model, OrganelleModel) and model.binary:
            output = torch.sigmoid(output)
    result = output[0, 0].numpy()
    if bottleneck is None or not isinstance(network, UNet):
        return result
    return _with_embeddings(result, bottleneck, network.stride)


def embed_image(encoder: nn.Module, image: NDArray) -> NDArray[np.float32]:
    """The embedding of one image by an encoder that predicts nothing (an autoencoder), mean over the image.

    Args:
        encoder: has `encode` and `stride`, as `ConvAutoencoder` and `UNet`.
        image: (H, W), raw.

    Returns:
        (d,) float32.

    Raises:
        InputError: NaN, infinite or no pixels, or not (H, W).
    """
    prepared = torch.from_numpy(prepare_input(image))[None, None]
    with _evaluating(encoder):
        code = encoder.encode(_as_parameters(encoder, prepared))[0]  # type: ignore[operator]
    return _cells(code.float().cpu().numpy(), int(encoder.stride)).mean(0)  # type: ignore[arg-type]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients; every module's own mode comes back, frozen parts included."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _as_parameters(model: nn.Module, image: Tensor) -> Tensor:
    """The image on the device and in the precision of the model's parameters."""
    parameter = next((one for one in model.parameters() if one.is_floating_point()), None)
    return image if parameter is None else image.to(parameter.device, parameter.dtype)


def _predict_whole(network: nn.Module, image: Tensor) -> Tensor:
    """Output (1, C, H, W) of a prepared image (1, 1, H, W) in one pass, whatever the network sees."""
    output = network(image)
    if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[-2:] != image.shape[-2:]:
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            f"{type(network).__name__} made {given} of an image {tuple(image.shape)}; "
            "pass a network whose output has the size of its input."
        )
    return output.cpu()


def _predict_tiles(
    network: UNet, image: Tensor, tile: int | None, with_bottleneck: bool
) -> tuple[Tensor, NDArray[np.float32] | None]:
    """Output (1, 1, H, W) and bottleneck (d, h, w) of a prepared image (1, 1, H, W), tile by tile.

    The image is padded to the grid first, exactly as the network itself would, so that every tile starts and
    ends on the grid and its borders are either the image's own or a halo away from what is kept.
    """
    height, width = image.shape[-2:]
    stride, halo = network.stride, network.halo()
    padded = pad_to_grid(image, stride)
    rows, columns = padded.shape[-2:]
    side = _tile_side(network, rows * columns, tile)
    output = torch.empty((1, 1, rows, columns))
    bottleneck = np.empty((network.embedding_length, rows // stride, columns // stride), np.float32)
    for top, left in itertools.product(range(0, rows, side), range(0, columns, side)):
        bottom, right = min(top + side, rows), min(left + side, columns)
        y, x = max(top - halo, 0), max(left - halo, 0)
        window = padded[..., y : min(bottom + halo, rows), x : min(right + halo, columns)]
        # With one channel, `contiguous` leaves strides that make convolutions take the slow way.
        fast = torch.empty_like(window, memory_format=torch.channels_last).copy_(window)
        part, code = network(fast, return_bottleneck=True)
        output[..., top:bottom, left:right] = part[:, :1, top - y : bottom - y, left - x : right - x]
        if with_bottleneck:
            cells = tuple(
                slice((start - offset) // stride, (end - offset) // stride)
                for start, end, offset in ((top, bottom, y), (left, right, x))
            )
            target = (slice(top // stride, bottom // stride), slice(left // stride, right // stride))
            bottleneck[(slice(None), *target)] = code[0].float().cpu().numpy()[(slice(None), *cells)]
    return output[..., :height, :width].contiguous(), bottleneck if with_bottleneck else None


def _tile_side(network: UNet, pixels: int, tile: int | None) -> int:
    stride = network.stride
    if tile is None:
        cost = pixels * int(network.config["base_channels"]) * _BYTES_PER_PIXEL_AND_CHANNEL
        tile = pixels if cost <= FULL_FRAME_BYTES else _DEFAULT_TILE
    return -(-int(tile) // stride) * stride


def _cells(bottleneck: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
    """Means (n, d) of a bottleneck (d, h, w) over cells of about `EMBEDDING_CELL_PX`, nearly equal."""
    edges = []
    for length in bottleneck.shape[1:]:
        count = max(1, round(length * stride / EMBEDDING_CELL_PX))
        edges.append(np.linspace(0, length, min(count, length) + 1).round().astype(int))
    return np.stack(
        [
            bottleneck[:, top:bottom, left:right].mean((1, 2), dtype=np.float64)
            for top, bottom in itertools.pairwise(edges[0])
            for left, right in itertools.pairwise(edges[1])
        ]
    ).astype(np.float32)


def _with_embeddings(image: NDArray[np.float32], bottleneck: NDArray[np.float32], stride: int) -> Prediction:
    tiles = _cells(bottleneck, stride)
    height, width = bottleneck.shape[1:]
    margins = ((0, height * stride - image.shape[0]), (0, width * stride - image.shape[1]))
    stain = np.pad(np.clip(image, 0, None), margins).astype(np.float64)
    weights = stain.reshape(height, stride, width, stride).sum((1, 3))
    if not weights.sum() > 0:
        weights = np.ones_like(weights)
    foreground = np.tensordot(bottleneck, weights / weights.sum(), axes=2).astype(np.float32)
    return Prediction(image, tiles.mean(0, dtype=np.float64).astype(np.float32), tiles, foreground)
