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
    last, depth_steps = int(owner.max(initial=0)), max(1, round(depth * FINENESS))
    labels = canvas.labels.copy()
    for number, box in boxes(canvas, _with_several_tops(hill, where, owner, lowest)):
        last = _split(labels[box], hill[box], canvas.fine[box], (number, last), depth_steps, lowest)
    canvas.labels = labels
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
    labels: NDArray[np.int32],
    hill: NDArray[np.uint16],
    fine: NDArray[Any],
    names: tuple[int, int],
    depth: int,
    lowest: float,
) -> int:
    """Flood one region from its seeds, in place, and return the last label in use.

    Args:
        labels: around the region.
        hill: the same pixels.
        fine: intensities of the same pixels. They settle which of two equally high pixels goes first, so that
            a turned image is flooded alike.
        names: the region's label, and the last one in use.
        depth: steps that a top must rise above the saddle.
        lowest: steps that it must have.
    """
    from skimage.segmentation import watershed

    number, last = names
    region = labels == number
    # A frame of nothing, so that tops at the box's edge are tops.
    inside = np.pad(np.where(region, hill, 0).astype(np.uint16), 1)
    seeds = _seeds(inside, depth, lowest)[1:-1, 1:-1]
    count = int(seeds.max())
    if count < 2:
        return last
    depths = -(inside[1:-1, 1:-1].astype(np.int64) * (FULL_SCALE + 1) + fine)
    pieces: NDArray[Any] = watershed(depths, seeds, connectivity=2, mask=region)  # type: ignore[no-untyped-call]
    new_names = np.concatenate(([number, number], np.arange(last + 1, last + count)))
    labels[region] = new_names[pieces[region]]
    return last + count - 1


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
