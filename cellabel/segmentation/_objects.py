"""From a mask to objects: contours, outlines of their own, and what is too small or too dim to count."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.segmentation._canvas import Canvas
from cellabel.segmentation._masks import fill_holes, gaussian

__all__ = ["clear_border", "drop_dim", "drop_small", "boxes", "heights", "keep_core", "separate", "trim"]


def separate(canvas: Canvas, *, min_area: float = 1.0) -> Canvas:
    """Step 7: the regions that contours enclose become objects; those under `min_area` px are dropped.

    They are found as connected components, which are the same regions, and in one pass.
    """
    canvas.labels = np.asarray(cv2.connectedComponents(canvas.mask, connectivity=8)[1], np.int32)
    return drop_small(canvas, min_area=min_area)


def drop_small(canvas: Canvas, *, min_area: float, at_border: float | None = None) -> Canvas:
    """Drop objects under `min_area` px, and number the others from 1 without gaps.

    Args:
        canvas: with labels.
        min_area: of a whole object, px.
        at_border: of an object that the image's border cuts, px; None means the same.
    """
    where, owner = canvas.foreground()
    areas = np.bincount(owner, minlength=1)
    keep = areas >= max(min_area, 1.0)
    if at_border is not None:
        edge = _at_border(canvas.labels)
        keep[edge] = areas[edge] >= max(at_border, 1.0)
    keep[0] = False
    return _renumber(canvas, where, owner, keep)


def _at_border(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The labels that touch the image's border, 0 among them."""
    return np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))


def drop_dim(canvas: Canvas, *, share: float) -> Canvas:
    """Drop objects whose height above background is under a share of the median object's: haze and debris."""
    where, owner = canvas.foreground()
    height = heights(canvas, where, owner)
    present = np.bincount(owner, minlength=1) > 0
    if not present.any():
        return canvas
    keep = present & (height >= share * np.median(height[present]))
    return _renumber(canvas, where, owner, keep)


def clear_border(labels: ArrayLike) -> NDArray[np.int32]:
    """Without the objects that the image's border cuts, numbered anew from 1.

    Args:
        labels: (H, W) integers, 0 is background.

    Returns:
        (H, W) int32.
    """
    array = np.asarray(labels).astype(np.int32)
    if not array.any():
        return array
    keep = np.bincount(array.ravel()) > 0
    keep[0] = False
    keep[_at_border(array)] = False
    new = np.zeros(keep.size, np.int32)
    new[keep] = np.arange(1, keep.sum() + 1)
    return np.asarray(new[array])


def trim(canvas: Canvas, *, share: float) -> Canvas:
    """Cut every object where it falls below a share of its own height: bright ones are not drawn wider.

    Args:
        canvas: with labels.
        share: of the object's height above background.
    """
    return _cut(canvas, canvas.fine, share)


def keep_core(
    canvas: Canvas,
    *,
    share: float,
    smoothing: float,
    small_area: float,
    large_area: float,
    soft: float,
    crisp: float,
) -> Canvas:
    """Cut every object to its bright core where the field's objects are small balls rather than plates.

    The nucleus of a spread cell is a plate with an edge. That of a round cell is a ball, and light from above
    and below the plane of focus surrounds it with a halo as wide as itself: it ends where its core does. Such
    fields are known by two things at once: the median object is small, and little of it is core. Blur alone
    makes objects softer but larger, so that a blurred prediction is cut like its sharp truth.

    Outlines change, objects do not: the lobes of one nucleus stay one object, and none is lost, so that a
    stain and its smoother prediction are counted alike.

    Args:
        canvas: with labels; where it says how far objects are cut, the field is not asked.
        share: of the object's height above background at which the core ends.
        smoothing: σ of the Gaussian under which it is judged, px: the texture of a core is no edge.
        small_area: median area of the field's objects, px, up to which they count as small.
        large_area: the median area from which they do not, and nothing is cut.
        soft: median part of an object that is core, up to which objects count as soft.
        crisp: the part from which they do not, and nothing is cut. In between the share rises from 0.
    """
    where, owner = canvas.foreground()
    if not where.size:
        return canvas
    areas = np.bincount(owner)[1:]
    small = _falling(float(np.median(areas[areas > 0])), small_area, large_area)
    if canvas.core is None and small == 0:
        canvas.core = 0.0
    if canvas.core == 0:  # before anything is blurred: most fields are not cut
        return canvas
    image = gaussian(canvas.fine, smoothing).ravel()[where]
    height = heights(canvas, where, owner)
    if canvas.core is None:
        inner = owner[image > (canvas.level + share * height)[owner]]
        part = np.bincount(inner, minlength=areas.size + 1)[1:] / np.maximum(areas, 1)
        canvas.core = small * _falling(float(np.median(part[areas > 0])), soft, crisp)
    inside = image > (canvas.level + canvas.core * share * height)[owner]
    inside |= (np.bincount(owner[inside], minlength=height.size) == 0)[owner]
    return _keep(canvas, where, owner, inside)


def _falling(value: float, full: float, none: float) -> float:
    """1 up to `full`, 0 from `none` on, straight in between."""
    return float(np.clip((none - value) / (none - full), 0.0, 1.0))


def _cut(canvas: Canvas, image: NDArray[Any], share: float) -> Canvas:
    """Only the pixels of every object where the image is above a share of the object's height; parted."""
    where, owner = canvas.foreground()
    cut = canvas.level + share * heights(canvas, where, owner)
    return _part(_keep(canvas, where, owner, image.ravel()[where] > cut[owner]))


def _keep(canvas: Canvas, where: NDArray[Any], owner: NDArray[Any], inside: NDArray[np.bool_]) -> Canvas:
    """Only those of the labelled pixels that lie inside, and the holes that they enclose."""
    canvas.mask = np.zeros_like(canvas.mask)
    canvas.mask.ravel()[where] = inside
    kept = fill_holes(canvas).mask.ravel()[where] > 0
    canvas.relabel(where[kept], owner[kept])
    return canvas


def heights(canvas: Canvas, where: NDArray[Any], owner: NDArray[Any]) -> NDArray[Any]:
    """Height of every label above background: the mean of its upper pixels' upper pixels.

    Args:
        canvas: with intensities.
        where: flat indices of labelled pixels.
        owner: their labels.

    Returns:
        (largest label + 1,), units of `canvas.work`. Sums are of whole numbers: their order does not matter.
    """
    values = canvas.fine.ravel()[where].astype(np.float64)
    count = int(owner.max(initial=0)) + 1
    for _ in range(3):
        size = np.maximum(np.bincount(owner, minlength=count), 1)
        mean = np.bincount(owner, weights=values, minlength=count) / size
        upper = values >= mean[owner]
        values, owner = values[upper], owner[upper]
    return np.maximum(mean - canvas.level, 0.0)


def boxes(canvas: Canvas, numbers: NDArray[Any]) -> list[tuple[int, tuple[slice, slice]]]:
    """Some labels, ascending, and the rows and columns that each spans."""
    if numbers.size == 0:
        return []
    where, owner = canvas.foreground()
    wanted = np.zeros(int(owner.max()) + 1, bool)
    wanted[numbers] = True
    chosen = wanted[owner]
    where, owner = where[chosen], owner[chosen]
    order = np.argsort(owner, kind="stable")
    row, column = np.divmod(where[order], canvas.labels.shape[1])
    start = np.flatnonzero(np.diff(owner[order], prepend=-1))
    top, left = np.minimum.reduceat(row, start), np.minimum.reduceat(column, start)
    bottom, right = np.maximum.reduceat(row, start) + 1, np.maximum.reduceat(column, start) + 1
    return [
        (int(owner[order[index]]), (slice(int(a), int(b)), slice(int(c), int(d))))
        for index, a, b, c, d in zip(start, top, bottom, left, right, strict=True)
    ]


def _renumber(canvas: Canvas, where: NDArray[Any], owner: NDArray[Any], keep: NDArray[np.bool_]) -> Canvas:
    """Keep some labels, numbered from 1 without gaps."""
    if keep[1:].all():
        return canvas
    new = np.zeros(keep.size, np.int32)
    new[keep] = np.arange(1, keep.sum() + 1)
    canvas.relabel(where, new[owner])
    return canvas


def _part(canvas: Canvas) -> Canvas:
    """Give every connected piece of a label a label of its own."""
    from skimage.measure import label

    pieces: NDArray[Any] = label(canvas.labels, connectivity=2)  # type: ignore[no-untyped-call]
    canvas.labels = pieces.astype(np.int32, copy=False)
    return canvas
