"""The crops of a step: where they lie, how they are turned, and what is done to the field before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellabel.corruptions import DESTROYED_SHARE, clipped_share, corrupt
from cellabel.datasets import Dataset, FieldSample, ImageCache
from cellabel.errors import InputError
from cellabel.training._config import Case, TrainingConfig

CORRUPTED_CACHE_BYTES = 500_000_000
_INTERPOLATION_MARGIN = 2.5  # px that cubic interpolation looks beyond a point, and rounding


@dataclass(frozen=True)
class Turn:
    """What is done to a crop.

    Attributes:
        transpose: mirror across the diagonal from top left to bottom right.
        quarters: quarter turns after it.
        invert: reverse the input's relief.
        angle: rotation, radians.
        scale: magnification.
    """

    transpose: bool = False
    quarters: int = 0
    invert: bool = False
    angle: float = 0.0
    scale: float = 1.0


class Batch(NamedTuple):
    """Inputs and targets (N, 1, crop, crop) float32, and the fields that they were cut from."""

    images: Tensor
    targets: Tensor
    samples: list[FieldSample]


class CropSampler:
    """Batches of crops; `batch(step)` depends on the configuration and on `step` alone.

    Args:
        dataset: its training side is cropped.
        config: crop size, batch size, seed and augmentations.

    Raises:
        InputError: a training field smaller than a crop.
    """

    def __init__(self, dataset: Dataset, config: TrainingConfig) -> None:
        self.dataset = dataset
        self.config = config
        self._cases = config.corruption.cases() if config.corruption.probability > 0 else {}
        self._corrupted = ImageCache(CORRUPTED_CACHE_BYTES)

    def batch(self, step: int) -> Batch:
        """The crops of one step."""
        size, config = self.config.crop_size, self.config
        shape = (config.batch_size, 1, size, size)
        images = torch.empty(shape, memory_format=torch.channels_last)
        targets = torch.empty(shape, memory_format=torch.channels_last)
        samples = []
        for place in range(config.batch_size):
            rng = np.random.default_rng([config.seed, step, place])
            sample = self.dataset.train[rng.integers(len(self.dataset.train))]
            image, target = self._crop(sample, rng)
            images[place, 0] = torch.from_numpy(np.ascontiguousarray(image))
            targets[place, 0] = torch.from_numpy(np.ascontiguousarray(target))
            samples.append(sample)
        targets /= self.dataset.target_scale
        return Batch(images, targets, samples)

    def _crop(
        self, sample: FieldSample, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        turn = draw_turn(self.config, rng)
        case = self._draw_case(rng)
        image = self.dataset.image(sample) if case is None else self._corrupt(sample, case)
        stain = self.dataset.stain(sample)
        size = self.config.crop_size
        if min(image.shape) < size:
            raise InputError(
                f"Plate {sample.plate_id}, well {sample.well}, site {sample.site} is {image.shape[0]} × "
                f"{image.shape[1]} px, smaller than a crop of {size}; choose a smaller crop_size."
            )
        position = rng.random(2)
        image, stain = (cut(pixels, size, turn, position) for pixels in (image, stain))
        return (-image if turn.invert else image), stain

    def _draw_case(self, rng: np.random.Generator) -> Case | None:
        if not self._cases or rng.random() >= self.config.corruption.probability:
            return None
        kind = list(self._cases)[rng.integers(len(self._cases))]
        return kind, self._cases[kind][rng.integers(len(self._cases[kind]))]

    def _corrupt(self, sample: FieldSample, case: Case) -> NDArray[np.float32]:
        """The input made of the corrupted raw field; the clean one where nothing would be left."""
        kind, severity = case
        scale = self.config.corruption.full_scale

        def make() -> NDArray[np.float32]:
            raw = self.dataset.raw(sample)
            if clipped_share(raw, kind, severity, full_scale=scale) > DESTROYED_SHARE:
                return self.dataset.image(sample)
            return self.dataset.prepare(sample, corrupt(raw, kind, severity, full_scale=scale))

        return self._corrupted.get((sample.key, case), make)


def draw_turn(config: TrainingConfig, rng: np.random.Generator) -> Turn:
    """A turn that the microscope could have made, with always the same number of draws.

    For DIC: the mirror across the shear axis, the half turn with inverted relief (both together are the
    mirror along the axis), and small rotations. For other light: all mirrors, quarter turns and rotations.
    """
    mirror, half, quarter, warp, angle, scale = rng.random(6)
    if not config.augment:
        return Turn()
    dic = config.modality == "dic"
    largest = config.rotation_degrees
    largest = (5.0 if dic else 180.0) if largest is None else largest
    warped = warp < config.warp_probability
    free: dict[str, Any] = {}
    if warped:
        low, high = config.scale_range
        free = {"angle": math.radians((2 * angle - 1) * largest), "scale": low * (high / low) ** scale}
    if not dic:
        return Turn(transpose=mirror < 0.5, quarters=int(4 * quarter), **free)
    transpose, turned = mirror < 0.5, half < 0.5
    # The transposition mirrors across a 45° axis, and along a 135° one: there it reverses the relief itself.
    reverses = transpose and config.shear_axis_degrees == 135
    return Turn(transpose=transpose, quarters=2 * turned, invert=turned != reverses, **free)


def cut(
    image: NDArray[np.float32], size: int, turn: Turn, position: NDArray[np.float64]
) -> NDArray[np.float32]:
    """A crop of `size` px, turned; every pixel of it comes from inside the image.

    A rotated or scaled crop is cut from the large image, its centre where all four corners stay inside. Where
    the image is too small for that, the crop is neither rotated nor scaled.

    Args:
        image: (H, W).
        size: side of the crop, px.
        turn: what is done to it.
        position: two numbers from 0 to 1, where it lies in what is possible.
    """
    crop = None
    if turn.angle or turn.scale != 1:
        crop = _warped(image, size, turn, position)
    if crop is None:
        spaces = [length - size for length in image.shape]
        top, left = (min(int(p * (space + 1)), space) for p, space in zip(position, spaces, strict=True))
        crop = image[top : top + size, left : left + size]
    if turn.transpose:
        crop = crop.T
    return np.rot90(crop, turn.quarters)


def _warped(
    image: NDArray[np.float32], size: int, turn: Turn, position: NDArray[np.float64]
) -> NDArray[np.float32] | None:
    cosine, sine = math.cos(turn.angle) / turn.scale, math.sin(turn.angle) / turn.scale
    reach = (size - 1) / 2 * (abs(cosine) + abs(sine)) + _INTERPOLATION_MARGIN
    room = [length - 1 - 2 * reach for length in image.shape]
    if min(room) < 0:
        return None
    y, x = (reach + p * space for p, space in zip(position, room, strict=True))
    top, left = math.floor(y - reach), math.floor(x - reach)
    window = image[top : math.ceil(y + reach) + 1, left : math.ceil(x + reach) + 1]
    middle = (size - 1) / 2
    matrix = np.array(
        [
            [cosine, -sine, x - left - cosine * middle + sine * middle],
            [sine, cosine, y - top - sine * middle - cosine * middle],
        ]
    )
    # Anything from outside would be NaN, and stop the training.
    warped = cv2.warpAffine(
        window,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=math.nan,
    )
    return np.asarray(warped, np.float32)
