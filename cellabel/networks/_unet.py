"""The UNet (Ronneberger, Fischer & Brox 2015), padded so that its output has its input's size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellabel.errors import InputError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": partial(nn.ELU, inplace=True),
    "relu": partial(nn.ReLU, inplace=True),
    "leaky_relu": partial(nn.LeakyReLU, 0.1, inplace=True),
    "silu": partial(nn.SiLU, inplace=True),
}
"""Activation name → module."""

INITIALISATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "default": None,
    "he": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "xavier": nn.init.xavier_normal_,
    "orthogonal": nn.init.orthogonal_,
    "normal": partial(nn.init.normal_, std=0.02),
}
"""Initialisation name → what fills a convolution's weights (None: the framework's own).

The study compares "custom weight initialisation" with the default without saying which; "normal", N(0,
0.02²), the custom one that image-to-image networks commonly carry (Isola et al. 2017), stands for it.
"""

UPSAMPLINGS: dict[str, Callable[[int, int], nn.Module]] = {}
"""Way up → module that doubles the size and takes so many channels to so many."""


def pad_to_grid(images: Tensor, stride: int) -> Tensor:
    """Repeats the last row and column until height and width are multiples of `stride`. (N, C, H, W)."""
    height, width = images.shape[-2:]
    bottom, right = -height % stride, -width % stride
    if torch.compiler.is_exporting():  # one graph for all sizes: no question about the size may be asked
        rows = torch.arange(height + bottom, device=images.device).clamp(max=height - 1)
        columns = torch.arange(width + right, device=images.device).clamp(max=width - 1)
        return images.index_select(-2, rows).index_select(-1, columns)
    return functional.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


def crop_to(images: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns: what `pad_to_grid` has added is cut off again."""
    if torch.compiler.is_exporting():
        rows = torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device)
        return images.index_select(-2, rows).index_select(-1, columns)
    return images[..., :height, :width]


def _to_channels(images: Tensor, block: int) -> Tensor:
    """Squares of pixels become channels: (N, C, H, W) → (N, C · block², H / block, W / block)."""
    if not torch.compiler.is_exporting():
        return functional.pixel_unshuffle(images, block)
    # The same as a convolution, which asks nothing about the size.
    channels = images.shape[1]
    pick = torch.eye(channels * block**2, device=images.device).view(-1, channels, block, block)
    return functional.conv2d(images, pick, stride=block)


def _convolutions(
    channels_in: int, channels_out: int, activation: str, norm: str, dropout: float
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first, channels in ((True, channels_in), (False, channels_out)):
        layers.append(nn.Conv2d(channels, channels_out, 3, padding=1, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(channels_out))
        layers.append(ACTIVATIONS[activation]())
        if first and dropout > 0:
            layers.append(nn.Dropout2d(dropout))
    return nn.Sequential(*layers)


def _resize_convolution(channels_in: int, channels_out: int) -> nn.Module:
    # Nearest neighbours, not linear: each pixel then depends on one below, and tiles stay exact.
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(channels_in, channels_out, 3, padding=1)
    )


UPSAMPLINGS |= {
    "transposed": partial(nn.ConvTranspose2d, kernel_size=2, stride=2),
    "resize": _resize_convolution,
}


class UNet(nn.Module):
    """Encoder, bottleneck and decoder with skips; channels double and sizes halve at each of `depth` steps.

    Each step is two 3×3 convolutions with activation (and normalisation), then a 2×2 max-pool of stride 2;
    the way back is by transposed or resize-convolutions. A last 1×1 convolution gives intensities, or logits
    for binary targets.

    Args:
        in_channels, out_channels: of input (N, in_channels, H, W) and output (N, out_channels, H, W).
        base_channels: channels of the first step.
        depth: number of poolings; the bottleneck has 2**depth times the base channels.
        activation: one of `ACTIVATIONS`.
        norm: "batch" or "none".
        dropout: share of feature maps dropped in each block while training.
        initialisation: one of `INITIALISATIONS`.
        upsampling: "transposed" (2×2, stride 2), or "resize" (nearest neighbour, then 3×3: no checkerboard,
            a third more work; Odena et al. 2016).
        block: side of the squares of pixels that enter as channels and leave likewise (Shi et al. 2016): 2
            quarters the work of every layer, for objects that are larger than a few pixels.

    Raises:
        InputError: an unknown name, or a size that makes no network.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        base_channels: int = 32,
        depth: int = 4,
        activation: str = "elu",
        norm: str = "batch",
        dropout: float = 0.0,
        *,
        initialisation: str = "default",
        upsampling: str = "transposed",
        block: int = 1,
    ) -> None:
        super().__init__()
        _check_sizes(in_channels, out_channels, base_channels, depth, dropout, block)
        _check_names(activation, norm, initialisation, upsampling)
        self.config: dict[str, int | float | str] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "base_channels": base_channels,
            "depth": depth,
            "activation": activation,
            "norm": norm,
            "dropout": dropout,
            "initialisation": initialisation,
            "upsampling": upsampling,
            "block": block,
        }
        widths = [base_channels * 2**step for step in range(depth + 1)]
        convolutions = partial(_convolutions, activation=activation, norm=norm, dropout=dropout)
        self.encoder = nn.ModuleList(
            convolutions(inside, outside)
            for inside, outside in zip([in_channels * block**2, *widths[:-2]], widths[:-1], strict=True)
        )
        self.bottleneck = convolutions(widths[-2], widths[-1])
        self.upsampling = nn.ModuleList(
            UPSAMPLINGS[upsampling](2 * width, width) for width in reversed(widths[:-1])
        )
        self.decoder = nn.ModuleList(convolutions(2 * width, width) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(base_channels, out_channels * block**2, 1)
        self._initialise(initialisation)

    def _initialise(self, name: str) -> None:
        fill = INITIALISATIONS[name]
        if fill is None:
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                fill(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def depth(self) -> int:
        """Number of poolings."""
        return len(self.encoder)

    @property
    def stride(self) -> int:
        """Side of the cell of the image (px) that one pixel of the bottleneck stands for."""
        return self.block * 2**self.depth

    @property
    def block(self) -> int:
        """Side of the squares of pixels that enter as channels."""
        return int(self.config["block"])

    @property
    def embedding_length(self) -> int:
        """Channels of the bottleneck."""
        return int(self.config["base_channels"]) * 2**self.depth

    @overload
    def forward(self, images: Tensor, return_bottleneck: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, images: Tensor, return_bottleneck: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, images: Tensor, return_bottleneck: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Predicts (N, out_channels, H, W) from (N, in_channels, H, W), H and W of any size.

        Args:
            images: the network's input.
            return_bottleneck: give the bottleneck of the same pass as well,
                (N, embedding_length, ⌈H / stride⌉, ⌈W / stride⌉).

        Raises:
            InputError: another number of axes or channels.
        """
        height, width = images.shape[-2:]
        bottleneck, skips = self._encode(images)
        x = bottleneck
        for upsample, block, skip in zip(self.upsampling, self.decoder, reversed(skips), strict=True):
            x = block(torch.cat([skip, upsample(x)], dim=1))
        output = crop_to(functional.pixel_shuffle(self.head(x), self.block), height, width)
        return (output, bottleneck) if return_bottleneck else output

    def encode(self, images: Tensor) -> Tensor:
        """The bottleneck alone: (N, embedding_length, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return self._encode(images)[0]

    def _encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        channels = self.config["in_channels"]
        if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
            raise InputError(
                f"The network takes (N, {channels}, H, W), not {tuple(images.shape)}; add or drop axes."
            )
        x, skips = _to_channels(pad_to_grid(images, self.stride), self.block), []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        return self.bottleneck(x), skips

    def receptive_field(self) -> int:
        """How far (px, to any side) the output pixel that sees farthest can see.

        Follows the interval of pixels that one output pixel depends on backwards through the layers, for each
        position in the grid, since pooling makes the reach depend on it.
        """
        intervals = [(position, *self._interval(position)) for position in range(self.stride)]
        return max(max(position - low, high - position) for position, low, high in intervals)

    def halo(self) -> int:
        """Margin (px) with which a tile that lies on the grid is predicted exactly: a multiple of `stride`.

        Below the receptive field by up to one cell, because a tile's outermost pixels hold known places in
        the grid.
        """
        intervals = [self._interval(position) for position in range(self.stride)]
        reach = max(max(-low, high - (self.stride - 1)) for low, high in intervals)
        return -(-reach // self.stride) * self.stride

    def _interval(self, position: int) -> tuple[int, int]:
        margins = [_margin(block) for block in self.encoder]
        low = high = position // self.block
        below = []
        # Output to bottleneck; skips see no more than the way through below.
        for block, upsample in zip(reversed(self.decoder), reversed(self.upsampling), strict=True):
            low, high = low - _margin(block), high + _margin(block)
            below.append((low, high))
            low, high = (low - _margin(upsample)) // 2, (high + _margin(upsample)) // 2
        low, high = low - _margin(self.bottleneck), high + _margin(self.bottleneck)
        for margin, (skip_low, skip_high) in zip(reversed(margins), reversed(below), strict=True):
            low, high = min(2 * low, skip_low) - margin, max(2 * high + 1, skip_high) + margin
        return self.block * low, self.block * (high + 1) - 1


def _margin(block: nn.Module) -> int:
    """How far the convolutions of a block see, in pixels of its own level."""
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    return sum(int(convolution.kernel_size[0]) // 2 for convolution in convolutions)


def _check_names(activation: str, norm: str, initialisation: str, upsampling: str) -> None:
    if norm in ("instance", "group", "layer"):
        raise InputError(
            f'norm="{norm}" normalises by the statistics of the frame that is passed, so a tiled prediction '
            'would differ from the whole image; use norm="batch" or norm="none".'
        )
    for name, value, known in (
        ("norm", norm, ("batch", "none")),
        ("activation", activation, tuple(ACTIVATIONS)),
        ("initialisation", initialisation, tuple(INITIALISATIONS)),
        ("upsampling", upsampling, tuple(UPSAMPLINGS)),
    ):
        if value not in known:
            raise InputError(f"A UNet has no {name} {value!r}; choose one of {', '.join(known)}.")


def _check_sizes(
    in_channels: int, out_channels: int, base_channels: int, depth: int, dropout: float, block: int
) -> None:
    sizes = (in_channels, out_channels, base_channels, depth, block)
    whole = all(isinstance(size, Integral) and not isinstance(size, bool) for size in sizes)
    if not whole or min(sizes) < 1 or depth > 8:
        raise InputError(
            f"A UNet cannot have in_channels={in_channels!r}, out_channels={out_channels!r}, "
            f"base_channels={base_channels!r}, depth={depth!r}, block={block!r}; all are whole numbers "
            "from 1 on, and depth is at most 8."
        )
    if not (isinstance(dropout, Real) and 0 <= dropout < 1):
        raise InputError(f"dropout is {dropout!r}; pass a share from 0 up to, not including, 1.")
