"""A z-stack as one image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError

__all__ = ["PROJECTIONS", "project"]


def project(stack: ArrayLike, method: str = "max", *, window: int = 9) -> NDArray[np.float32]:
    """One image from the planes of a z-stack.

    Args:
        stack: (Z, H, W), any intensity units.
        method: "max", "mean", "sum", "middle" plane, or "focus": the locally sharpest plane.
        window: side of the neighbourhood in which sharpness is judged, px; only for "focus".

    Returns:
        (H, W) float32, the stack's units.

    Raises:
        InputError: not (Z, H, W), NaN or infinite values, or no such method.
    """
    planes = np.asarray(stack)
    if planes.ndim != 3 or planes.size == 0:
        raise InputError(f"A stack of shape {planes.shape} cannot be projected; give planes (Z, H, W).")
    if planes.dtype.kind == "f" and not np.isfinite(planes).all():
        raise InputError("The stack has pixels that are NaN or infinite; export it again or leave it out.")
    if method not in PROJECTIONS:
        raise InputError(f"No projection is called {method!r}; there are {', '.join(PROJECTIONS)}.")
    planes = planes.astype(np.float32)
    if method == "middle":
        return np.asarray(planes[len(planes) // 2])
    if method == "focus":
        return _sharpest(planes, window)
    return np.asarray(getattr(planes, method)(axis=0), np.float32)


PROJECTIONS = ("max", "mean", "sum", "middle", "focus")
"""Methods of `project`."""


def _sharpest(planes: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    side = int(window) | 1
    sharpness = np.stack(
        [
            cv2.blur(cv2.Laplacian(plane, cv2.CV_32F) ** 2, (side, side), borderType=cv2.BORDER_REFLECT)
            for plane in planes
        ]
    )
    best = sharpness.argmax(axis=0)
    return np.asarray(np.take_along_axis(planes, best[None], axis=0)[0])
