"""Uneven background: white top-hat, rolling ball, and a smooth surface under the objects."""

from __future__ import annotations

from numbers import Real
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.preprocessing._images import require_image

__all__ = ["disk", "opening", "rolling_ball", "subtract_background", "white_tophat"]

SHRUNK_BALL = 17.0
"""Radius, px, to which a large ball is shrunk before it is rolled."""
SHRUNK_DISK = 12.0
"""Radius, px, to which the disk under a smooth background is shrunk."""


def disk(radius: float) -> NDArray[np.uint8]:
    """The disk of all pixels whose centres are at most `radius` px away; the same after a turn by 90°."""
    reach = int(radius)
    across = np.arange(-reach, reach + 1)
    return (across[:, None] ** 2 + across[None, :] ** 2 <= radius**2).astype(np.uint8)


def white_tophat(image: ArrayLike, radius: float) -> NDArray[Any]:
    """The image minus its opening: what is brighter than its surroundings and narrower than the disk.

    Args:
        image: (H, W), any units.
        radius: of the disk, px. Larger than the image is allowed: then nothing wider than the image is kept
            out.

    Returns:
        (H, W), the image's type and units, never negative.

    Raises:
        InputError: not an image, or a negative radius.
    """
    array = require_image(image)
    return np.asarray(array - opening(array, radius))


def opening(image: ArrayLike, radius: float) -> NDArray[Any]:
    """Grey opening by a disk, exact: erosion, then dilation. Pixels beyond the border take no part.

    Args:
        image: (H, W), any units.
        radius: of the disk, px.

    Returns:
        (H, W), the image's type and units, nowhere above the image.
    """
    array = require_image(image)
    _require_radius(radius)
    work = (
        array
        if array.dtype in (np.uint8, np.uint16, np.int16, np.float32, np.float64)
        else array.astype(np.float64)
    )
    opened = _disk_extremum(_disk_extremum(work, radius, lowest=True), radius, lowest=False)
    return opened.astype(array.dtype, copy=False)


def rolling_ball(image: ArrayLike, radius: float) -> NDArray[Any]:
    """Height of a ball rolled under the image's surface: the background, fast.

    A ball that is large against the image's range touches with a flat cap alone, and the cap is what is
    moved. A wide cap is moved over a copy that is shrunk by taking minima, so that its radius there is about
    17 px, and the result is enlarged smoothly. One below 26 px is computed as it is.

    Args:
        image: (H, W), any units; the ball is as high in these units as it is wide in pixels.
        radius: of the ball, px.

    Returns:
        (H, W) background in the image's type and units.

    Raises:
        InputError: not an image, or a negative radius.

    Source: Sternberg 1983; the reference is `skimage.restoration.rolling_ball`.
    """
    array = require_image(image)
    _require_radius(radius)
    work = array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
    cap = _cap(radius, float(np.ptp(work)))
    factor = max(1, round(cap / SHRUNK_BALL))
    if factor == 1:
        background = _ball_minimum(work, radius, cap, 1)
    else:
        shrunk = _block_minimum(work, factor)
        background = _enlarge(_ball_minimum(shrunk, radius, cap, factor), factor, work.shape)
    background = np.minimum(background, work)
    return (
        np.floor(background).astype(array.dtype)
        if array.dtype.kind in "iu"
        else background.astype(array.dtype)
    )


def subtract_background(image: ArrayLike, radius: float) -> NDArray[np.float32]:
    """The image minus a smooth surface that touches it from below.

    Noise is smoothed away first, so that the surface runs through the middle of the background rather than
    along its darkest pixels, and the background ends up at zero.

    Args:
        image: (H, W), any units.
        radius: of the disk under the surface, px; wider than the largest object or clump.

    Returns:
        (H, W) float32, the image's units; noise of the background lies on both sides of zero.
    """
    array = require_image(image).astype(np.float32)
    _require_radius(radius)
    factor = max(1, int(radius / SHRUNK_DISK))
    size = (max(1, array.shape[1] // factor), max(1, array.shape[0] // factor))
    small = cv2.resize(array, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT)
    surface = opening(small, radius / factor)
    surface = cv2.GaussianBlur(surface, (0, 0), max(radius / factor / 2, 0.5), borderType=cv2.BORDER_REFLECT)
    surface = cv2.resize(surface, (array.shape[1], array.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(array - surface, np.float32)


def _require_radius(radius: float) -> None:
    if not (isinstance(radius, Real) and np.isfinite(radius) and radius >= 0):
        raise InputError(f"A radius of {radius!r} px is no radius; give a number from 0 on.")


def _disk_extremum(array: NDArray[Any], radius: float, *, lowest: bool) -> NDArray[Any]:
    """Minimum or maximum over a disk, row by row of the disk.

    A row of the disk is a run; the extremum over a run grows from that over the next shorter one by two
    shifts, so that a disk of radius r costs about 4 r passes in place of π r².
    """
    reach = min(int(radius), max(array.shape))
    if reach < 3:
        operation = cv2.erode if lowest else cv2.dilate
        return np.asarray(operation(array, disk(radius)))
    pick = np.minimum if lowest else np.maximum
    limits = np.iinfo(array.dtype) if array.dtype.kind in "iu" else np.finfo(array.dtype)
    # A frame that never wins: a run that begins outside must still be found by the shifts that build on it.
    padded = np.pad(array, reach, constant_values=limits.max if lowest else limits.min)
    extent: dict[int, list[int]] = {}
    for row in range(reach + 1):
        extent.setdefault(min(int(np.sqrt(radius**2 - row**2)), reach), []).append(row)
    result, run, half = padded.copy(), padded, 0
    for wanted in sorted(extent):
        while half < wanted:
            step = min(wanted - half, 2 * half + 1)
            run, half = _shifted(run, step, 1, pick, run), half + step
        for row in extent[wanted]:
            result = _shifted(run, row, 0, pick, result)
    return result[reach : reach + array.shape[0], reach : reach + array.shape[1]]


def _shifted(source: NDArray[Any], step: int, axis: int, pick: Any, start: NDArray[Any]) -> NDArray[Any]:
    """Extremum of `start` and of `source` moved by ± `step` along `axis`; nothing comes in from outside."""
    result = start.copy()
    if step == 0:
        return np.asarray(pick(result, source, out=result))
    if step >= source.shape[axis]:
        return result
    ahead = [slice(None), slice(None)]
    behind = [slice(None), slice(None)]
    ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
    for here, there in ((ahead, behind), (behind, ahead)):
        view = result[tuple(here)]
        pick(view, source[tuple(there)], out=view)
    return result


def _block_minimum(array: NDArray[Any], factor: int) -> NDArray[Any]:
    """The darkest pixel of every block of `factor` × `factor`; blocks at the far border may be cut."""
    height, width = (-(-side // factor) for side in array.shape)
    padded = np.pad(
        array,
        ((0, height * factor - array.shape[0]), (0, width * factor - array.shape[1])),
        constant_values=np.inf,
    )
    return np.asarray(padded.reshape(height, factor, width, factor).min(axis=(1, 3)))


def _cap(radius: float, height: float) -> float:
    """Radius of the part of a ball that is within `height` of its top: nothing beyond can touch the image."""
    return radius if height >= radius else float(np.sqrt(height * (2 * radius - height)))


def _ball_minimum(array: NDArray[Any], radius: float, cap: float, factor: int) -> NDArray[Any]:
    """Minimum over the cap's footprint of the image plus the depth of the ball's surface under its top."""
    reach = int(cap / factor)
    padded = np.pad(array, reach, constant_values=np.inf)
    result = np.full(array.shape, np.inf, array.dtype)
    scratch = np.empty_like(result)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            square = (down * factor) ** 2 + (right * factor) ** 2
            if square > cap**2:
                continue
            window = padded[
                reach + down : reach + down + array.shape[0], reach + right : reach + right + array.shape[1]
            ]
            np.add(window, array.dtype.type(radius - np.sqrt(radius**2 - square)), out=scratch)
            np.minimum(result, scratch, out=result)
    return result


def _enlarge(small: NDArray[Any], factor: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """The shrunk background on the full grid, linear between the blocks' centres."""
    full = cv2.resize(
        small, (small.shape[1] * factor, small.shape[0] * factor), interpolation=cv2.INTER_LINEAR
    )
    return np.asarray(full[: shape[0], : shape[1]])
