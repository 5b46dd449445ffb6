"""How vendors name their files: one module a layout, one function each, one registry.

A new layout is a module with `find(folder, files, settings) -> Found | None` and a line in `LAYOUTS`.
"""

from cellabel.plates.layouts import metaxpress, phenix, regex
from cellabel.plates.layouts._base import Found, Layout, Plane

LAYOUTS: dict[str, Layout] = {
    "metaxpress": metaxpress.find,
    "phenix": phenix.find,
    "regex": regex.find,
}
"""Layout name → the function that reads it."""

__all__ = ["LAYOUTS", "Found", "Layout", "Plane"]
