"""Touching objects taken apart: seeds on the distance from the outline, and a flood from them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cellabel.segmentation._canvas import FULL_SCALE, Canvas
from cellabel.segmentation._masks import box as box_blur
from cellabel.segmentation._masks import gaussian
from cellabel.segmentation._objects import boxes, heights

__all__ = ["split_touching"]

FINENESS = 64
"""Steps a pixel in which distances from the outline are counted."""
SQUARE = np.ones((3, 3), np.uint8)


def split_touching(
    canvas: Canvas,
    *,
    smoothing: float,
    depth: float,
    min_radius: float,
    brightness: float = 0.0,
    texture: float = 1.0,
) -> Canvas:
    """Split regions that are several round objects: watershed on the distance from the outline.

    Args:
        canvas: with labels.
        smoothing: σ of the Gaussian on the distances, px: less makes more seeds.
        depth: how far the distance must fall between two centres, px, for them to be two.
        min_radius: the smallest distance from the outline, px, that a centre may have.
        brightness: how much a dip in brightness counts beside a waist in the outline, from 0 to 1.
        texture: σ of the blur that keeps the object's texture from counting as a dip, px.
    """
    where, owner = canvas.foreground()
    hill = gaussian(_hill(canvas, where, owner, brightness, texture), smoothing)
    hill *= canvas.mask
    lowest = min_radius * FINENESS
    found = boxes(canvas, _with_several_tops(hill, where, owner, lowest))
    if found:
        canvas.labels = _split(canvas, hill, found, max(1, round(depth * FINENESS)), lowest)
    return canvas


def _hill(
    canvas: Canvas, where: NDArray[Any], owner: NDArray[Any], brightness: float, texture: float
) -> NDArray[np.uint16]:
    """Distance from the outline in whole steps, lowered where the object is dimmer than its own height."""
    distance = cv2.distanceTransform(canvas.mask, cv2.DIST_L2, cv2.DIST_MASK_5).ravel()[where]
    steps = distance.astype(np.float64) * FINENESS
    if brightness > 0:
        height = np.maximum(heights(canvas, where, owner), 1.0)[owner]
        blurred = box_blur(canvas.smooth, texture).ravel()[where]
        steps *= 1 - brightness + brightness * np.clip((blurred - canvas.level) / height, 0, 1)
    hill = np.zeros(canvas.mask.shape, np.uint16)
    hill.ravel()[where] = np.minimum(np.floor(steps + 0.5), 65535)
    return hill


def _with_several_tops(
    hill: NDArray[np.uint16], where: NDArray[Any], owner: NDArray[Any], lowest: float
) -> NDArray[np.intp]:
    """Labels whose hill has more than one local top: only these can be several objects."""
    top = ((hill == cv2.dilate(hill, SQUARE)) & (hill >= max(lowest, 1))).astype(np.uint8)
    count, tops = cv2.connectedComponents(top, connectivity=8)
    mark = tops.ravel()[where]
    owner_of = np.zeros(count, np.intp)
    owner_of[mark] = owner
    return np.flatnonzero(np.bincount(owner_of[1:], minlength=1) > 1)


def _split(
    canvas: Canvas,
    hill: NDArray[np.uint16],
    found: list[tuple[int, tuple[slice, slice]]],
    depth: int,
    lowest: float,
) -> NDArray[np.int32]:
    """Labels in which the regions are flooded from their seeds: all at once, on a strip of their boxes.

    Args:
        canvas: with labels and `fine`. Its intensities settle which of two equally high pixels goes first, so
            that a turned image is flooded alike.
        hill: (H, W), what is flooded.
        found: the regions' labels and boxes.
        depth: steps that a top must rise above the saddle.
        lowest: steps that it must have.
    """
    from skimage.segmentation import watershed

    places, shape = _strip(found)
    owner, inside = np.zeros(shape, np.int32), np.zeros(shape, np.uint16)
    fine = np.zeros(shape, canvas.fine.dtype)
    for (number, box), place in zip(found, places, strict=True):
        region = canvas.labels[box] == number
        owner[place] = region * np.int32(number)
        inside[place] = hill[box] * region
        fine[place] = canvas.fine[box]
    seeds = _seeds(inside, depth, lowest)
    owner_of = np.zeros(int(seeds.max()) + 1, np.int32)
    owner_of[seeds] = owner
    owner_of[0] = 0
    several = np.bincount(owner_of[1:], minlength=int(owner.max()) + 1) > 1
    several[0] = False
    labels = canvas.labels.copy()
    if not several.any():
        return labels
    mask = several[owner]
    rows: NDArray[Any] = np.asarray(mask.any(axis=1))
    rows[1:] |= rows[:-1]  # the row between two boxes stays
    depths = -(inside[rows].astype(np.int64) * (FULL_SCALE + 1) + fine[rows])
    flooded = np.zeros(shape, np.int32)
    flooded[rows] = watershed(depths, seeds[rows], connectivity=2, mask=mask[rows])  # type: ignore[no-untyped-call]
    first = int(canvas.labels.max()) + 1
    for (number, box), place in zip(found, places, strict=True):
        if several[number]:
            piece = flooded[place]
            # Every piece a label of its own; those that the regions had are free.
            labels[box][piece > 0] = piece[piece > 0] + first
    return labels


def _strip(
    found: list[tuple[int, tuple[slice, slice]]],
) -> tuple[list[tuple[slice, slice]], tuple[int, int]]:
    """Where the boxes lie one under another, a pixel apart and framed by one, and the strip's shape."""
    places, top, widest = [], 1, 0
    for _, (rows, columns) in found:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        places.append((slice(top, top + height), slice(1, 1 + width)))
        top, widest = top + height + 1, max(widest, width)
    return places, (top, widest + 2)


def _seeds(hill: NDArray[np.uint16], depth: int, lowest: float) -> NDArray[np.int32]:
    """Numbered tops that rise at least `depth` above the saddle to a higher one: h-maxima."""
    lowered: NDArray[Any] = cv2.subtract(hill, np.full_like(hill, depth))
    while True:
        grown = cv2.min(cv2.dilate(lowered, SQUARE), hill)
        if np.array_equal(grown, lowered):
            break
        lowered = grown
    rise = hill - lowered
    count, domes = cv2.connectedComponents((rise > 0).astype(np.uint8), connectivity=8)
    # A top keeps its full depth; what rises less is a shoulder of a higher one.
    true_top = np.zeros(count, bool)
    true_top[domes[(rise >= depth) & (hill >= lowest)]] = True
    true_top[0] = False
    new = np.zeros(count, np.int32)
    new[true_top] = np.arange(1, true_top.sum() + 1)
    return np.asarray(new[domes])
