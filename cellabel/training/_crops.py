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

from cellabel.corruptions import (
    DESTROYED_SHARE,
    clipped_share,
    corrupt,
    depth_of_severity,
    interference_defocus,
)
from cellabel.datasets import Dataset, FieldSample, ImageCache
from cellabel.errors import InputError
from cellabel.training_settings import Case, TrainingConfig

CORRUPTED_CACHE_BYTES = 500_000_000
SIDES = (0.0, 0.0, 0.0, 1.0, -1.0, 1.5, -1.5)
"""Where defocused fields of DIC lie, in depths of their severity from focus; at 0 the disk blurs instead:
with fewer of these a network learns less of plain blur than it has to know.
"""

_CELL = 16  # px, side of the cells in which stain is looked for
_PLACES = 4  # of which a crop that looks for stain takes the fullest
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
    """Crops of one step, or the part of them that one process takes at once.

    Attributes:
        images, targets: (N, 1, crop, crop) float32.
        samples: the fields that they were cut from.
        centres: about where in the field (row, column).
        share: of the step's crops.
        jitter: gain, offset and noise of each crop, (N, 3), to be applied where the network is.
        seed: of the noise.
    """

    images: Tensor
    targets: Tensor
    samples: list[FieldSample]
    centres: list[tuple[int, int]]
    share: float
    jitter: Tensor
    seed: int


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
        self._is_dic = config.modality == "dic" and config.corruption.numerical_aperture is not None
        self._corrupted = ImageCache(CORRUPTED_CACHE_BYTES)
        self._foregrounds: dict[tuple[str, str, int], NDArray[np.float32]] = {}

    def batch(self, step: int, places: range | None = None) -> Batch:
        """The crops of one step.

        Args:
            step: which.
            places: which of its `batch_size` crops; None gives all.
        """
        size, config = self.config.crop_size, self.config
        places = range(config.batch_size) if places is None else places
        shape = (len(places), 1, size, size)
        images = torch.empty(shape, memory_format=torch.channels_last)
        targets = torch.empty(shape, memory_format=torch.channels_last)
        samples, centres, jitter = [], [], np.empty((len(places), 3))
        for row, place in enumerate(places):
            rng = np.random.default_rng([config.seed, step, place])
            sample = self.dataset.train[rng.integers(len(self.dataset.train))]
            image, target, centre = self._crop(sample, rng)
            images[row, 0] = torch.from_numpy(np.ascontiguousarray(image))
            targets[row, 0] = torch.from_numpy(np.ascontiguousarray(target))
            samples.append(sample)
            centres.append(centre)
            jitter[row] = draw_jitter(config, rng)
        targets /= self.dataset.target_scale
        return Batch(
            images,
            targets,
            samples,
            centres,
            len(places) / config.batch_size,
            torch.from_numpy(jitter).float(),
            int(np.random.SeedSequence([config.seed, step, places.start]).generate_state(1)[0]),
        )

    def _crop(
        self, sample: FieldSample, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]]:
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
        position = self._position(sample, stain, rng)
        row, column = (int(size / 2 + p * (n - size)) for p, n in zip(position, image.shape, strict=True))
        image, stain = (cut(pixels, size, turn, position) for pixels in (image, stain))
        return (-image if turn.invert else image), stain, (row, column)

    def _position(
        self, sample: FieldSample, stain: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Where in the field a crop lies: anywhere, or for some crops the fullest of a few places."""
        position = rng.random(2)
        share = self.config.foreground_share
        if not share or rng.random() >= share:
            return position
        if sample.key not in self._foregrounds:
            self._foregrounds[sample.key] = foreground_map(stain)
        sums, size = self._foregrounds[sample.key], self.config.crop_size
        places = np.concatenate([position[None], rng.random((_PLACES - 1, 2))])
        corners = (places * [length - size for length in stain.shape] / _CELL).astype(int)
        side = max(1, size // _CELL)
        bottom, right = (np.minimum(corners[:, k] + side, sums.shape[k] - 1) for k in (0, 1))
        top, left = corners.T
        full = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return places[full.argmax()]

    def _draw_case(self, rng: np.random.Generator) -> Case | None:
        if not self._cases or rng.random() >= self.config.corruption.probability:
            return None
        kind = list(self._cases)[rng.integers(len(self._cases))]
        severity = self._cases[kind][rng.integers(len(self._cases[kind]))]
        if kind == "defocus" and self._is_dic:
            return Case(kind, severity, float(rng.choice(SIDES)))
        return Case(kind, severity)

    def _corrupt(self, sample: FieldSample, case: Case) -> NDArray[np.float32]:
        """The input made of the corrupted raw field; the clean one where nothing would be left."""
        kind, severity, side = case
        settings = self.config.corruption

        def make() -> NDArray[np.float32]:
            raw = self.dataset.raw(sample)
            if side:
                return self.dataset.prepare(sample, self._out_of_focus(raw, sample, severity, side))
            if clipped_share(raw, kind, severity, full_scale=settings.full_scale) > DESTROYED_SHARE:
                return self.dataset.image(sample)
            return self.dataset.prepare(sample, corrupt(raw, kind, severity, full_scale=settings.full_scale))

        return self._corrupted.get((sample.key, case), make)

    def _out_of_focus(
        self, raw: NDArray[Any], sample: FieldSample, severity: int, side: float
    ) -> NDArray[Any]:
        optics: dict[str, Any] = {
            "pixel_size_um": self.dataset.raw_pixel_size_um(sample),
            "numerical_aperture": self.config.corruption.numerical_aperture,
        }
        depth = side * depth_of_severity(severity, **optics)
        axis = self.config.shear_axis_degrees
        return interference_defocus(raw, depth, shear_axis_degrees=axis, **optics)


def foreground_map(stain: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of the stained share over all cells above and left, (H / 16 + 1, W / 16 + 1)."""
    height, width = (length // _CELL for length in stain.shape)
    stained = (stain[: height * _CELL, : width * _CELL] > 0).astype(np.float32)
    cells = stained.reshape(height, _CELL, width, _CELL).mean((1, 3))
    return np.pad(cells.cumsum(0).cumsum(1), ((1, 0), (1, 0)))


def draw_jitter(config: TrainingConfig, rng: np.random.Generator) -> tuple[float, float, float]:
    """Gain, offset and SD of the noise of one crop."""
    gain, offset, noise = rng.random(3)
    largest = config.intensity_jitter
    return math.exp(largest * (2 * gain - 1)), largest * (2 * offset - 1), config.noise * noise


def jittered(batch: Batch) -> Tensor:
    """The batch's inputs with their gain, offset and noise, all crops at once, on their device."""
    gain, offset, noise = (batch.jitter[:, k].view(-1, 1, 1, 1) for k in range(3))
    generator = torch.Generator(batch.images.device).manual_seed(batch.seed)
    # In place, because a sum with one number a crop forgets the layout, and convolutions are slower then.
    random = torch.empty_like(batch.images).normal_(generator=generator)
    return random.mul_(noise).add_(offset).addcmul_(batch.images, gain)


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
