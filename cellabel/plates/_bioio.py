"""Nikon ND2 and Leica LIF through bioio's readers, which the extra `vendors` installs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from cellabel.errors import InputError
from cellabel.plates._images import ImageFile

READERS = {".nd2": "bioio_nd2", ".lif": "bioio_lif"}
"""End of the name → the package whose `Reader` reads it."""


@dataclass(frozen=True)
class ContainerPlane:
    """One plane of a container, in the order in which `open_container` counts them."""

    scene: int
    time: int
    channel: int
    z: int


def container_reader(path: Path) -> Any:
    """The reader of one file.

    Raises:
        InputError: the package that reads it is not installed.
    """
    package = READERS[path.suffix.lower()]
    try:
        return importlib.import_module(package).Reader(str(path))
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path.name} is read by {package.replace('_', '-')}, which is not installed: "
            'run pip install "cellabel[vendors]".'
        ) from error


def container_planes(reader: Any) -> Iterator[ContainerPlane]:
    """Every plane of a container: scene by scene, time by time, channel by channel, then z."""
    for scene in range(len(reader.scenes)):
        reader.set_scene(scene)
        sizes = dict(zip(reader.dims.order, reader.dims.shape, strict=True))
        for time, channel, z in product(*(range(sizes.get(axis, 1)) for axis in "TCZ")):
            yield ContainerPlane(scene, time, channel, z)


def open_container(path: Path) -> ImageFile:
    """The planes of an ND2 or LIF file, decoded one by one."""
    reader = container_reader(path)
    planes = list(container_planes(reader))

    def plane(index: int) -> np.ndarray:
        at = planes[index]
        reader.set_scene(at.scene)
        axes = reader.dims.order
        where = {axis: n for axis, n in (("T", at.time), ("C", at.channel), ("Z", at.z)) if axis in axes}
        return np.asarray(reader.get_image_dask_data("YX", **where).compute(scheduler="synchronous"))

    return ImageFile(len(planes), plane)
