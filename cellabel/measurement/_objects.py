"""One row an object."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.measurement._shape import Pixels, ellipse, hull_area, perimeter, pixels_of
from cellabel.organelles import Organelle
from cellabel.organelles import organelle as recipe_of
from cellabel.preprocessing import pixel_size_of, require_image

__all__ = ["NEIGHBOUR_REACH_UM", "checked", "measure_objects"]

NEIGHBOUR_REACH_UM = 25
"""Objects whose centres are at most this far apart, µm, are neighbours."""


def measure_objects(
    labels: ArrayLike,
    image: ArrayLike,
    *,
    organelle: str | Organelle = "nuclei",
    pixel_size_um: float | None = None,
) -> pd.DataFrame:
    """Shape, place and intensity of every object.

    Args:
        labels: (H, W) integers, 0 is background; gaps are allowed.
        image: (H, W) intensities. For intensities in the stain's units give the prepared target or the
            prediction: nothing is subtracted here.
        organelle: name of the recipe, or a recipe; it gives the columns' prefix <P>.
        pixel_size_um: size of a pixel, µm; None means 0.65 µm.

    Returns:
        One row an object, ascending by label. Metadata_ObjectNumber; Metadata_TouchesBorder (a part may be
        missing); <P>_AreaShape_: Area (px), AreaUm2 (µm²), Perimeter, MajorAxisLength, MinorAxisLength,
        EquivalentDiameter (px), Eccentricity, Solidity, Extent, FormFactor (4π·area / perimeter²; NaN where
        the perimeter is 0), Orientation (degrees); <P>_Location_Center_X, _Y (px, the first pixel's centre
        is 0); <P>_Intensity_: MeanIntensity, IntegratedIntensity, StdIntensity, MinIntensity, MaxIntensity
        (image's units); <P>_Neighbors_NumberOfNeighbors_25um (centres), <P>_Neighbors_FirstClosestDistance
        (px; NaN if alone). No rows, the same columns, where there is no object.

    Raises:
        InputError: shapes differ, labels are no whole numbers, NaN or infinite intensities.
    """
    recipe = recipe_of(organelle)
    marks, values, size = checked(labels, image, pixel_size_um)
    pixels = pixels_of(marks)
    columns: dict[str, Any] = {
        "Metadata_ObjectNumber": pixels.numbers,
        "Metadata_TouchesBorder": _touches_border(pixels, marks.shape),
    }
    shape = _shape_columns(marks, pixels, size)
    centres = np.column_stack([shape["Location_Center_Y"], shape["Location_Center_X"]])
    for part in (shape, _intensity_columns(pixels, values), _neighbour_columns(centres, size)):
        columns |= {f"{recipe.prefix}_{name}": column for name, column in part.items()}
    return pd.DataFrame(columns)


def checked(
    labels: ArrayLike, image: ArrayLike, pixel_size_um: float | None
) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Labels and image as arrays of one shape, and the pixel size, µm.

    Raises:
        InputError: shapes differ, or the pixel size is not a positive number.
    """
    marks, values = np.asarray(labels), require_image(image, "The image to measure")
    if marks.dtype == np.bool_:
        marks = marks.astype(np.uint8)
    if marks.shape != values.shape:
        raise InputError(
            f"Labels are {marks.shape}, the image is {values.shape}; measure the image that was segmented."
        )
    return marks, values, pixel_size_of(pixel_size_um)


def _touches_border(pixels: Pixels, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    at_border = (pixels.row == 0) | (pixels.row == shape[0] - 1)
    at_border |= (pixels.column == 0) | (pixels.column == shape[1] - 1)
    return np.bincount(pixels.owner, weights=at_border, minlength=pixels.numbers.size) > 0


def _shape_columns(labels: NDArray[Any], pixels: Pixels, size: float) -> dict[str, NDArray[Any]]:
    area = pixels.area.astype(np.float64)
    row, column, major, minor, eccentricity, angle = ellipse(pixels)
    length = perimeter(labels, pixels)
    with np.errstate(divide="ignore", invalid="ignore"):
        form_factor = np.where(length > 0, 4 * np.pi * area / length**2, np.nan)
    return {
        "AreaShape_Area": area,
        "AreaShape_AreaUm2": area * size**2,
        "AreaShape_Perimeter": length,
        "AreaShape_MajorAxisLength": major,
        "AreaShape_MinorAxisLength": minor,
        "AreaShape_EquivalentDiameter": np.sqrt(4 * area / np.pi),
        "AreaShape_Eccentricity": eccentricity,
        "AreaShape_Solidity": area / hull_area(pixels),
        "AreaShape_Extent": area / _box_area(pixels),
        "AreaShape_FormFactor": form_factor,
        "AreaShape_Orientation": np.degrees(angle),
        "Location_Center_X": column,
        "Location_Center_Y": row,
    }


def _box_area(pixels: Pixels) -> NDArray[np.float64]:
    if pixels.numbers.size == 0:
        return np.zeros(0)
    rows, columns = (
        np.maximum.reduceat(place, pixels.start) - np.minimum.reduceat(place, pixels.start) + 1.0
        for place in (pixels.row, pixels.column)
    )
    return rows * columns


def _intensity_columns(pixels: Pixels, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
    values = image[pixels.row, pixels.column].astype(np.float64)
    count = pixels.numbers.size
    total = np.bincount(pixels.owner, weights=values, minlength=count)
    mean = total / pixels.area
    spread = np.bincount(pixels.owner, weights=(values - mean[pixels.owner]) ** 2, minlength=count)
    empty = np.zeros(0)
    return {
        "Intensity_MeanIntensity": mean,
        "Intensity_IntegratedIntensity": total,
        "Intensity_StdIntensity": np.sqrt(spread / pixels.area),
        "Intensity_MinIntensity": np.minimum.reduceat(values, pixels.start) if count else empty,
        "Intensity_MaxIntensity": np.maximum.reduceat(values, pixels.start) if count else empty,
    }


def _neighbour_columns(centres: NDArray[np.float64], size: float) -> dict[str, NDArray[Any]]:
    from scipy.spatial import cKDTree

    near, closest = np.zeros(len(centres), np.int64), np.full(len(centres), np.nan)
    if len(centres) > 1:
        tree = cKDTree(centres)
        closest = tree.query(centres, k=2)[0][:, 1]
        near = tree.query_ball_point(centres, NEIGHBOUR_REACH_UM / size, return_length=True) - 1
    return {
        f"Neighbors_NumberOfNeighbors_{NEIGHBOUR_REACH_UM}um": near,
        "Neighbors_FirstClosestDistance": closest,
    }
