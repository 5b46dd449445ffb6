"""One row a field, and one row a well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cellabel.errors import InputError
from cellabel.measurement._objects import checked
from cellabel.measurement._shape import pixels_of
from cellabel.organelles import Organelle
from cellabel.organelles import organelle as recipe_of

__all__ = ["measure_field", "measure_well"]

SUMS = (
    "Count", "CountBorderCorrected", "TotalArea", "TotalAreaUm2", "TotalIntensity", "ExpectedArea",
    "ExpectedAreaUm2",
)  # fmt: skip
"""Field features that a well adds up."""
MEANS = (("MeanIntensity", "TotalIntensity", "TotalArea"), ("MeanAreaUm2", "TotalAreaUm2", "Count"))
"""Field features that a well takes anew: mean, and the sums whose ratio it is."""


def measure_field(
    labels: ArrayLike,
    image: ArrayLike,
    *,
    organelle: str | Organelle = "nuclei",
    pixel_size_um: float | None = None,
) -> pd.DataFrame:
    """What the whole field shows of one organelle.

    Args:
        labels: (H, W) integers, 0 is background; gaps are allowed.
        image: (H, W) intensities: the prepared target or the prediction; nothing is subtracted here.
        organelle: name of the recipe, or a recipe; it gives the columns' prefix <P>.
        pixel_size_um: size of a pixel, µm; None means 0.65 µm.

    Returns:
        One row: <P>_Count; <P>_TotalArea (px); <P>_TotalIntensity (image's units, over objects' pixels);
        <P>_MeanIntensity (over objects' pixels; NaN without objects); <P>_CountBorderCorrected: objects that
        touch neither the upper nor the left border (of fields that overlap by a pixel every object is then
        counted once); <P>_TotalAreaUm2 (µm²); <P>_MeanAreaUm2 (µm² an object; NaN without objects);
        <P>_AreaShare (of the field). Of a binary organelle also <P>_ExpectedArea (px) and _ExpectedAreaUm2:
        the sum of the image, a probability or a mask, over the whole field. Where a network is unsure of
        nearly every cell, what lies above one half says little, and the sum keeps what it knows.

    Raises:
        InputError: shapes differ, labels are no whole numbers, NaN or infinite intensities.

    Source: Gundersen 1977, J Microsc 111:219 (the unbiased counting frame), for a field that others adjoin.
    """
    recipe = recipe_of(organelle)
    marks, values, size = checked(labels, image, pixel_size_um)
    pixels = pixels_of(marks)
    count, area = pixels.numbers.size, int(pixels.area.sum())
    total = float(values[pixels.row, pixels.column].sum(dtype=np.float64))
    outer = (pixels.row == 0) | (pixels.column == 0)
    cut = np.bincount(pixels.owner, weights=outer, minlength=count) > 0
    row = {
        "Count": count,
        "TotalArea": float(area),
        "TotalIntensity": total,
        "MeanIntensity": total / area if area else np.nan,
        "CountBorderCorrected": count - int(cut.sum()),
        "TotalAreaUm2": area * size**2,
        "MeanAreaUm2": area * size**2 / count if count else np.nan,
        "AreaShare": area / marks.size,
    }
    if recipe.target == "binary":
        expected = float(values.sum(dtype=np.float64))
        row |= {"ExpectedArea": expected, "ExpectedAreaUm2": expected * size**2}
    return pd.DataFrame([{f"{recipe.prefix}_{name}": value for name, value in row.items()}])


def measure_well(
    fields: pd.DataFrame, *, by: str | Sequence[str] = ("Metadata_Plate", "Metadata_Well")
) -> pd.DataFrame:
    """Field rows → well rows: numbers, areas and total intensities add up, means are taken anew.

    Args:
        fields: rows of `measure_field` (of one or of several organelles, side by side) with the columns `by`.
        by: what makes a well. Metadata_Organelle and Metadata_ModelVersion are kept apart too, where they
            occur.

    Returns:
        One row a well, sorted by `by`: the fields' columns; Metadata_FieldCount, how many fields were added
        up. <P>_MeanIntensity is over all objects' pixels of the well and <P>_MeanAreaUm2 over all its
        objects, not means of means; other columns are means over fields.

    Raises:
        InputError: a column of `by` is missing, or a field occurs twice.
    """
    wanted = [by] if isinstance(by, str) else list(by)
    missing = [name for name in wanted if name not in fields.columns]
    if missing:
        raise InputError(f"The field table has no column {', '.join(missing)}; add it to every row.")
    keys = wanted + [
        name
        for name in ("Metadata_Organelle", "Metadata_ModelVersion")
        if name in fields.columns and name not in wanted
    ]
    if "Metadata_Site" in fields.columns:
        doubled = fields.duplicated([*keys, "Metadata_Site"])
        if doubled.any():
            place = fields.loc[doubled, [*keys, "Metadata_Site"]].iloc[0].tolist()
            raise InputError(f"The field {place} occurs more than once; keep one row a field.")
    features = [name for name in fields.columns if not name.startswith("Metadata_")]
    groups = fields.groupby(keys, sort=True, dropna=False)
    rule = {name: (name, "sum" if name.split("_", 1)[-1] in SUMS else "mean") for name in features}
    wells = groups.agg(**rule) if rule else pd.DataFrame(index=groups.size().index)
    for name in features:
        for mean, total, number in MEANS:
            prefix = name.removesuffix(f"_{mean}")
            if prefix != name and {f"{prefix}_{total}", f"{prefix}_{number}"} <= set(features):
                wells[name] = _ratio(wells[f"{prefix}_{total}"], wells[f"{prefix}_{number}"])
    wells.insert(0, "Metadata_FieldCount", groups.size())
    return wells.reset_index()


def _ratio(above: pd.Series, below: pd.Series) -> pd.Series:
    return above / below.where(below > 0)
