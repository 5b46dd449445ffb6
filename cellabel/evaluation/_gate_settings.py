"""What the gate between challenger and champion asks for."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class GateSettings(BaseModel):
    """What the gate asks for; the defaults are the rules, a demonstration may lower them visibly."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_plates: int = Field(4, ge=1, description="Held-out plates below which nothing is promoted.")
    min_wells: int = Field(24, ge=2, description="Held-out wells below which nothing is promoted.")
    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="One-sided error of each bound at the first use of a test set."
    )
    max_reuse: int = Field(
        5, ge=1, description="Earlier uses of the same test set after which a fresh stained plate is needed."
    )
    deltas: dict[str, float] = Field(
        default_factory=dict,
        description="Metric → margin in log units; absent: from replicate wells, at most the two below.",
    )
    replicate_share: float = Field(
        0.25, gt=0, description="Delta as a share of the standard deviation of replicate wells."
    )
    max_delta_shape: float = Field(0.02, gt=0, description="Largest delta of counts and areas.")
    max_delta_intensity: float = Field(0.05, gt=0, description="Largest delta of intensities.")
    min_improvement: float = Field(
        0.10,
        ge=0,
        lt=1,
        description="Least relative fall of the error where the challenger should be better.",
    )
    max_other_deltas: float = Field(2.0, gt=0, description="Deltas by which another condition may be worse.")
    max_plate_deltas: float = Field(3.0, gt=0, description="Deltas by which a single plate may be worse.")
    first_max_error: float = Field(
        0.69,
        gt=0,
        description="Largest median |log error| of a first model, per metric (0.69: a factor of 2).",
    )
    units: Literal["auto", "plates", "wells"] = Field(
        "auto",
        description="What varies: plates, or wells within these plates; auto: wells for a single plate.",
    )
    n_resamples: int = Field(4000, ge=200, description="Bootstrap replicates (ten plates or more).")
    seed: int = Field(0, description="Seed of the bootstrap.")
