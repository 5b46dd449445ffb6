"""Touching objects taken apart: seeds on the distance from the outline, and a flood from them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cellabel.segmentation._canvas import Canvas
from cellabel.segmentation._masks import gaussian
from cellabel.segmentation._objects import heights

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
        texture: σ of the Gaussian that keeps the object's texture from counting as a dip, px.
    """
    from scipy.ndimage import find_objects

    where = np.flatnonzero(canvas.labels)
    owner = canvas.labels.ravel()[where]
    hill = gaussian(_hill(canvas, where, owner, brightness, texture), smoothing)
    hill *= canvas.mask
    marks = _seeds(hill, max(1, round(depth * FINENESS)), min_radius * FINENESS)
    mark = marks.ravel()[where]
    seeded = mark > 0
    owner_of = np.zeros(int(mark.max(initial=0)) + 1, np.int64)
    owner_of[mark[seeded]] = owner[seeded]
    strength = np.bincount(mark, weights=canvas.smooth.ravel()[where], minlength=owner_of.size)
    crowded = np.flatnonzero(np.bincount(owner_of[1:]) > 1)
    boxes = find_objects(canvas.labels) if crowded.size else []
    last = int(owner.max(initial=0))
    for number in crowded:
        last = _split(canvas.labels, hill, marks, strength, boxes[number - 1], int(number), last)
    return canvas


def _hill(
    canvas: Canvas, where: NDArray[Any], owner: NDArray[Any], brightness: float, texture: float
) -> NDArray[np.uint16]:
    """Distance from the outline in whole steps, lowered where the object is dimmer than its own height."""
    distance = cv2.distanceTransform(canvas.mask, cv2.DIST_L2, cv2.DIST_MASK_5).ravel()[where]
    steps = distance.astype(np.float64) * FINENESS
    if brightness > 0:
        height = np.maximum(heights(canvas, where, owner), 1.0)[owner]
        blurred = gaussian(canvas.smooth, texture).ravel()[where]
        steps *= 1 - brightness + brightness * np.clip((blurred - canvas.level) / height, 0, 1)
    hill = np.zeros(canvas.mask.shape, np.uint16)
    hill.ravel()[where] = np.minimum(np.floor(steps + 0.5), 65535)
    return hill


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


def _split(
    labels: NDArray[np.int32],
    hill: NDArray[np.uint16],
    marks: NDArray[np.int32],
    strength: NDArray[Any],
    box: tuple[slice, slice],
    number: int,
    last: int,
) -> int:
    """Flood one region from its seeds, downhill, and return the last label in use.

    Where two floods meet on one step the brighter seed wins: named by its brightness and not by the order of
    the pixels, so that a turned image splits alike.
    """
    region = labels[box] == number
    inside = np.where(region, marks[box], 0)
    names = np.unique(inside[inside > 0])
    ranked = names[np.argsort(strength[names], kind="stable")]
    rank = np.zeros(int(names[-1]) + 1)
    rank[ranked] = np.arange(1, ranked.size + 1)
    flood = _flood(np.where(region, hill[box], 0).astype(np.uint16), rank[inside])
    new_names = np.concatenate(([0, number], np.arange(last + 1, last + ranked.size)))
    labels[box][region] = new_names[flood[region].astype(np.intp)]
    return last + ranked.size - 1


def _flood(hill: NDArray[np.uint16], seeds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grow the seeds over the hill, from its top down, in steps of half a pixel of distance.

    A pixel follows the highest of its neighbours that is taken, and among equally high ones the higher
    number.
    """
    flood, base = seeds, seeds.max() + 1
    height = hill.astype(np.float64) * base
    level = int(hill.max())
    while level > 0:
        level = max(level - FINENESS // 2, 0)
        free = hill > level
        while True:
            reached = np.mod(cv2.dilate(np.where(flood > 0, height + flood, 0.0), SQUARE), base)
            grown = np.where((flood == 0) & free, reached, flood)
            if np.array_equal(grown, flood):
                break
            flood = grown
    return flood
