"""How far the stains lie from the transmitted light: one offset a channel and plate, by phase correlation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cellabel.plates._verification import n_workers

MAX_OFFSET_PX = 24
"""The largest offset that is looked for."""
_SIDE = 512
_FIELDS = 6
_AGREEMENT_PX = 1.0
_SMOOTHING_PX = 2.0
_MIN_PEAK = 6.0
_MIN_SIDE = 128


@dataclass(frozen=True)
class ChannelOffset:
    """Where a channel's image lies against the transmitted light, over a plate.

    Attributes:
        dy, dx: median over fields, px; moving the channel by this brings it onto the transmitted light.
        spread: median distance of the fields from it, px.
        n: fields in which a peak was found; of how many.
        of: fields that were looked at.
        reliable: enough fields agree for training data to be corrected by it.
    """

    dy: float
    dx: float
    spread: float
    n: int
    of: int
    reliable: bool

    def as_json(self) -> dict[str, Any]:
        """The attributes, JSON-able."""
        return asdict(self)


def plate_offsets(
    fields: Sequence[Any], roles: Sequence[str], read: Callable[[Any, str], np.ndarray | None], reference: str
) -> dict[str, ChannelOffset]:
    """The offset of every role against `reference`, over at most six fields spread over a plate.

    Args:
        fields: keys that `read` knows, in the plate's order.
        roles: the channels.
        read: field and role → `(H, W)`, or None where the field has no such image.
        reference: the role that stays where it is.
    """
    if not fields:
        return {}
    chosen = [fields[k] for k in np.unique(np.linspace(0, len(fields) - 1, _FIELDS).round().astype(int))]
    others = [role for role in roles if role != reference]

    def offsets(key: Any) -> dict[str, tuple[float, float] | None]:
        still = read(key, reference)
        if still is None or min(still.shape) < _MIN_SIDE:
            return {}
        edges, found = _edges(still), {}
        for role in others:
            if (image := read(key, role)) is not None:
                found[role] = _offset(edges, _edges(image))
        return found

    with ThreadPoolExecutor(n_workers()) as threads:
        looked = list(threads.map(offsets, chosen))
    by_role = {role: [one[role] for one in looked if role in one] for role in others}
    return {role: _summary(found) for role, found in by_role.items() if found}


def channel_offset(reference: np.ndarray, image: np.ndarray) -> tuple[float, float] | None:
    """(dy, dx) in px by which `image` has to be moved to lie on `reference`; None without a clear peak.

    Both are reduced to the strength of their edges, so that a stain may be compared with transmitted light;
    the peak of the phase correlation is refined by a parabola.

    Source: Kuglin & Hines 1975 (phase correlation).
    """
    return _offset(_edges(reference), _edges(image))


def _edges(image: np.ndarray) -> np.ndarray:
    """Log of the gradient of the middle of an image, windowed: the halves of DIC relief count alike."""
    import cv2

    height, width = (min(side, _SIDE) for side in image.shape)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    x = image[top : top + height, left : left + width].astype(np.float32)
    smooth, slope = _gaussian()
    along_y = cv2.sepFilter2D(x, cv2.CV_32F, smooth, slope, borderType=cv2.BORDER_REFLECT)
    along_x = cv2.sepFilter2D(x, cv2.CV_32F, slope, smooth, borderType=cv2.BORDER_REFLECT)
    gradient = cv2.magnitude(along_y, along_x)
    gradient = np.log1p(gradient / np.float32(max(float(np.median(gradient)), 1e-6)))
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    return np.asarray((gradient - gradient.mean()) * window, np.float32)


@lru_cache(maxsize=1)
def _gaussian() -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian and its derivative, up to four standard deviations."""
    x = np.arange(-int(4 * _SMOOTHING_PX), int(4 * _SMOOTHING_PX) + 1)
    smooth = np.exp(-(x**2) / (2 * _SMOOTHING_PX**2))
    smooth /= smooth.sum()
    return smooth.astype(np.float32), (smooth * x / _SMOOTHING_PX**2).astype(np.float32)


def _offset(reference: np.ndarray, edges: np.ndarray) -> tuple[float, float] | None:
    from scipy import fft

    height, width = reference.shape
    product = fft.rfft2(reference) * np.conj(fft.rfft2(edges))
    fy, fx = fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None, :]
    # Details finer than the gradient's smoothing are noise, which phases weigh as much as anything.
    weight = np.exp(-((2 * np.pi * _SMOOTHING_PX) ** 2) * (fy**2 + fx**2) / 2)
    surface = fft.irfft2(product / (np.abs(product) + 1e-12) * weight, (height, width))
    surface = np.roll(surface, (MAX_OFFSET_PX, MAX_OFFSET_PX), axis=(0, 1))
    near = surface[: 2 * MAX_OFFSET_PX + 1, : 2 * MAX_OFFSET_PX + 1]
    y, x = (int(k) for k in np.unravel_index(int(near.argmax()), near.shape))
    peak = (near[y, x] - near.mean()) / max(float(near.std()), 1e-12)
    if peak < _MIN_PEAK or not (0 < y < 2 * MAX_OFFSET_PX and 0 < x < 2 * MAX_OFFSET_PX):
        return None
    dy = y - MAX_OFFSET_PX + _vertex(near[y - 1 : y + 2, x])
    dx = x - MAX_OFFSET_PX + _vertex(near[y, x - 1 : x + 2])
    return float(dy), float(dx)


def _vertex(three: np.ndarray) -> float:
    """Where the parabola through three values at −1, 0, 1 is highest."""
    bend = three[0] - 2 * three[1] + three[2]
    return float(0.5 * (three[0] - three[2]) / bend) if bend < 0 else 0.0


def _summary(offsets: Sequence[tuple[float, float] | None]) -> ChannelOffset:
    clear = np.array([offset for offset in offsets if offset is not None]).reshape(-1, 2)
    if not len(clear):
        return ChannelOffset(0.0, 0.0, 0.0, 0, len(offsets), reliable=False)
    dy, dx = (round(float(middle), 2) for middle in np.median(clear, axis=0))
    spread = round(float(np.median(np.hypot(clear[:, 0] - dy, clear[:, 1] - dx))), 2)
    reliable = len(clear) >= 3 and 2 * len(clear) >= len(offsets) and spread <= _AGREEMENT_PX
    return ChannelOffset(dy, dx, spread, len(clear), len(offsets), reliable)


def moved(image: np.ndarray, offset: Mapping[str, Any] | None) -> np.ndarray:
    """An image moved by a reliable offset of at least half a pixel, edges repeated; else itself."""
    if not offset or not offset["reliable"] or max(abs(offset["dy"]), abs(offset["dx"])) < 0.5:
        return image
    from scipy import ndimage

    shifted = ndimage.shift(image.astype(np.float32), (offset["dy"], offset["dx"]), order=1, mode="nearest")
    return np.asarray(
        shifted.astype(image.dtype) if image.dtype.kind == "f" else np.rint(shifted).astype(image.dtype)
    )
