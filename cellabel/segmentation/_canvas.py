"""What passes from one step of a segmentation to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FULL_SCALE", "Canvas"]

FULL_SCALE = 65535
"""Intensities are counted in whole steps up to here.

Whole numbers make every filter exact, so that an image turned by 90° or moved is segmented alike to the
pixel.
"""


@dataclass
class Canvas:
    """One image on its way to labels.

    Attributes:
        image: (H, W) as it was given, its own units.
        work: (H, W) uint16, the image between its darkest and its brightest pixel; hot pixels are cut.
        smooth: (H, W) uint16, `work` before any pixel was zeroed.
        fine: (H, W) uint16, the same smoothed half as much, for outlines.
        mask: (H, W) uint8, 1 where an object may be.
        labels: (H, W) int32, 0 is background.
        level: of the background, in units of `work`.
        noise: standard deviation of the background, in units of `work`.
        floor: height above the background under which nothing is an object; the image's units at first, those
            of `work` once there is one.
        core: how far objects are cut to their core, 0 to 1; None until the field has said it.
    """

    image: NDArray[Any]
    work: NDArray[Any]
    smooth: NDArray[Any]
    fine: NDArray[Any]
    mask: NDArray[Any]
    labels: NDArray[np.int32]
    level: float = 0.0
    noise: float = 0.0
    floor: float = 0.0
    core: float | None = None

    _listed: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = None

    def foreground(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Flat indices of the labelled pixels, ascending, and their labels."""
        if self._listed is None or self._listed[0] is not self.labels:
            where = np.flatnonzero(self.labels > 0)
            self._listed = (self.labels, where, self.labels.ravel()[where])
        return self._listed[1:]

    def relabel(self, where: NDArray[Any], owner: NDArray[Any]) -> None:
        """Replace labels and mask: `owner` at the flat indices `where` (ascending), 0 elsewhere."""
        kept = owner > 0
        where, owner = where[kept], owner[kept].astype(np.int32, copy=False)
        self.labels = np.zeros(self.mask.shape, np.int32)
        self.labels.ravel()[where] = owner
        self.mask = np.zeros(self.mask.shape, np.uint8)
        self.mask.ravel()[where] = 1
        self._listed = (self.labels, where, owner)

    @classmethod
    def of(cls, image: NDArray[Any], floor: float = 0.0, core: float | None = None) -> Canvas:
        """A canvas on which nothing has been drawn."""
        return cls(
            image=image,
            floor=floor,
            core=core,
            work=np.zeros(image.shape, np.uint16),
            smooth=np.zeros(image.shape, np.uint16),
            fine=np.zeros(image.shape, np.uint16),
            mask=np.ones(image.shape, np.uint8),
            labels=np.zeros(image.shape, np.int32),
        )
