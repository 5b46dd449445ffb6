"""Plate → well → field: what other rooms see of a stored plate."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

import numpy as np
from upath import UPath

from cellabel.errors import InputError
from cellabel.plates._links import linked_planes
from cellabel.plates._ngff import field_path
from cellabel.plates._plan import plan_table
from cellabel.plates._registration import moved
from cellabel.plates._verification import Source, read_verified
from cellabel.plates._writer import Location, zarr_location
from cellabel.stores import PlateStore, as_path, place_errors, plate_store

if TYPE_CHECKING:
    import pandas as pd

PLATE_SUFFIX = ".zarr"
PlaneChoice = Literal["sharpest", "maximum", "mean"]
PLANE_CHOICES: tuple[str, ...] = get_args(PlaneChoice)


@dataclass(frozen=True, eq=False)
class Field:
    """One field of view; its images are read when asked for.

    Attributes:
        plate_id, well, site: which field.
        roles: the images it has.
        missing: roles of the plate that it lacks, and why.
        focus: role → number of planes and the sharpest of them, of a plate that keeps focus series.
    """

    plate_id: str
    well: str
    site: int
    roles: tuple[str, ...]
    missing: Mapping[str, str] = field(repr=False)
    path: UPath = field(repr=False)
    _channels: tuple[str, ...] = field(repr=False)
    _dtypes: Mapping[str, str] = field(repr=False)
    focus: Mapping[str, Sequence[int]] | None = field(default=None, repr=False)
    _links: Mapping[str, Sequence[Source]] | None = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, str, int]:
        """`(Metadata_Plate, Metadata_Well, Metadata_Site)`."""
        return self.plate_id, self.well, self.site

    def image(self, role: str, plane: PlaneChoice | int = "sharpest") -> np.ndarray:
        """The image in one role, `(H, W)`, of the type in which it was taken.

        Args:
            role: which image.
            plane: of a focus series: the sharpest plane, the brightest or mean value of every pixel over all
                planes, or one plane by its number from 0. It changes nothing where there is one plane.

        Raises:
            InputError: the field has no such image or plane (and why), or it can no longer be read.
        """
        count = self.n_planes(role)
        if self.focus is None:
            return self._plane(role, 0) if plane in (0, *PLANE_CHOICES) else self._no(plane, 1)
        if plane == "sharpest" or count == 1:
            return self._plane(role, self.focus[role][1])
        if plane not in PLANE_CHOICES:
            if not isinstance(plane, int) or not 0 <= plane < count:
                self._no(plane, count)
            return self._plane(role, plane)
        total = self._plane(role, 0).astype(np.float64 if plane == "mean" else None)
        for z in range(1, count):  # one by one: a series may not fit into memory
            here = self._plane(role, z)
            total = total + here if plane == "mean" else np.maximum(total, here)
        if plane == "mean":
            kind = np.dtype(self._dtypes.get(role, "float32")).kind
            total = np.rint(total / count) if kind in "ui" else total / count
        return self._typed(role, total)

    def n_planes(self, role: str) -> int:
        """How many planes the focus series of one role has; 1 where there is a single image."""
        self._channel(role)
        return int(self.focus[role][0]) if self.focus is not None else 1

    def _channel(self, role: str) -> int:
        if role not in self.roles:
            why = f" ({self.missing[role]})" if role in self.missing else ""
            raise InputError(f"{self._name} has no {role} image{why}: there are {', '.join(self.roles)}.")
        return self._channels.index(role)

    def _plane(self, role: str, z: int) -> np.ndarray:
        if self._links is not None:
            return self._typed(role, read_verified(self._links[role][z]))
        c = self._channel(role)
        return self._typed(role, self._read("0", c if self.focus is None else (c, z)))

    def _typed(self, role: str, pixels: np.ndarray) -> np.ndarray:
        return pixels.astype(self._dtypes.get(role, pixels.dtype), copy=False)

    def _no(self, plane: object, count: int) -> NoReturn:
        raise InputError(
            f"{self._name} has no plane {plane!r}: give {', '.join(PLANE_CHOICES)} or a number below {count}."
        )

    @property
    def _name(self) -> str:
        return f"Plate {self.plate_id}, well {self.well}, site {self.site}"

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the label images stored beside the field's image."""
        content = _group(self.path / "labels")
        return tuple(content["attributes"]["ome"]["labels"]) if content else ()

    def labels(self, name: str) -> np.ndarray:
        """A label image, `(H, W)` int32, 0 is background.

        Raises:
            InputError: there is none of this name.
        """
        if name not in self.label_names:
            has = ", ".join(self.label_names) or "none"
            raise InputError(
                f"{self._name} has no labels {name!r} "
                f"(there are {has}): predict the plate, or ask for one of them."
            )
        return self._read(f"labels/{name}/0", Ellipsis)

    def _read(self, array: str, selection: Any) -> np.ndarray:
        import zarr

        try:
            return np.asarray(zarr.open_array(zarr_location(self.path / array), mode="r")[selection])
        except place_errors(ValueError, RuntimeError, KeyError) as error:
            raise InputError(
                f"{self._name} cannot be read from {self.path} ({error}): import the plate again."
            ) from error


@dataclass(frozen=True, eq=False)
class Well:
    """One well: its fields by site."""

    name: str
    fields: dict[int, Field]


@dataclass(frozen=True, eq=False)
class Plate:
    """A stored plate; pixels are read when asked for.

    Attributes:
        plate_id: its id.
        path: the OME-Zarr folder; of a linked plate, a folder that only refers to another one's arrays.
        channels: roles that the plate has, `transmitted` first.
        pixel_size_um: side of a pixel, µm, or None.
        wells: well name → well, row by row; quarantined fields are not among them.
        attributes: what was written with the plate, as JSON.
    """

    plate_id: str
    path: UPath
    channels: tuple[str, ...]
    pixel_size_um: float | None
    wells: dict[str, Well] = field(repr=False)
    attributes: Mapping[str, Any] = field(repr=False)

    @property
    def content_hash(self) -> str:
        """Digest of the acquisition from which the plate was made ("" where it was not imported)."""
        return str(self.attributes.get("content_hash", ""))

    @property
    def acquired_at(self) -> datetime | None:
        """When it was imaged (aware), or None."""
        text = self.attributes.get("acquired_at")
        return datetime.fromisoformat(text) if text else None

    @property
    def instrument(self) -> str:
        """Which microscope imaged it; "" where unknown."""
        return str(self.attributes.get("instrument") or "")

    @property
    def plan(self) -> pd.DataFrame | None:
        """The plate plan, index `Metadata_Well`, or None."""
        records = self.attributes.get("plan")
        return plan_table(records) if records else None

    @property
    def quarantined(self) -> pd.DataFrame:
        """Fields that were left out: Metadata_Well, Metadata_Site, reason."""
        import pandas as pd

        columns = ["Metadata_Well", "Metadata_Site", "reason"]
        return pd.DataFrame(self.attributes.get("quarantined", []), columns=columns)

    @property
    def registration(self) -> pd.DataFrame:
        """How far each stain lies from the transmitted light, index `channel` (see `ChannelOffset`).

        Images are stored as they were taken; `registered` moves one for training.
        """
        import pandas as pd

        columns = ["dy", "dx", "spread", "n", "of", "reliable"]
        found = self.attributes.get("registration", {})
        return pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis("channel")

    def fields(self) -> Iterator[Field]:
        """Every field, row by row, site by site."""
        for well in self.wells.values():
            yield from well.fields.values()


def registered(plate: object, image: np.ndarray, role: str) -> np.ndarray:
    """An image of one role, moved onto the transmitted light where the plate's offset is reliable."""
    found = getattr(plate, "attributes", {}).get("registration", {})
    return moved(image, found.get(role))


def open_plate(
    store: PlateStore | str | os.PathLike[str], plate_id: str, *, any_status: bool = False
) -> Plate:
    """The current version of a stored plate.

    Args:
        store: a `PlateStore`, or its path or URL.
        plate_id: which plate.
        any_status: also a quarantined or retired plate, to see what is the matter with it.

    Raises:
        InputError: no such plate, or it is quarantined or retired (with the reason).
    """
    store = plate_store(store)
    record = store.record(plate_id)
    if not any_status and record is not None and record.get("status", "accepted") != "accepted":
        raise InputError(
            f"Plate {plate_id} is {record['status']} ({record.get('reason') or 'no reason given'}): "
            "release it, or import a new export of it."
        )
    return read_plate(store.path(plate_id) / f"{plate_id}{PLATE_SUFFIX}")


def read_plate(location: Location) -> Plate:
    """A plate that `PlateWriter` wrote, wherever it lies.

    Raises:
        InputError: there is none.
    """
    path = as_path(location)
    content = _group(path)
    own = (content or {}).get("attributes", {}).get("cellabel")
    if not own or "fields" not in own:
        raise InputError(f"{path} holds no plate: import it, or name the folder that ends in {PLATE_SUFFIX}.")
    channels = tuple(own["channels"])
    wells: dict[str, Well] = {}
    for well, site in own["fields"]:
        missing = own["missing"].get(field_path(well, site), {})
        roles = tuple(role for role in channels if role not in missing)
        home = path / field_path(well, site)
        focus = own["focus"][field_path(well, site)] if "focus" in own else None
        links = linked_planes(own["links"], well, site) if "links" in own else None
        one = Field(own["plate_id"], well, site, roles, missing, home, channels, own["dtypes"], focus, links)
        wells.setdefault(well, Well(well, {})).fields[site] = one
    return Plate(own["plate_id"], path, channels, own["pixel_size_um"], wells, own)


def _group(path: UPath) -> dict[str, Any] | None:
    try:
        return dict(json.loads((path / "zarr.json").read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except place_errors() as error:
        raise InputError(f"{path} cannot be read ({error}): see that the store can be reached.") from error
    except ValueError as error:
        raise InputError(f"{path / 'zarr.json'} is damaged ({error}): import the plate again.") from error
