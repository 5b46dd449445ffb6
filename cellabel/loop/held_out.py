"""What a model does with fields that it has not learnt from, as they are and made worse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.corruptions import corrupt, pupil_defocus
from cellabel.evaluation import CLEAN, downstream_metrics, well_errors
from cellabel.loop.embeddings import embedding_columns, field_embedding
from cellabel.loop.stains import stained
from cellabel.measurement import measure_field, measure_well
from cellabel.networks import OrganelleModel
from cellabel.organelles import REFERENCE_PIXEL_SIZE_UM, Organelle, organelle
from cellabel.plates import Field, Plate
from cellabel.segmentation import segment

__all__ = ["Condition", "HeldOut", "LabelledField", "evaluate_model", "gate_conditions", "harm_conditions"]

Condition = Callable[[NDArray], NDArray] | None
WELL = ("Metadata_Plate", "Metadata_Well", "Metadata_Clone")


@dataclass(frozen=True)
class LabelledField:
    """A field with a stain, and what the plan says of it."""

    field: Field
    plate: Plate
    clone: str

    @classmethod
    def of(cls, plate: Plate, well: str, site: int) -> LabelledField:
        """A field of a plate; where no plan names the clone, it is unknown ("")."""
        plan = plate.plan
        known = plan is not None and "clone" in plan and well in plan.index
        clone = str(plan.loc[well, "clone"]) if plan is not None and known else ""
        return cls(plate.wells[well].fields[site], plate, clone)

    @property
    def key(self) -> dict[str, object]:
        """The columns that identify it."""
        return {
            "Metadata_Plate": self.field.plate_id,
            "Metadata_Well": self.field.well,
            "Metadata_Site": self.field.site,
            "Metadata_Clone": self.clone,
            "Metadata_Instrument": self.plate.instrument,
        }


@dataclass(frozen=True)
class HeldOut:
    """Measurements and embeddings of fields under several conditions.

    Attributes:
        measured: one row a field, condition and side ("true" or "predicted"); the features, and for the
            predicted side `pixel_pearson` over all pixels.
        embeddings: one row a field and condition: e000 … .
    """

    measured: pd.DataFrame
    embeddings: pd.DataFrame

    def wells(self, side: str, condition: str = CLEAN) -> pd.DataFrame:
        """One row a well, of one side and condition."""
        rows = self.measured[(self.measured["side"] == side) & (self.measured["condition"] == condition)]
        features = rows.drop(columns=["side", "condition", "pixel_pearson", "Metadata_Instrument"])
        return measure_well(features, by=WELL)

    def errors(self, metrics: Sequence[str], condition: str = CLEAN) -> pd.DataFrame:
        """The log errors of one condition; see `cellabel.evaluation.well_errors`."""
        return well_errors(self.wells("true"), self.wells("predicted", condition), metrics)

    def corrupted_errors(self, metrics: Sequence[str], conditions: Iterable[str]) -> pd.DataFrame:
        """The log errors of several conditions, with a column `condition`."""
        parts = [self.errors(metrics, condition).assign(condition=condition) for condition in conditions]
        return pd.concat(parts, ignore_index=True)

    def agreement(self) -> pd.DataFrame:
        """Downstream metrics over the clean wells."""
        return downstream_metrics(self.wells("true"), self.wells("predicted"))

    def pixel_pearson(self, condition: str = CLEAN) -> float:
        """Mean over fields of the correlation over all pixels."""
        rows = self.measured[
            (self.measured["side"] == "predicted") & (self.measured["condition"] == condition)
        ]
        return float(rows["pixel_pearson"].mean())


def gate_conditions(
    defocus_um: Sequence[float], numerical_aperture: float, plate: Plate
) -> dict[str, Condition]:
    """What the gate judges robustness by: defocus by the pupil, never by the augmentation's own blur."""
    pixel = plate.pixel_size_um or REFERENCE_PIXEL_SIZE_UM

    def defocused(depth: float) -> Condition:
        return lambda image: pupil_defocus(
            image, depth, pixel_size_um=pixel, numerical_aperture=numerical_aperture
        )

    return {f"defocus {depth:g} µm": defocused(depth) for depth in defocus_um}


def harm_conditions() -> dict[str, Condition]:
    """What the estimate of harm is calibrated on: corruptions of table 5, mild and strong."""
    chosen = {"defocus": (2, 3, 5), "contrast": (-2,), "brightness": (-2,)}

    def corrupted(kind: str, severity: int) -> Condition:
        return lambda image: corrupt(image, kind, severity, full_scale=full_scale(image))

    return {
        f"{kind} {severity:+d}": corrupted(kind, severity)
        for kind, severities in chosen.items()
        for severity in severities
    }


def full_scale(image: NDArray) -> float:
    """The instrument's range of an image of whole numbers, else its maximum."""
    if np.issubdtype(image.dtype, np.integer):
        return float(np.iinfo(image.dtype).max)
    return float(image.max())


def evaluate_model(
    model: OrganelleModel,
    fields: Sequence[LabelledField],
    conditions: Mapping[str, Condition],
    *,
    measure: bool = True,
) -> HeldOut:
    """Predict, segment and measure fields under each condition, and measure their stain once.

    Args:
        model: the model.
        fields: stained fields.
        conditions: name → what is done to the raw image, None for nothing.
        measure: False gives embeddings only, in a fraction of the time.
    """
    recipe = organelle(model.organelle)
    measured: list[dict[str, object]] = []
    embeddings: list[dict[str, object]] = []
    for labelled in fields:
        raw = labelled.field.image("transmitted")
        pixel = labelled.plate.pixel_size_um
        truth = stained(labelled.field, recipe, pixel) if measure else None
        if truth is not None:
            row = {**labelled.key, "side": "true", "condition": CLEAN}
            measured.append(row | _features(truth.labels, truth.target, recipe, pixel))
        for name, change in conditions.items():
            image, embedding = predict_field(model, raw if change is None else change(raw), labelled.plate)
            embeddings.append({**labelled.key, "condition": name, **embedding_columns(embedding)})
            if truth is None:
                continue
            row = {**labelled.key, "side": "predicted", "condition": name}
            labels = segment(image, recipe, pixel_size_um=pixel, floor=model.floor)
            row |= _features(labels, image, recipe, pixel)
            measured.append(row | {"pixel_pearson": _pearson(truth.target, image)})
    return HeldOut(pd.DataFrame(measured), pd.DataFrame(embeddings))


def predict_field(
    model: OrganelleModel, raw: NDArray, plate: Plate
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The predicted stain in its own units (or a probability), and the field's embedding."""
    from cellabel.prediction import predict_image

    prediction = predict_image(model, raw, return_embeddings=True)
    return prediction.image * model.target_scale, field_embedding(
        prediction.embedding, prediction.foreground_embedding
    )


def _features(
    labels: NDArray, image: NDArray, recipe: Organelle, pixel_size_um: float | None
) -> dict[str, object]:
    return dict(measure_field(labels, image, organelle=recipe.name, pixel_size_um=pixel_size_um).iloc[0])


def _pearson(truth: NDArray, image: NDArray) -> float:
    if truth.std() == 0 or image.std() == 0:
        return float("nan")
    return float(np.corrcoef(truth.ravel(), image.ravel())[0, 1])
