"""How vendors name their files: one module a layout, one function each, one registry.

A new layout is a module with `find(folder, files, settings) -> Found | None` and a line in `LAYOUTS`.
"""

from cellabel.plates.layouts import (
    cellvoyager,
    container,
    ics,
    metaxpress,
    ome_tiff,
    ome_zarr,
    phenix,
    regex,
    stack,
)
from cellabel.plates.layouts._base import Found, Layout, Plane

LAYOUTS: dict[str, Layout] = {
    "metaxpress": metaxpress.find,
    "phenix": phenix.find,
    "cellvoyager": cellvoyager.find,
    "ome_zarr": ome_zarr.find,
    "stack": stack.find,
    "ics": ics.find,
    "container": container.find,
    "ome_tiff": ome_tiff.find,
    "regex": regex.find,
}
"""Layout name → the function that reads it; those that open files come after those that read names alone."""

__all__ = ["LAYOUTS", "Found", "Layout", "Plane"]
