"""Every setting of a training, described; light to import, so that the site's settings can check theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cellabel.errors import InputError, did_you_mean
from cellabel.severities import KINDS, SEVERITIES

__all__ = ["Case", "CorruptionAugmentation", "TrainingConfig"]


class Case(NamedTuple):
    """A corruption: its kind and severity, and on which side of focus DIC is, and how far (0: table 5)."""

    kind: str
    severity: int
    side: float = 0.0


_SUBJECT = "The training setting"
_UNKNOWN = "There is no training setting"


@contextmanager
def _told_in_a_sentence(model: type[BaseModel]) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise InputError(_sentence(model, error)) from error


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    if reason.startswith((_SUBJECT, _UNKNOWN)):  # a setting within a setting has its sentence already
        return f"{reason}."
    if first["type"] == "extra_forbidden":
        return (
            f"{_UNKNOWN} {where}{did_you_mean(where, model.model_fields)}; "
            "cellabel.training.TrainingConfig lists them."
        )
    return f"{_SUBJECT} {where} cannot be {first['input']!r}: {reason[0].lower()}{reason[1:]}."


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, **values: Any) -> None:
        with _told_in_a_sentence(type(self)):
            super().__init__(**values)

    @classmethod
    def model_validate(cls, obj: Any, **arguments: Any) -> Self:
        """As pydantic's, with an `InputError` for what is wrong."""
        with _told_in_a_sentence(cls):
            return super().model_validate(obj, **arguments)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **arguments: Any) -> Self:
        """As pydantic's, with an `InputError` for what is wrong."""
        with _told_in_a_sentence(cls):
            return super().model_validate_json(json_data, **arguments)


class CorruptionAugmentation(_Settings):
    """Which corruptions (method, table 5) are mixed into the training crops."""

    probability: float = Field(0.0, ge=0, le=1, description="Share of the crops cut from a corrupted field.")
    kinds: tuple[str, ...] = Field(KINDS, description="Kinds of corruption, all equally likely.")
    severities: tuple[int, ...] = Field(
        tuple(range(-5, 6)),
        description="Severities of table 5; each kind takes those that it knows, but not 0.",
    )
    full_scale: float | None = Field(
        None, gt=0, description="The instrument's range; None: 255 for 8-bit and 65535 for 16-bit images."
    )
    numerical_aperture: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Of the objective: in DIC most defocused fields are then out of focus as its optics show "
        "it, on either side; None: all of them as table 5's disk blurs.",
    )

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"there is no corruption {unknown[0]!r}, only {', '.join(KINDS)}")
        return kinds

    def cases(self) -> dict[str, list[int]]:
        """Kind → severities that are drawn from."""
        known = {kind: [s for s in self.severities if s and s in SEVERITIES[kind]] for kind in self.kinds}
        return {kind: severities for kind, severities in known.items() if severities}


class TrainingConfig(_Settings):
    """How a network is trained. The defaults train a small network in about a minute on two cores."""

    max_steps: int = Field(300, ge=1, description="Number of optimiser steps.")
    epochs: float | None = Field(
        None, gt=0, description="Instead of max_steps: passes over the fields, crops_per_field crops each."
    )
    crops_per_field: int = Field(64, ge=1, description="Crops of a field that make one epoch.")
    batch_size: int = Field(8, ge=1, description="Crops in a step, over all devices.")
    accumulation: int = Field(
        1, ge=1, description="Parts in which a step's crops pass the network: less memory, the same step."
    )
    crop_size: int = Field(128, ge=16, description="Side of a crop, px.")

    learning_rate: float = Field(3e-3, gt=0, description="Highest learning rate.")
    optimiser: Literal["adam", "adamw", "sgd", "adadelta"] = Field("adamw", description="Optimiser.")
    weight_decay: float = Field(1e-4, ge=0, description="Decay of the weights.")
    scheduler: Literal["one_cycle", "cosine", "constant"] = Field(
        "one_cycle", description="Course of the learning rate: up and down, down, or constant."
    )
    warm_up: float = Field(0.2, ge=0, lt=1, description="Share of the training over which one_cycle rises.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Decay of the weights' running mean, which is kept instead; None: none."
    )
    keep_initial: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Share of the initial weights in the result of a training that starts from a model.",
    )
    losses: dict[str, float] | None = Field(
        None, description="Loss name → weight (LOSSES); None: the organelle's recipe."
    )

    base_channels: int = Field(16, ge=1, description="Channels of the network's first step.")
    depth: int = Field(4, ge=1, le=8, description="Poolings of the network.")
    activation: str = Field("elu", description="Activation of the network.")
    norm: str = Field("batch", description="Normalisation of the network: batch or none.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of feature maps dropped while training.")
    initialisation: str = Field("default", description="Initial weights, one of INITIALISATIONS.")
    upsampling: str = Field("transposed", description="Way up of the network: transposed or resize.")
    block: int = Field(
        1, ge=1, description="Side of the squares of pixels that enter as channels: 2 quarters the work."
    )

    seed: int = Field(0, ge=0, description="Of weights, crops and augmentations.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of the convolutions; auto takes bf16 where it is faster."
    )
    num_threads: int | None = Field(None, ge=1, description="CPU threads; None: as they are set.")
    devices: int = Field(1, ge=1, description="GPUs, or processes on the CPU, that share a step's crops.")

    modality: Literal["dic", "other"] = Field(
        "dic", description="dic: only turns and mirrors that keep the relief's direction; other: all of them."
    )
    shear_axis_degrees: Literal[45, 135] = Field(
        45, description="Axis of the DIC relief: 45 from top left to bottom right, 135 across it."
    )
    augment: bool = Field(True, description="Whether crops are mirrored, turned, rotated and scaled.")
    rotation_degrees: float | None = Field(
        None, ge=0, le=180, description="Largest rotation; None: 5 for dic, 180 for other."
    )
    scale_range: tuple[float, float] = Field((0.9, 1.1), description="Smallest and largest magnification.")
    warp_probability: float = Field(
        0.5, ge=0, le=1, description="Share of crops that are rotated and scaled, cut from the whole field."
    )
    foreground_share: float = Field(
        0.0, ge=0, le=1, description="Share of crops laid where the stain is: the fullest of four places."
    )
    intensity_jitter: float = Field(
        0.0, ge=0, le=1, description="Largest change of a crop's gain (as log) and offset (its own units)."
    )
    noise: float = Field(0.0, ge=0, le=2, description="Largest SD of noise added to a crop, its own units.")
    corruption: CorruptionAugmentation = Field(
        default_factory=CorruptionAugmentation, description="Corruptions mixed into the training."
    )

    validations: int = Field(5, ge=1, description="How often the validation fields are predicted.")
    validation_megapixels: float = Field(
        1.0, gt=0, description="Pixels that a validation may take, millions."
    )
    monitor: Literal["loss", "pearson", "downstream"] = Field(
        "loss",
        description="What chooses the best weights and stops early: the validation loss, pixel Pearson, or "
        "the error of what is measured on the segmented validation fields.",
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Validations without improvement after which training ends; None: never."
    )
    time_limit_s: float | None = Field(
        None, gt=0, description="Seconds for the loop; the learning rate comes down in time. None: no limit."
    )
    enable_progress_bar: bool = Field(False, description="Whether Lightning draws a progress bar.")

    @field_validator("scale_range")
    @classmethod
    def _ordered(cls, scales: tuple[float, float]) -> tuple[float, float]:
        if not 0.1 <= scales[0] <= scales[1] <= 10:
            raise ValueError("it needs two magnifications between 0.1 and 10, the smaller first")
        return scales

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_size < self.devices * self.accumulation:
            raise ValueError(
                f"{_SUBJECT} batch_size cannot be {self.batch_size}: {self.devices} devices times "
                f"{self.accumulation} parts need at least {self.devices * self.accumulation} crops"
            )
        return self

    def architecture(self) -> dict[str, Any]:
        """The arguments of `UNet` among the settings."""
        names = (
            "base_channels",
            "depth",
            "activation",
            "norm",
            "dropout",
            "initialisation",
            "upsampling",
            "block",
        )
        return {name: getattr(self, name) for name in names}

    def steps(self, n_fields: int) -> int:
        """Optimiser steps for so many training fields."""
        if self.epochs is None:
            return self.max_steps
        return max(1, round(self.epochs * n_fields * self.crops_per_field / self.batch_size))
