"""What a model does with fields that it has not learnt from, as they are and made worse."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.corruptions import DESTROYED_SHARE, SEVERITIES, corrupt, exposure, pupil_defocus
from cellabel.evaluation import CLEAN, downstream_metrics, well_errors
from cellabel.loop.embeddings import embedding_columns, field_embedding
from cellabel.loop.stains import stained
from cellabel.measurement import measure_field, measure_well
from cellabel.networks import OrganelleModel
from cellabel.organelles import REFERENCE_PIXEL_SIZE_UM, Organelle, organelle
from cellabel.plates import Field, Plate
from cellabel.prediction import predict_stain, segment_prediction

__all__ = [
    "Condition",
    "HeldOut",
    "LabelledField",
    "evaluate_model",
    "exposure_conditions",
    "gate_conditions",
    "harm_conditions",
    "meant_for",
    "of_another_implementation",
    "read_held_out",
    "sample_of_wells",
    "table_conditions",
]

Condition = Callable[[NDArray], NDArray] | None
WELL = ("Metadata_Plate", "Metadata_Well", "Metadata_Clone")
HARM = {"defocus": (2, 3, 5), "contrast": (-2,), "brightness": (-2,)}
_NO_FEATURE = ["side", "condition", "pixel_pearson", "clipped_share", "Metadata_Instrument"]


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


_KEPT = ("measured.parquet", "embeddings.parquet")


@dataclass(frozen=True)
class HeldOut:
    """Measurements and embeddings of fields under several conditions.

    Attributes:
        measured: one row a field, condition and side ("true" or "predicted"); the features, and for the
            predicted side `pixel_pearson` over all pixels and `clipped_share`, the pixels that the condition
            drove to the ends of the instrument's range.
        embeddings: one row a field and condition: e000 … .
    """

    measured: pd.DataFrame
    embeddings: pd.DataFrame

    def keep(self, folder: Path) -> None:
        """Leave both tables in a folder, for `read_held_out`."""
        for table, name in zip((self.measured, self.embeddings), _KEPT, strict=True):
            table.to_parquet(folder / name, index=False)

    def wells(self, side: str, condition: str = CLEAN) -> pd.DataFrame:
        """One row a well, of one side and condition."""
        rows = self.measured[(self.measured["side"] == side) & (self.measured["condition"] == condition)]
        return measure_well(rows.drop(columns=_NO_FEATURE, errors="ignore"), by=WELL)

    def errors(self, metrics: Sequence[str], condition: str = CLEAN) -> pd.DataFrame:
        """The log errors of the wells of one condition; see `cellabel.evaluation.well_errors`."""
        true, predicted = self.pair(condition)
        return well_errors(true, predicted, metrics)

    def pair(self, condition: str = CLEAN) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The wells of one condition, stained and predicted."""
        predicted = self.wells("predicted", condition)
        true = self.wells("true")
        known = pd.MultiIndex.from_frame(predicted[list(WELL[:2])])
        return true[pd.MultiIndex.from_frame(true[list(WELL[:2])]).isin(known)], predicted

    @property
    def conditions(self) -> list[str]:
        """The conditions that were measured, clean first."""
        rows = self.measured[self.measured["side"] == "predicted"]
        return [str(name) for name in rows["condition"].unique()]

    @property
    def destroyed(self) -> list[str]:
        """Conditions that leave too little of an image to judge by."""
        if "clipped_share" not in self.measured:
            return []
        clipped = self.measured.groupby("condition")["clipped_share"].mean()
        return [str(name) for name in clipped.index[clipped > DESTROYED_SHARE]]

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


def exposure_conditions(shares: Sequence[float]) -> dict[str, Condition]:
    """What the gate judges brightness and contrast by: less or more light on the sample."""

    def lit(share: float) -> Condition:
        return lambda image: exposure(image, share, full_scale=full_scale(image))

    return {f"exposure × {share:g}": lit(share) for share in shares}


def of_another_implementation(condition: str) -> bool:
    """Whether a condition is made by other physics than the training's augmentation."""
    return condition.endswith("µm") or condition.startswith("exposure")


def meant_for(kind: str, conditions: Iterable[str]) -> list[str]:
    """The conditions that a model trained against a kind of corruption is meant to withstand."""
    families = {"": (), "contrast": ("contrast", "exposure"), "brightness": ("brightness", "exposure")}
    return [name for name in conditions if name.startswith(families.get(kind, (kind,)))]


def harm_conditions() -> dict[str, Condition]:
    """What the estimate of harm is calibrated on: corruptions of table 5, mild and strong."""
    return _table(HARM)


def table_conditions() -> dict[str, Condition]:
    """Every corruption and severity of table 5 but those that change nothing."""
    return _table({kind: [one for one in known if one] for kind, known in SEVERITIES.items()})


def _table(chosen: Mapping[str, Iterable[int]]) -> dict[str, Condition]:
    def corrupted(kind: str, severity: int) -> Condition:
        return lambda image: corrupt(image, kind, severity, full_scale=full_scale(image))

    return {
        f"{kind} {severity:+d}": corrupted(kind, severity)
        for kind, severities in chosen.items()
        for severity in severities
    }


def sample_of_wells(
    fields: Sequence[LabelledField], most: int, *, every_plate: bool = False
) -> list[LabelledField]:
    """Fields of whole wells, at most so many of them, spread evenly over plates; always the same ones.

    Args:
        fields: to choose from.
        most: fields; none where it is 0.
        every_plate: one well of every plate, however many they are.
    """
    wells: dict[tuple[str, str], list[LabelledField]] = {}
    for one in fields:
        wells.setdefault((one.field.plate_id, one.field.well), []).append(one)
    by_plate = [list(group) for _, group in itertools.groupby(sorted(wells), key=lambda key: key[0])]
    for group in by_plate:
        group.sort(key=lambda key: hashlib.sha256("/".join(key).encode()).digest())
    chosen: list[LabelledField] = []
    for turn, keys in enumerate(itertools.zip_longest(*by_plate)):
        needed = every_plate and turn == 0 and most > 0
        for key in filter(None, keys):
            if len(chosen) + len(wells[key]) > most and not needed:
                return chosen
            chosen += wells[key]
    return chosen


def full_scale(image: NDArray) -> float:
    """The instrument's range of an image of whole numbers, else its maximum."""
    if np.issubdtype(image.dtype, np.integer):
        return float(np.iinfo(image.dtype).max)
    return float(image.max())


def read_held_out(folder: Path) -> HeldOut:
    """What `HeldOut.keep` left in the folder of a version when it was trained."""
    return HeldOut(*(pd.read_parquet(folder / name) for name in _KEPT))


def evaluate_model(
    model: OrganelleModel,
    fields: Sequence[LabelledField],
    conditions: Mapping[str, Condition] | Callable[[Plate], Mapping[str, Condition]],
    *,
    measure: bool = True,
) -> HeldOut:
    """Predict, segment and measure fields under each condition, and measure their stain once.

    Args:
        model: the model.
        fields: stained fields.
        conditions: name → what is done to the raw image, None for nothing; or what gives them for a plate.
        measure: False gives embeddings only, in a fraction of the time.
    """
    recipe = organelle(model.organelle)
    measured: list[dict[str, object]] = []
    embeddings: list[dict[str, object]] = []
    for labelled in fields:
        raw = labelled.field.image("transmitted")
        pixel = labelled.plate.pixel_size_um
        truth = stained(labelled.field, labelled.plate, recipe) if measure else None
        if truth is not None:
            row = {**labelled.key, "side": "true", "condition": CLEAN}
            measured.append(row | _features(truth.labels, truth.target, recipe, pixel))
        tried = conditions(labelled.plate) if callable(conditions) else conditions
        for name, change in tried.items():
            seen = raw if change is None else change(raw)
            prediction = predict_stain(model, seen, pixel_size_um=pixel)
            image = prediction.image
            embedding = field_embedding(prediction.embedding, prediction.foreground_embedding)
            embeddings.append({**labelled.key, "condition": name, **embedding_columns(embedding)})
            if truth is None:
                continue
            row = {**labelled.key, "side": "predicted", "condition": name}
            labels = segment_prediction(image, model, pixel_size_um=pixel)
            row |= _features(labels, image, recipe, pixel)
            row |= {"pixel_pearson": _pearson(truth.target, image), "clipped_share": _clipped(raw, seen)}
            measured.append(row)
    return HeldOut(pd.DataFrame(measured), pd.DataFrame(embeddings))


def _features(
    labels: NDArray, image: NDArray, recipe: Organelle, pixel_size_um: float | None
) -> dict[str, object]:
    return dict(measure_field(labels, image, organelle=recipe.name, pixel_size_um=pixel_size_um).iloc[0])


def _clipped(raw: NDArray, seen: NDArray) -> float:
    """Share of the pixels that are at an end of the range and were not before."""
    if seen is raw:
        return 0.0
    scale = full_scale(raw)
    return float(np.mean(((seen <= 0) | (seen >= scale)) & (raw > 0) & (raw < scale)))


def _pearson(truth: NDArray, image: NDArray) -> float:
    if truth.std() == 0 or image.std() == 0:
        return float("nan")
    return float(np.corrcoef(truth.ravel(), image.ravel())[0, 1])
