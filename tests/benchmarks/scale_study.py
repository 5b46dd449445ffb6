"""The study's table 2: what is measured when cells are seen at another scale than a network was trained at.

    python tests/benchmarks/scale_study.py --work FOLDER [--seconds 300]
        [--train-plates 6] [--test-plates 4] [setting=value …]

Plates, split and scores are those of `quality.py` (the folder can be shared); every image is enlarged or
reduced. The network is not told the scale, the segmentation is: lengths are in µm. The last row is what the
platform does where the pixel size is known: the image is brought to the scale of the training first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from quality import agreement, options, plates, predicted, settings_of

from cellabel.datasets import build_dataset
from cellabel.datasets._resample import resample
from cellabel.networks import OrganelleModel
from cellabel.plates import Field, Plate
from cellabel.prediction import predict_image
from cellabel.training import TrainingConfig, train

STUDY = {
    "trained and predicted at 1.3": (0.987, 0.902, 0.922, 0.991),
    "trained and predicted at 0.7": (0.995, 0.88, 0.906, 0.992),
    "trained at 1.0 with scale augmentation, predicted at 1.3": (0.975, 0.861, 0.88, 0.961),
    "trained at 1.3, predicted at 1.0": (0.971, 0.856, 0.872, 0.952),
}
"""Number, total intensity, mean intensity, area: Pearson, from the study."""
METRICS = ("Nuclei_Count", "Nuclei_TotalIntensity", "Nuclei_MeanIntensity", "Nuclei_TotalArea")
WIDE = (0.7, 1.4)
NAME = "nuclei"


def zoomed(image: np.ndarray, factor: float) -> np.ndarray:
    """The view with `factor` times the pixels a side, of the same type."""
    shape = tuple(round(length * factor) for length in image.shape)
    return np.rint(resample(image, shape)).astype(image.dtype)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ScaledField:
    """A field under another magnification."""

    field: Field
    factor: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.field, name)

    def image(self, role: str, plane: str = "sharpest") -> np.ndarray:
        """(H, W) of the stored dtype."""
        return zoomed(self.field.image(role, plane), self.factor)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ScaledWell:
    """Its fields."""

    fields: dict[int, ScaledField]


class ScaledPlate:
    """A plate under another magnification, told its pixel size."""

    def __init__(self, plate: Plate, factor: float) -> None:
        self.plate, self.factor = plate, factor
        self.content_hash = f"{plate.content_hash}-{factor:g}"
        self.pixel_size_um = float(plate.pixel_size_um or 0.65) / factor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plate, name)

    @cached_property
    def wells(self) -> dict[str, ScaledWell]:
        """Name → well."""
        return {
            name: ScaledWell({site: ScaledField(f, self.factor) for site, f in well.fields.items()})
            for name, well in self.plate.wells.items()
        }

    def fields(self) -> Iterable[ScaledField]:
        """Every field."""
        return (field for well in self.wells.values() for field in well.fields.values())


def trained(arguments: argparse.Namespace, factor: float, config: TrainingConfig) -> OrganelleModel:
    """A model of plates at one scale; the test plates are held out."""
    tested = [ScaledPlate(one, factor) for one in plates(arguments, "test")]
    held_out = [(plate.plate_id, well) for plate in tested for well in plate.wells]
    known = [ScaledPlate(one, factor) for one in plates(arguments, "train")]
    dataset = build_dataset([*known, *tested], NAME, held_out=held_out)  # type: ignore[list-item]
    return train(dataset, config, progress=lambda told: print(f"  {told}", flush=True)).model


def told(model: OrganelleModel, plate: Plate, field: Field) -> np.ndarray:
    """The stain that a network predicts that is told the pixel size."""
    seen = field.image("transmitted")
    factor = float(plate.pixel_size_um) / model.config["pixel_size_um"]  # type: ignore[arg-type]
    shape = tuple(round(length * factor) for length in seen.shape)
    return resample(predict_image(model, resample(seen, shape)), seen.shape) * model.target_scale  # type: ignore[arg-type]


def pearsons(
    arguments: argparse.Namespace, model: OrganelleModel, factor: float, predict: Any = predicted
) -> list[float]:
    """Pearson of each metric over the test wells, predicted at a scale, which the network may be told."""
    tested = (ScaledPlate(one, factor) for one in plates(arguments, "test"))
    table, _ = agreement(model, tested, METRICS, predict)  # type: ignore[arg-type]
    return [float(table.loc[metric, "pearson"]) for metric in METRICS]


def main() -> None:
    chosen = options(__doc__, 300).parse_intermixed_args()
    settings = settings_of(chosen)
    usual, wide = TrainingConfig(**settings), TrainingConfig(**settings, scale_range=WIDE)
    large, small, middle = (
        trained(chosen, factor, config) for factor, config in ((1.3, usual), (0.7, usual), (1.0, wide))
    )
    found = dict(
        zip(
            STUDY,
            (
                pearsons(chosen, large, 1.3),
                pearsons(chosen, small, 0.7),
                pearsons(chosen, middle, 1.3),
                pearsons(chosen, large, 1.0),
            ),
            strict=True,
        )
    )
    found["trained at 1.3, predicted at 1.0, told the pixel size"] = pearsons(chosen, large, 1.0, told)
    names = ["number", "total intensity", "mean intensity", "area"]
    table = pd.DataFrame(found, index=names).T
    study = pd.DataFrame(STUDY, index=names).T.add_suffix(" (study)")
    print(f"Pearson over {chosen.test_plates * chosen.wells} wells; {json.dumps(settings)}")
    print(table.join(study).to_string(float_format="%.3f"))


if __name__ == "__main__":
    main()
