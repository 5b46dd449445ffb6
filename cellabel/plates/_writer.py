"""One plate as OME-Zarr HCS: NGFF 0.5, zarr v3, lossless, the same bytes for the same images."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from upath import UPath

from cellabel.plates._ngff import (
    field_path,
    group_bytes,
    image_metadata,
    label_metadata,
    plate_metadata,
    well_metadata,
)
from cellabel.plates._shards import COARSE, FULL, Compressor, ShardedArray
from cellabel.plates._wells import split_well, well_order
from cellabel.stores import check_plate_id

Location = str | os.PathLike[str] | UPath
"""A path or fsspec URL."""
CHUNK = 1024
"""Side of the largest chunk, px: planes up to this size are one chunk. A shard holds a whole level."""
Stack = np.ndarray | Sequence[np.ndarray]
"""One image `(H, W)`, or the planes of a focus series, `(H, W)` each, read one by one."""
_SMALLEST_LEVEL = 512


class PlateWriter:
    """Writes one plate field by field; `write_field` may be called from several threads.

    All metadata but the fields' own is written at once, so fields and channels are known upfront. Nothing
    guards a plate that is half written: write into a scratch folder (`PlateStore.write`).

    Args:
        path: folder of the plate, local or any fsspec URL; made if absent.
        plate_id: the plate's id.
        fields: `(well, site)` of all fields that will be written.
        channels: roles, in the order of the channel axis.
        pixel_size_um: side of a pixel, µm; None where unknown.
        attributes: whatever else belongs to the plate, JSON-able (see `Plate`).
        missing: `(well, site)` → role → reason, for channels that a field lacks: stored as zeros.
        dtypes: role → type in which `Field.image` returns it, where channels differ.
        focus: `(well, site)` → role → number of planes and the sharpest of them. Where it is given, the plate
            has an axis z and every field must be in it.
    """

    def __init__(
        self,
        path: Location,
        plate_id: str,
        *,
        fields: Sequence[tuple[str, int]],
        channels: Sequence[str],
        pixel_size_um: float | None = None,
        attributes: Mapping[str, Any] | None = None,
        missing: Mapping[tuple[str, int], Mapping[str, str]] | None = None,
        dtypes: Mapping[str, str] | None = None,
        focus: Mapping[tuple[str, int], Mapping[str, tuple[int, int]]] | None = None,
    ) -> None:
        self.path = UPath(path)
        self.plate_id = check_plate_id(plate_id)
        self.fields = sorted(set(fields), key=lambda key: (well_order(key[0]), key[1]))
        self.channels = tuple(channels)
        self.pixel_size_um = pixel_size_um
        self._missing = {key: dict(roles) for key, roles in (missing or {}).items()}
        self._unwritten = set(self.fields)
        self._focus = focus
        own = own_attributes(
            plate_id, self.fields, self.channels, pixel_size_um, self._missing, dtypes or {}, focus
        )
        self._write_groups({**(attributes or {}), **own})

    def write_field(
        self,
        well: str,
        site: int,
        images: Mapping[str, Stack],
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write one field; of a focus series, memory holds one plane of every channel.

        Args:
            well: its well.
            site: its site.
            images: role → `(H, W)`, or a focus series, for every channel that is not missing.
            labels: name → `(H, W)` int32, 0 is background; NGFF label images beside the field's image.

        Raises:
            ValueError: the field or a channel is not one of those announced, or shapes differ.
        """
        stacks = self._stacks(well, site, images)
        folder = self.path / field_path(well, site)
        depth = max(len(stack) for stack in stacks.values())
        levels: list[list[np.ndarray]] = []
        arrays: list[ShardedArray] = []
        for z in range(depth):
            levels = _pyramid(self._plane(well, site, stacks, z))
            if not arrays:
                arrays = [
                    self._new_array(folder / str(k), planes[0], depth, FULL if k == 0 else COARSE)
                    for k, planes in enumerate(levels)
                ]
            for array, planes in zip(arrays, levels, strict=True):
                if self._focus is None:
                    array.write(planes)
                else:
                    array.write([plane[None] for plane in planes], (0, z, 0, 0))
        if labels:
            self._write_labels(folder, labels, levels[0][0].shape)
        name = f"{self.plate_id} {well} {site}"
        ome = image_metadata(name, self.channels, levels, self.pixel_size_um, has_z=self._focus is not None)
        missing = self._missing.get((well, site), {})
        write_group(folder, {"ome": ome, "cellabel": {"missing": missing, "labels": sorted(labels or {})}})
        self._unwritten.discard((well, site))

    def __enter__(self) -> PlateWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._unwritten:
            raise ValueError(
                f"{len(self._unwritten)} fields of {self.plate_id} were announced but not written"
            )

    def _stacks(self, well: str, site: int, images: Mapping[str, Stack]) -> dict[str, Sequence[np.ndarray]]:
        if (well, site) not in self.fields:
            raise ValueError(f"field {well} site {site} was not announced to the writer of {self.plate_id}")
        expected = set(self.channels) - set(self._missing.get((well, site), {}))
        if set(images) != expected or not images:
            raise ValueError(
                f"field {well} site {site} needs the channels {sorted(expected)}, not {sorted(images)}"
            )
        stacks: dict[str, Sequence[np.ndarray]] = {
            role: image if not isinstance(image, np.ndarray) else [image] if image.ndim == 2 else list(image)
            for role, image in images.items()
        }
        counts = {role: len(stack) for role, stack in stacks.items()}
        if self._focus is None and max(counts.values()) > 1:
            raise ValueError(f"field {well} site {site} has a focus series that was not announced")
        if self._focus is not None:
            announced = {role: n for role, (n, _) in self._focus.get((well, site), {}).items()}
            if announced != counts:
                raise ValueError(f"field {well} site {site} needs planes {announced}, not {counts}")
        return stacks

    def _plane(
        self, well: str, site: int, stacks: Mapping[str, Sequence[np.ndarray]], z: int
    ) -> list[np.ndarray]:
        """Plane z of every channel, of one type; zeros where a channel is missing or has fewer planes."""
        here = {role: stack[z] for role, stack in stacks.items() if z < len(stack)}
        first = next(iter(here.values()))
        if first.ndim != 2 or any(image.shape != first.shape for image in here.values()):
            raise ValueError(f"the images of field {well} site {site} differ in shape or are not (H, W)")
        dtype = np.result_type(*(image.dtype for image in here.values()))
        return [
            here[role].astype(dtype, copy=False) if role in here else np.zeros(first.shape, dtype)
            for role in self.channels
        ]

    def _new_array(
        self, path: UPath, image: np.ndarray, depth: int, compressor: tuple[Compressor, int]
    ) -> ShardedArray:
        """One level; a shard holds one plane of every channel, so that planes are written one by one."""
        channels, (height, width) = len(self.channels), image.shape
        part = (_part(height), _part(width))
        if self._focus is None:
            shape: tuple[int, ...] = (channels, height, width)
            return ShardedArray(path, shape, image.dtype, (1, *part), ("c", "y", "x"), compressor=compressor)
        shape, axes = (channels, depth, height, width), ("c", "z", "y", "x")
        whole = (channels, 1, height, width)
        return ShardedArray(path, shape, image.dtype, (1, 1, *part), axes, whole, compressor)

    def _write_labels(self, folder: UPath, labels: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> None:
        for name, label in sorted(labels.items()):
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or label.shape != shape:
                raise ValueError(
                    f"label image {name!r} of shape {label.shape} does not fit images of shape {shape}"
                )
            levels = _label_pyramid(label.astype(np.int32))
            home = folder / "labels" / name
            for level, pixels in enumerate(levels):
                chunk = (_part(pixels.shape[0]), _part(pixels.shape[1]))
                ShardedArray(home / str(level), pixels.shape, pixels.dtype, chunk, ("y", "x")).write(pixels)
            write_group(home, {"ome": label_metadata(name, len(levels), self.pixel_size_um)})
        write_group(folder / "labels", {"ome": {"version": "0.5", "labels": sorted(labels)}})

    def _write_groups(self, own: Mapping[str, Any]) -> None:
        sites: dict[str, list[int]] = {}
        for well, site in self.fields:
            sites.setdefault(well, []).append(site)
        for row in {split_well(well)[0] for well in sites}:
            write_group(self.path / row, {})
        for well, numbers in sites.items():
            write_group(self.path.joinpath(*split_well(well)), {"ome": well_metadata(numbers)})
        write_group(self.path, {"ome": plate_metadata(self.plate_id, self.fields), "cellabel": dict(own)})


def own_attributes(
    plate_id: str,
    fields: Sequence[tuple[str, int]],
    channels: Sequence[str],
    pixel_size_um: float | None,
    missing: Mapping[tuple[str, int], Mapping[str, str]],
    dtypes: Mapping[str, str],
    focus: Mapping[tuple[str, int], Mapping[str, tuple[int, int]]] | None,
) -> dict[str, Any]:
    """What a plate keeps under `cellabel` to be opened again, JSON-able; arguments as of `PlateWriter`."""
    own: dict[str, Any] = {
        "plate_id": plate_id,
        "fields": [list(key) for key in fields],
        "channels": list(channels),
        "pixel_size_um": pixel_size_um,
        "missing": {field_path(*key): dict(roles) for key, roles in sorted(missing.items())},
        "dtypes": dict(sorted(dtypes.items())),
    }
    if focus is not None:
        own["focus"] = {
            field_path(*key): {role: list(one) for role, one in sorted(roles.items())}
            for key, roles in sorted(focus.items())
        }
    return own


def write_group(folder: UPath, attributes: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_bytes(group_bytes(attributes))


def _part(side: int) -> int:
    """A side in equal chunks, none above `CHUNK`: what sticks out of an image is compressed for nothing."""
    return -(-side // -(-side // CHUNK))


def zarr_location(path: UPath) -> Any:
    """What zarr opens: a local path as text, otherwise a store on the path's file system."""
    if isinstance(path, Path):
        return str(path)
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(str(path), storage_options=dict(path.storage_options))


def _pyramid(images: list[np.ndarray]) -> list[list[np.ndarray]]:
    """The images and at least one coarser level, each the mean of 2 × 2 pixels of the one before."""
    levels = [images]
    while len(levels) < 2 or max(levels[-1][0].shape) > _SMALLEST_LEVEL:
        levels.append([_halved(image) for image in levels[-1]])
    return levels


def _halved(plane: np.ndarray) -> np.ndarray:
    """Means of 2 × 2 pixels, rounded half up where they are whole; an odd last row or column is left out."""
    height, width = (side // 2 for side in plane.shape)
    even = plane[: 2 * height, : 2 * width]
    if plane.dtype in (np.uint8, np.uint16) and height and width:
        import cv2

        return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
    whole = plane.dtype.kind in "ui"
    wide: np.ndarray = even.astype(np.float64)
    rows: np.ndarray = wide[::2] + wide[1::2]
    total: np.ndarray = rows[:, ::2] + rows[:, 1::2]
    return (np.floor(total / 4 + 0.5) if whole else total / 4).astype(plane.dtype)


def _label_pyramid(label: np.ndarray) -> list[np.ndarray]:
    """Labels and coarser levels by every second pixel: labels are never averaged."""
    levels = [label]
    while len(levels) < 2 or max(levels[-1].shape) > _SMALLEST_LEVEL:
        height, width = (side // 2 for side in levels[-1].shape)
        levels.append(levels[-1][: 2 * height : 2, : 2 * width : 2])
    return levels
