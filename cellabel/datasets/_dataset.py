"""A data set: addresses on three sides, one constant scale, and the pixels on demand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cellabel.datasets._cache import ImageCache
from cellabel.datasets._resample import resample, same_pixel_size
from cellabel.datasets._samples import FieldSample, LabelledPlate, LeftOut, stain_of
from cellabel.datasets._split import Split, fold_samples
from cellabel.errors import InputError
from cellabel.organelles import REFERENCE_PIXEL_SIZE_UM, Organelle
from cellabel.organelles import organelle as recipe_of
from cellabel.plates import registered
from cellabel.preprocessing import prepare_input, prepare_target

CACHE_BYTES = 2_000_000_000
_SCALE_PERCENTILE = 99.9
_SCALE_FIELDS = 64
_SCALE_PIXELS = 65_536


class Dataset:
    """Fields to train, validate and test on, with their prepared images.

    Made by `build_dataset`, `Dataset.from_manifest` and `fold`.

    Attributes:
        organelle: name of the recipe.
        recipe: the recipe.
        train, validation, test: addresses, in order.
        split_by: what test and training share none of: "clone and plate", "plate", "clone" or "well".
        split_description: how they were parted, in a sentence.
        left_out: fields that were not used, and why.
        target_scale: stain units per network unit, one constant; 1 for binary targets.
        pixel_size_um: of every image that is given out, µm.
        folds: number of cross-validation folds, or None.
        version: digest of the plates' content, recipe, split and scale.
    """

    def __init__(
        self,
        plates: Sequence[LabelledPlate],
        recipe: Organelle,
        split: Split,
        *,
        held_out: Iterable[tuple[str, str]] = (),
        left_out: Sequence[LeftOut] = (),
        target_scale: float | None = None,
        folds: int | None = None,
        seed: int = 0,
        cache: ImageCache | None = None,
    ) -> None:
        self.recipe = recipe
        self.organelle = recipe.name
        self.train, self.validation, self.test = split.train, split.validation, split.test
        self.split_by, self.split_description = split.by, split.description
        self.left_out = list(left_out)
        self.folds = folds
        self.seed = seed
        self._frozen = {(str(plate), str(well)) for plate, well in held_out}
        self._plates = {plate.plate_id: plate for plate in plates}
        self._cache = cache if cache is not None else ImageCache(CACHE_BYTES)
        self.pixel_size_um = _common_pixel_size(plates)
        self.target_scale = self._measure_scale() if target_scale is None else float(target_scale)
        self.version = self.manifest()["version"]

    def __repr__(self) -> str:
        counts = f"{len(self.train)} + {len(self.validation)} + {len(self.test)} fields"
        return f"<Dataset {self.organelle} {self.version}: {counts}>"

    @property
    def held_out(self) -> list[tuple[str, str]]:
        """(plate, well) that no later version may train on: hand it to the next `build_dataset`."""
        return sorted(self._frozen | {sample.place for sample in self.test})

    @property
    def binary(self) -> bool:
        """Whether the target is a mask."""
        return self.recipe.target == "binary"

    def raw(self, sample: FieldSample) -> NDArray[Any]:
        """The transmitted-light image (H, W) as stored, at the plate's own pixel size."""
        return self._field(sample).image("transmitted")

    def raw_pixel_size_um(self, sample: FieldSample) -> float:
        """Of the raw image, µm; the reference's where the plate does not tell its own."""
        return self._plates[sample.plate_id].pixel_size_um or REFERENCE_PIXEL_SIZE_UM

    def image(self, sample: FieldSample) -> NDArray[np.float32]:
        """The network's input (H, W) float32, read-only."""
        return self._cache.get(("image", sample.key), lambda: self.prepare(sample, self.raw(sample)))

    def prepare(self, sample: FieldSample, raw: NDArray[Any]) -> NDArray[np.float32]:
        """The network's input (H, W) float32 from a raw image of this field, perhaps a corrupted one."""
        with _naming(sample):
            return self._resampled(sample, prepare_input(raw))

    def stain(self, sample: FieldSample) -> NDArray[np.float32]:
        """The prepared target (H, W) float32, read-only: in stain units, or 0 and 1."""
        return self._cache.get(("stain", sample.key), lambda: self._prepare_stain(sample))

    def target(self, sample: FieldSample) -> NDArray[np.float32]:
        """What is to be predicted, (H, W) float32: the stain over `target_scale`, or 0 and 1."""
        return self.stain(sample) / np.float32(self.target_scale)

    def fold(self, index: int) -> Dataset:
        """The data set of one cross-validation fold: its test is the group left out, the rest trains.

        Raises:
            InputError: the data set was built without folds, or there is no such fold.
        """
        if self.folds is None:
            raise InputError("This data set has no folds; build it with folds=3, or another number.")
        samples = sorted({*self.train, *self.validation, *self.test})
        split = fold_samples(
            [s for s in samples if s.place not in self._frozen], self.folds, index, self.seed
        )
        return Dataset(
            list(self._plates.values()),
            self.recipe,
            split,
            held_out=self._frozen,
            left_out=self.left_out,
            seed=self.seed,
            cache=self._cache,
        )

    def manifest(self) -> dict[str, Any]:
        """All but the pixels, as JSON can hold it; `from_manifest` brings the data set back."""
        content = {
            "organelle": self.organelle,
            "recipe": _recipe_digest(self.recipe),
            "plates": {name: plate.content_hash for name, plate in sorted(self._plates.items())},
            "train": [list(astuple(sample)) for sample in self.train],
            "validation": [list(astuple(sample)) for sample in self.validation],
            "test": [list(astuple(sample)) for sample in self.test],
            "target_scale": self.target_scale,
            "pixel_size_um": self.pixel_size_um,
        }
        return content | {
            "version": _digest(content),
            "split_by": self.split_by,
            "split_description": self.split_description,
            "held_out": [list(place) for place in self.held_out],
            "held_out_before": [list(place) for place in sorted(self._frozen)],
            "left_out": [list(row) for row in self.left_out],
            "folds": self.folds,
            "seed": self.seed,
        }

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], open_plate: Callable[[str], LabelledPlate]) -> Self:
        """The data set that a manifest describes.

        Args:
            manifest: what `manifest()` gave.
            open_plate: plate id → plate.

        Raises:
            InputError: a plate or the recipe is no longer what it was.
        """
        recipe = recipe_of(manifest["organelle"])
        if _recipe_digest(recipe) != manifest["recipe"]:
            raise InputError(f"The recipe of {recipe.name} has changed since this data set; build it anew.")
        plates = [open_plate(name) for name in manifest["plates"]]
        for plate in plates:
            if plate.content_hash != manifest["plates"][plate.plate_id]:
                raise InputError(
                    f"Plate {plate.plate_id!r} has changed since this data set was built; build it anew."
                )
        train, validation, test = (
            [FieldSample(*row) for row in manifest[side]] for side in ("train", "validation", "test")
        )
        return cls(
            plates,
            recipe,
            Split(train, validation, test, manifest["split_by"], manifest["split_description"]),
            held_out=[(plate, well) for plate, well in manifest["held_out_before"]],
            left_out=[LeftOut(*row) for row in manifest["left_out"]],
            target_scale=manifest["target_scale"],
            folds=manifest["folds"],
            seed=manifest["seed"],
        )

    def _field(self, sample: FieldSample) -> Any:
        return self._plates[sample.plate_id].wells[sample.well].fields[sample.site]

    def _prepare_stain(self, sample: FieldSample) -> NDArray[np.float32]:
        field, plate = self._field(sample), self._plates[sample.plate_id]
        stain = stain_of(field.roles, self.recipe)
        if stain is None:
            raise InputError(f"Field {sample.key} has no {self.organelle} stain; build the data set anew.")
        pixels = registered(plate, field.image(stain, self.recipe.plane), stain)
        with _naming(sample):
            target = prepare_target(pixels, self.recipe, pixel_size_um=plate.pixel_size_um)
        # What rounding leaves of a subtracted background is no stain.
        target[target < 16 * np.finfo(np.float32).eps * np.abs(pixels).max()] = 0
        target = self._resampled(sample, target)
        return np.asarray(target >= 0.5, np.float32) if self.binary else target

    def _resampled(self, sample: FieldSample, image: NDArray[np.float32]) -> NDArray[np.float32]:
        size = self.raw_pixel_size_um(sample)
        if same_pixel_size(size, self.pixel_size_um):
            return image
        factor = size / self.pixel_size_um
        height, width = (max(1, round(length * factor)) for length in image.shape)
        return resample(image, (height, width))

    def _measure_scale(self) -> float:
        """A high percentile of the training targets, over all of them at once."""
        fields = self.train[:: -(-len(self.train) // _SCALE_FIELDS)]
        pixels = []
        for sample in fields:
            stain = self.stain(sample)
            pixels.append(stain.ravel()[:: -(-stain.size // _SCALE_PIXELS)])
        pooled = np.concatenate(pixels)
        highest = float(pooled.max())
        if not highest > 0:
            raise InputError(
                f"The {self.organelle} target is empty in all {len(fields)} training fields looked at; "
                "check that the stain's channel is the right one."
            )
        return 1.0 if self.binary else float(np.percentile(pooled, _SCALE_PERCENTILE)) or highest


@contextmanager
def _naming(sample: FieldSample) -> Iterator[None]:
    """Adds the field's address to what is wrong with its image."""
    try:
        yield
    except InputError as error:
        where = f"Plate {sample.plate_id}, well {sample.well}, site {sample.site}"
        raise InputError(f"{where}: {error}") from error


def _common_pixel_size(plates: Sequence[LabelledPlate]) -> float:
    """The pixel size that most plates have, the smallest of equally frequent ones."""
    sizes = [float(plate.pixel_size_um or REFERENCE_PIXEL_SIZE_UM) for plate in plates]
    return min(sizes, key=lambda size: (-sizes.count(size), size))


def _recipe_digest(recipe: Organelle) -> str:
    """Changes when anything that shapes the target changes."""
    steps = [[step.function, dict(step.parameters)] for step in recipe.preprocessing]
    return _digest([recipe.name, list(recipe.stains), recipe.target, steps])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
