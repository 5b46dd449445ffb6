"""The recipes: one declarative entry an organelle. Lengths are in µm, areas in µm²."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from cellabel.errors import InputError

__all__ = ["ORGANELLES", "REFERENCE_PIXEL_SIZE_UM", "Organelle", "Step", "organelle"]

REFERENCE_PIXEL_SIZE_UM = 0.65
"""The pixel size that is meant where none is given (a 10× objective on a 6.5 µm camera)."""


@dataclass(frozen=True)
class Step:
    """One named operation of a recipe and its parameters; parameters that end in `_um` are lengths.

    `function` is a key of `cellabel.preprocessing.STEPS` or `cellabel.segmentation.STEPS`.
    """

    function: str
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def __reduce__(self) -> tuple[type[Step], tuple[str, dict[str, Any]]]:
        """A proxy cannot be sent to another process; a step can."""
        return type(self), (self.function, dict(self.parameters))


@dataclass(frozen=True)
class Organelle:
    """How one stain is prepared, learnt, segmented and measured.

    Attributes:
        name: first part of the asset keys and of the registered model's name.
        prefix: prefix of its feature columns.
        description: one sentence for the graph and the model card.
        stains: channel roles or names that show it, the first one preferred.
        target: "continuous" (the network predicts an intensity) or "binary" (a probability).
        preprocessing: stain → target, before the constant scaling of continuous targets.
        losses: loss name → weight (names of `cellabel.training.LOSSES`).
        segmentation: target or prediction → labels.
        primary_metrics: well features that the promotion gate judges.
        plausible: well feature → (lower, upper) outside of which a table is flagged.
        largest_errors: well feature → median |log error| against the stain above which a table is an error
            and no version is promoted; features that are not named may be off by a factor of 2.
        floor: least height of an object in a continuous prediction, as a share of the data set's one constant
            scale: below it lies nothing, however smooth the prediction of an empty field is.
        plane: of a stain's focus series: the sharpest plane, or the maximum or mean over all planes.
    """

    name: str
    prefix: str
    description: str
    stains: tuple[str, ...]
    target: Literal["continuous", "binary"]
    preprocessing: tuple[Step, ...]
    losses: Mapping[str, float]
    segmentation: tuple[Step, ...]
    primary_metrics: tuple[str, ...]
    plausible: Mapping[str, tuple[float, float]]
    floor: float = 0.03
    plane: Literal["sharpest", "maximum", "mean"] = "sharpest"
    largest_errors: Mapping[str, float] = field(default_factory=dict)


def _intensity_metrics(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}_{metric}" for metric in ("Count", "TotalArea", "TotalIntensity", "MeanIntensity"))


NUCLEI = Organelle(
    name="nuclei",
    prefix="Nuclei",
    description="Nuclei: how many, how large, and how much DNA.",
    stains=("nuclei", "DAPI", "Hoechst", "DRAQ5"),
    target="continuous",
    preprocessing=(
        Step("subtract_background", {"radius_um": 40.0}),
        Step("clear_background", {"sigmas": 3.0, "smoothing_um": 0.65, "margin_um": 1.3}),
    ),
    losses={"mse": 1.0, "batch_pcc": 0.1},
    segmentation=(
        Step("normalise", {"smoothing_um": 0.65}),
        Step("global_threshold", {"method": "mean", "sigmas": 6.0}),
        Step("zero_outside"),
        Step(
            "local_threshold",
            {"reach_um": 8.0, "share": 0.25, "sure": 0.65, "edge_um": 1.0, "ceiling": 1.5},
        ),
        Step("fill_holes"),
        Step("open_and_blur", {"radius_um": 0.9, "smoothing_um": 0.65}),
        Step("separate", {"min_area_um2": 5.0}),
        Step(
            "split_touching",
            {
                "smoothing_um": 0.8,
                "depth_um": 0.4,
                "min_radius_um": 1.5,
                "brightness": 0.5,
                "texture_um": 0.8,
            },
        ),
        Step("trim", {"share": 0.3}),
        Step("drop_small", {"min_area_um2": 5.0}),
        Step("drop_dim", {"share": 0.25}),
        Step("drop_small", {"min_area_um2": 11.0, "at_border_um2": 5.0}),
        Step(
            "keep_core",
            {
                "share": 0.65,
                "smoothing_um": 1.1,
                "small_area_um2": 70.0,
                "large_area_um2": 80.0,
                "soft": 0.49,
                "crisp": 0.53,
            },
        ),
    ),
    floor=0.15,
    primary_metrics=_intensity_metrics("Nuclei"),
    plausible={
        "Nuclei_Count": (1, 20_000),
        "Nuclei_MeanAreaUm2": (20, 400),
        "Nuclei_MeanIntensity": (1, 65_535),
    },
    largest_errors={"Nuclei_Count": 0.25, "Nuclei_TotalArea": 0.35},
)

ER = Organelle(
    name="er",
    prefix="Er",
    description="Endoplasmic reticulum: where secreted protein is made, as area and mass.",
    stains=("er", "ConA", "Concanavalin"),
    target="continuous",
    preprocessing=(
        Step("subtract_background", {"radius_um": 120.0}),
        Step("clear_background", {"sigmas": 3.0, "smoothing_um": 0.65, "margin_um": 1.3}),
    ),
    losses={"mse": 1.0, "batch_pcc": 0.1},
    segmentation=(
        Step("normalise", {"smoothing_um": 0.65}),
        Step("global_threshold", {"method": "mean", "sigmas": 6.0}),
        Step("zero_outside"),
        Step("local_threshold", {"reach_um": 20.0, "share": 0.15}),
        Step("fill_holes", {"max_area_um2": 150.0}),
        Step("open_and_blur", {"radius_um": 1.3, "smoothing_um": 0.65}),
        Step("separate", {"min_area_um2": 20.0}),
    ),
    primary_metrics=_intensity_metrics("Er"),
    plausible={"Er_Count": (1, 20_000), "Er_MeanIntensity": (1, 65_535)},
)

GOLGI = Organelle(
    name="golgi",
    prefix="Golgi",
    description="Golgi apparatus: small, bright stacks beside the nucleus, sparse and dim.",
    stains=("golgi", "WGA"),
    target="continuous",
    preprocessing=(
        Step("enhance_spots", {"radius_um": 5.0}),
        Step("clear_background", {"sigmas": 4.5, "smoothing_um": 0.65, "margin_um": 0.65}),
    ),
    losses={"mse": 1.0, "batch_pcc": 0.2},
    segmentation=(
        Step("top_hat", {"radius_um": 5.0}),
        Step("normalise", {"smoothing_um": 1.3, "sparse": True}),
        Step("global_threshold", {"method": "mean", "sigmas": 6.0, "typical": 0.3}),
        Step("zero_outside"),
        Step("local_threshold", {"reach_um": 4.0, "share": 0.3}),
        Step("fill_holes"),
        Step("open_and_blur", {"radius_um": 0.0, "smoothing_um": 0.5}),
        Step("separate", {"min_area_um2": 2.0}),
    ),
    floor=0.1,
    primary_metrics=_intensity_metrics("Golgi"),
    plausible={"Golgi_Count": (0, 100_000), "Golgi_MeanIntensity": (0, 65_535)},
)

GFP = Organelle(
    name="gfp",
    prefix="Gfp",
    description="The product's reporter: which cells make it, as a mask.",
    stains=("gfp", "GFP", "FITC"),
    target="binary",
    preprocessing=(
        Step("subtract_background", {"radius_um": 120.0}),
        Step("binary_mask", {"sigmas": 6.0, "smoothing_um": 0.65, "above_mean": True}),
    ),
    losses={"bce": 1.0},
    segmentation=(
        Step("probability", {"sigmas": 6.0, "smoothing_um": 0.65, "radius_um": 120.0}),
        Step("fill_holes", {"max_area_um2": 50.0}),
        Step("open_and_blur", {"radius_um": 1.3, "smoothing_um": 0.65}),
        Step("separate", {"min_area_um2": 20.0}),
    ),
    primary_metrics=("Gfp_ExpectedArea",),
    plausible={"Gfp_Count": (0, 20_000)},
)

ACTIN = Organelle(
    name="actin",
    prefix="Actin",
    description="Actin: the cell's outline and its fibres.",
    stains=("actin", "Phalloidin"),
    target="continuous",
    preprocessing=ER.preprocessing,
    losses={"mse": 1.0, "batch_pcc": 0.1},
    segmentation=ER.segmentation,
    primary_metrics=_intensity_metrics("Actin"),
    plausible={"Actin_Count": (1, 20_000), "Actin_MeanIntensity": (1, 65_535)},
)

NUCLEOLI = Organelle(
    name="nucleoli",
    prefix="Nucleoli",
    description="Nucleoli: where ribosomes are made, one to four bright spots in a nucleus.",
    stains=("nucleoli", "RNA", "SYTO14"),
    target="continuous",
    preprocessing=(
        Step("enhance_spots", {"radius_um": 2.5}),
        Step("clear_background", {"sigmas": 4.5, "smoothing_um": 0.65, "margin_um": 0.65}),
    ),
    losses={"mse": 1.0, "batch_pcc": 0.2},
    segmentation=(
        Step("top_hat", {"radius_um": 2.5}),
        Step("normalise", {"smoothing_um": 0.5, "sparse": True}),
        Step("global_threshold", {"method": "mean", "sigmas": 6.0, "typical": 0.3}),
        Step("zero_outside"),
        Step("local_threshold", {"reach_um": 2.0, "share": 0.5}),
        Step("fill_holes"),
        Step("open_and_blur", {"radius_um": 0.0, "smoothing_um": 0.5}),
        Step("separate", {"min_area_um2": 0.8}),
    ),
    floor=0.1,
    primary_metrics=_intensity_metrics("Nucleoli"),
    plausible={"Nucleoli_Count": (0, 100_000), "Nucleoli_MeanIntensity": (0, 65_535)},
)

ORGANELLES: dict[str, Organelle] = {
    recipe.name: recipe for recipe in (NUCLEI, ER, GOLGI, GFP, ACTIN, NUCLEOLI)
}


def organelle(name: str | Organelle) -> Organelle:
    """The recipe called `name` (a recipe passes through).

    Raises:
        InputError: no recipe has this name; the known ones are listed.
    """
    if isinstance(name, Organelle):
        return name
    if not isinstance(name, str) or name not in ORGANELLES:
        raise InputError(f"No organelle is called {name!r}; the recipes are {', '.join(sorted(ORGANELLES))}.")
    return ORGANELLES[name]
