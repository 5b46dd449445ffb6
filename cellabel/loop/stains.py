"""What a field's own stain shows: the truth that a prediction is compared with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellabel.datasets import stain_of
from cellabel.organelles import Organelle
from cellabel.plates import Field, Plate, registered
from cellabel.preprocessing import prepare_target
from cellabel.segmentation import segment

__all__ = ["Stained", "stained"]


class Stained(NamedTuple):
    """A stain as it is learnt and measured.

    Attributes:
        target: (H, W) float32, background removed, or a mask.
        labels: (H, W) int32, its objects.
    """

    target: NDArray[np.float32]
    labels: NDArray[np.int32]


def stained(field: Field, plate: Plate, organelle: Organelle) -> Stained | None:
    """The stain of a field of a plate, laid over its transmitted light as it is learnt; None without one.

    Objects are found in the stain itself, whose noise says what is none; the target has no background left.
    """
    role = stain_of(field.roles, organelle)
    if role is None:
        return None
    image = registered(plate, field.image(role, organelle.plane), role)
    return Stained(
        prepare_target(image, organelle, pixel_size_um=plate.pixel_size_um),
        segment(image, organelle, pixel_size_um=plate.pixel_size_um),
    )
