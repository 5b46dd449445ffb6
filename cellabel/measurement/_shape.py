"""Shapes of all objects at once, from the list of their pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cellabel.errors import InputError

__all__ = ["Pixels", "ellipse", "hull_area", "perimeter", "pixels_of"]

Floats = NDArray[np.float64]


class Pixels(NamedTuple):
    """The foreground as a list, ordered by object and, within an object, by row and column.

    Attributes:
        numbers: (n,) labels that occur, ascending.
        owner: (p,) index into `numbers` of every pixel.
        row: (p,) px.
        column: (p,) px.
        start: (n,) index of every object's first pixel.
        area: (n,) px.
    """

    numbers: NDArray[np.int64]
    owner: NDArray[np.intp]
    row: NDArray[np.intp]
    column: NDArray[np.intp]
    start: NDArray[np.intp]
    area: NDArray[np.intp]


def pixels_of(labels: NDArray[Any]) -> Pixels:
    """The pixels of every object.

    Args:
        labels: (H, W) integers from 0, which is background; gaps are allowed.

    Raises:
        InputError: not (H, W) integers, or negative labels.
    """
    array = np.asarray(labels)
    if array.ndim != 2 or array.dtype.kind not in "iub":
        raise InputError(
            f"Labels of shape {array.shape} and type {array.dtype} number no objects; "
            "give whole numbers (H, W)."
        )
    if array.size and array.min() < 0:
        raise InputError(f"Labels go down to {array.min()}; 0 is background and objects count from 1.")
    where = np.flatnonzero(array)
    values = array.ravel()[where].astype(np.int64)
    order = np.argsort(values, kind="stable")
    where, values = where[order], values[order]
    start = np.flatnonzero(np.diff(values, prepend=0))
    area = np.diff(np.append(start, values.size))
    row, column = np.divmod(where, array.shape[1])
    return Pixels(values[start], np.repeat(np.arange(start.size), area), row, column, start, area)


def ellipse(pixels: Pixels) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """Centre and the ellipse of equal second moments.

    Returns:
        Centre's row and column, px; major and minor axis, px; eccentricity; angle of the major axis from the
        vertical, radians: (n,) each, as `skimage.measure.regionprops` has them.
    """
    count = pixels.numbers.size
    first_row, first_column = pixels.row[pixels.start], pixels.column[pixels.start]
    # Moments about a pixel of the object itself: about the image's corner they would lose digits.
    y = (pixels.row - first_row[pixels.owner]).astype(np.float64)
    x = (pixels.column - first_column[pixels.owner]).astype(np.float64)
    mean_y = _sum(pixels, y, count) / pixels.area
    mean_x = _sum(pixels, x, count) / pixels.area
    y -= mean_y[pixels.owner]
    x -= mean_x[pixels.owner]
    yy, xx, xy = (_sum(pixels, product, count) / pixels.area for product in (y * y, x * x, x * y))
    middle, reach = (yy + xx) / 2, np.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    large, small = middle + reach, np.maximum(middle - reach, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        eccentricity = np.where(large > 0, np.sqrt(np.maximum(1 - small / large, 0.0)), 0.0)
    diagonal = np.where(xy > 0, np.pi / 4, -np.pi / 4)
    angle = np.where(yy == xx, diagonal, 0.5 * np.arctan2(2 * xy, yy - xx))
    return (
        first_row + mean_y,
        first_column + mean_x,
        4 * np.sqrt(large),
        4 * np.sqrt(small),
        eccentricity,
        angle,
    )


def _sum(pixels: Pixels, values: Floats, count: int) -> Floats:
    return np.bincount(pixels.owner, weights=values, minlength=count).astype(np.float64, copy=False)


PERIMETER_WEIGHTS = np.zeros(50)
PERIMETER_WEIGHTS[[5, 7, 15, 17, 25, 27]] = 1.0
PERIMETER_WEIGHTS[[21, 33]] = np.sqrt(2)
PERIMETER_WEIGHTS[[13, 23]] = (1 + np.sqrt(2)) / 2


def perimeter(labels: NDArray[Any], pixels: Pixels) -> Floats:
    """Length of every object's outline, (n,) px.

    Source: Benkrid & Crookes, design and FPGA implementation of a perimeter estimator, as in scikit-image.
    """
    width = labels.shape[1] + 2
    padded = np.pad(labels, 1).ravel()
    place = (pixels.row + 1) * width + pixels.column + 1
    value = padded[place]
    inner = np.ones(place.size, bool)
    for step in (-1, 1, -width, width):
        inner &= padded[place + step] == value
    edge, value, owner = place[~inner], value[~inner], pixels.owner[~inner]
    outline = np.zeros_like(padded)
    outline[edge] = value
    code = np.ones(edge.size, np.intp)
    for weight, steps in ((2, (-1, 1, -width, width)), (10, (-width - 1, -width + 1, width - 1, width + 1))):
        for step in steps:
            code += weight * (outline[edge + step] == value)
    length = np.bincount(owner, weights=PERIMETER_WEIGHTS[code], minlength=pixels.numbers.size)
    return length.astype(np.float64, copy=False)


def hull_area(pixels: Pixels) -> NDArray[np.int64]:
    """Pixels inside the convex hull of every object's pixels (edges' middles taken as corners), (n,) px.

    Everything is counted on a grid of half pixels in whole numbers, so that pixels on the hull's edge are
    inside.
    """
    if pixels.numbers.size == 0:
        return np.zeros(0, np.int64)
    left, right, row, first = _runs(pixels)
    corners = np.empty((left.size, 6, 2), np.int32)
    corners[:, :, 1] = 2 * row[:, None] + np.array([0, -1, 1, 0, -1, 1])
    corners[:, :3, 0] = 2 * left[:, None] + np.array([-1, 0, 0])
    corners[:, 3:, 0] = 2 * right[:, None] + np.array([1, 0, 0])
    ends = np.append(first[1:], left.size)
    hulls = [cv2.convexHull(corners[a:b].reshape(-1, 2))[:, 0] for a, b in zip(first, ends, strict=True)]
    tails = np.concatenate(hulls).astype(np.int64)
    heads = np.concatenate([np.roll(hull, -1, axis=0) for hull in hulls]).astype(np.int64)
    owner = np.repeat(np.arange(len(hulls)), [len(hull) for hull in hulls])
    return _inside(tails, heads, owner, len(hulls))


def _runs(pixels: Pixels) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """First and last column of every row of every object, its row, and every object's first such row."""
    new_object = np.zeros(pixels.row.size, bool)
    new_object[pixels.start] = True
    new_row = new_object | (np.diff(pixels.row, prepend=-1) != 0)
    begin = np.flatnonzero(new_row)
    end = np.append(begin[1:], pixels.row.size) - 1
    return pixels.column[begin], pixels.column[end], pixels.row[begin], np.flatnonzero(new_object[begin])


def _inside(
    tails: NDArray[np.int64], heads: NDArray[np.int64], owner: NDArray[np.intp], count: int
) -> NDArray[np.int64]:
    """Whole pixels inside convex polygons on the half-pixel grid, counted row by row."""
    upward = heads[:, 1] < tails[:, 1]
    low, high = np.where(upward[:, None], heads, tails), np.where(upward[:, None], tails, heads)
    sloped = low[:, 1] < high[:, 1]
    low, high, owner = low[sloped], high[sloped], owner[sloped]
    first, last = -(-low[:, 1] // 2), high[:, 1] // 2
    repeats = np.maximum(last - first + 1, 0)
    edge = np.repeat(np.arange(low.shape[0]), repeats)
    row = first[edge] + np.arange(edge.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    rise = high[edge, 1] - low[edge, 1]
    crossing = low[edge, 0] * rise + (2 * row - low[edge, 1]) * (high[edge, 0] - low[edge, 0])
    from_column, to_column = -(-crossing // (2 * rise)), crossing // (2 * rise)
    order = np.lexsort((row, owner[edge]))
    key_owner, key_row = owner[edge][order], row[order]
    new = np.flatnonzero((np.diff(key_owner, prepend=-1) != 0) | (np.diff(key_row, prepend=-1) != 0))
    width = np.maximum.reduceat(to_column[order], new) - np.minimum.reduceat(from_column[order], new) + 1
    return np.bincount(key_owner[new], weights=np.maximum(width, 0), minlength=count).astype(np.int64)
