"""From a mask to objects: contours, and the splitting of those that touch."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.segmentation._canvas import Canvas
from cellabel.segmentation._masks import fill_holes, gaussian

__all__ = ["clear_border", "drop_dim", "drop_small", "separate", "split_touching", "trim"]

FINENESS = 64
"""Steps a pixel in which distances from the outline are counted."""


def separate(canvas: Canvas, *, min_area: float = 1.0) -> Canvas:
    """Step 7: contours separate the regions; those under `min_area` px are dropped."""
    contours, _ = cv2.findContours(canvas.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    labels = np.zeros(canvas.mask.shape, np.int32)
    for number, contour in enumerate(contours, 1):
        cv2.drawContours(labels, [contour], -1, number, cv2.FILLED)
    labels[canvas.mask == 0] = 0
    canvas.labels = labels
    return drop_small(canvas, min_area=min_area)


def drop_small(canvas: Canvas, *, min_area: float) -> Canvas:
    """Drop objects under `min_area` px and number the others from 1 without gaps, by first pixel."""
    area = np.bincount(canvas.labels.ravel())
    keep = area >= max(min_area, 1.0)
    keep[0] = False
    new = np.zeros(area.size, np.int32)
    new[keep] = np.arange(1, keep.sum() + 1)
    canvas.labels = new[canvas.labels]
    canvas.mask = (canvas.labels > 0).astype(np.uint8)
    return canvas


def drop_dim(canvas: Canvas, *, share: float) -> Canvas:
    """Drop objects whose height above background is under a share of the median object's: haze and debris."""
    count = int(canvas.labels.max()) + 1
    if count > 1:
        height = _heights(canvas)
        dim = height < share * np.median(height[1:])
        dim[0] = False
        canvas.labels = np.where(dim[canvas.labels], 0, canvas.labels)
    return canvas


def clear_border(labels: ArrayLike) -> NDArray[np.int32]:
    """Without the objects that the image's border cuts, numbered anew from 1.

    Args:
        labels: (H, W) integers, 0 is background.

    Returns:
        (H, W) int32.
    """
    array = np.asarray(labels).astype(np.int32)
    if array.size == 0 or not array.any():
        return array
    outer = np.concatenate([array[0], array[-1], array[:, 0], array[:, -1]])
    keep = np.bincount(array.ravel()) > 0
    keep[0] = False
    keep[outer] = False
    new = np.zeros(keep.size, np.int32)
    new[keep] = np.arange(1, keep.sum() + 1)
    return np.asarray(new[array])


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
    distance = cv2.distanceTransform(canvas.mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if brightness > 0:
        height = np.maximum(_heights(canvas), 1.0)[canvas.labels]
        relative = np.clip((gaussian(canvas.smooth, texture) - canvas.level) / height, 0, 1)
        distance = distance * (1 - brightness + brightness * relative)
    hill = np.minimum(np.floor(distance * FINENESS + 0.5), 65535).astype(np.uint16)
    hill = gaussian(hill, smoothing) * canvas.mask
    marks = _seeds(hill, max(1, round(depth * FINENESS)), min_radius * FINENESS)
    owner = np.zeros(int(marks.max()) + 1, np.int64)
    owner[marks.ravel()] = canvas.labels.ravel()
    seeds_of = np.bincount(owner[1:], minlength=int(canvas.labels.max()) + 1)
    strength = np.bincount(marks.ravel(), weights=canvas.work.ravel(), minlength=owner.size)
    for number in np.flatnonzero(seeds_of > 1):
        _split(canvas, hill, marks, strength, int(number))
    return canvas


def trim(canvas: Canvas, *, share: float) -> Canvas:
    """Cut every object where it falls below a share of its own height: bright ones are not drawn wider.

    Args:
        canvas: with labels.
        share: of the object's height above background.
    """
    cut = canvas.level + share * _heights(canvas)
    canvas.mask = ((canvas.fine > cut[canvas.labels]) & (canvas.labels > 0)).astype(np.uint8)
    canvas = fill_holes(canvas)
    canvas.labels = canvas.labels * canvas.mask
    return _part(canvas)


def _heights(canvas: Canvas) -> NDArray[Any]:
    """Height of every label above background: the mean of its upper pixels' upper pixels."""
    where = np.flatnonzero(canvas.labels)
    owner = canvas.labels.ravel()[where]
    height = canvas.fine.ravel()[where]
    count = int(canvas.labels.max()) + 1
    mean = _mean(owner, height, count)
    for _ in range(2):
        upper = height >= mean[owner]
        mean = _mean(owner[upper], height[upper], count)
    return np.maximum(mean - canvas.level, 0.0)


def _mean(owner: NDArray[Any], values: NDArray[Any], count: int) -> NDArray[Any]:
    return np.bincount(owner, weights=values, minlength=count) / np.maximum(
        np.bincount(owner, minlength=count), 1
    )


def _part(canvas: Canvas) -> Canvas:
    """Give every connected piece of a label a label of its own."""
    labels = canvas.labels
    square = np.ones((3, 3), np.uint8)
    known = labels.astype(np.float32)
    lowest = -cv2.dilate(np.where(labels > 0, -known, -np.inf).astype(np.float32), square)
    meets = (labels > 0) & (cv2.dilate(known, square) != lowest)
    touching = np.zeros(int(labels.max()) + 1, bool)
    touching[labels[meets]] = True
    touching[0] = False
    alone = (labels > 0) & ~touching[labels]
    count, pieces = cv2.connectedComponents(alone.astype(np.uint8), connectivity=8)
    for number in np.flatnonzero(touching):
        box = _box(labels, int(number))
        region = labels[box] == number
        more, part = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
        pieces[box][region] = part[region] + count - 1
        count += more - 1
    canvas.labels = pieces.astype(np.int32, copy=False)
    return canvas


def _box(labels: NDArray[np.int32], number: int) -> tuple[slice, slice]:
    """The rows and columns that one label spans."""
    rows = np.flatnonzero((labels == number).any(axis=1))
    columns = np.flatnonzero((labels == number).any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _seeds(hill: NDArray[np.uint16], depth: int, lowest: float) -> NDArray[np.int32]:
    """Numbered tops that rise at least `depth` above the saddle to a higher one: h-maxima."""
    lowered = np.where(hill > depth, hill - np.minimum(hill, depth), 0).astype(np.uint16)
    square = np.ones((3, 3), np.uint8)
    while True:
        grown = np.minimum(cv2.dilate(lowered, square), hill)
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
    canvas: Canvas,
    hill: NDArray[np.uint16],
    marks: NDArray[np.int32],
    strength: NDArray[Any],
    number: int,
) -> None:
    """Flood one region from its seeds, downhill; where two meet on one step, the brighter seed wins.

    The winner is named by its brightness and not by the order of the pixels, so that a turned image splits
    alike.
    """
    box = _box(canvas.labels, number)
    region = canvas.labels[box] == number
    inside = np.where(region, marks[box], 0)
    names = np.unique(inside[inside > 0])
    ranked = names[np.argsort(strength[names], kind="stable")]
    rank = np.zeros(int(names[-1]) + 1, np.float32)
    rank[ranked] = np.arange(1, ranked.size + 1)
    flood = _flood(np.where(region, hill[box], 0).astype(np.uint16), rank[inside])
    pieces = flood.astype(np.int32)
    new_names = np.concatenate(([0, number], np.arange(ranked.size - 1) + int(canvas.labels.max()) + 1))
    canvas.labels[box][region] = new_names[pieces[region]]


def _flood(hill: NDArray[np.uint16], seeds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grow the seeds over the hill, from its top down, in steps of half a pixel of distance."""
    square = np.ones((3, 3), np.uint8)
    flood = seeds.copy()
    level = int(hill.max())
    while level > 0:
        level = max(level - FINENESS // 2, 0)
        open_to = (hill > level).astype(np.float32)
        while True:
            grown = np.where(flood > 0, flood, cv2.dilate(flood, square) * open_to)
            if np.array_equal(grown, flood):
                break
            flood = grown
    return flood
