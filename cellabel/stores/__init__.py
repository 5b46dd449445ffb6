"""Plates, predictions, tables and small records at rest, on any fsspec URL, never half-written.

A version of an artefact is written to a folder of its own; only when it is whole does a small record,
replaced atomically, point to it. Who reads follows the record, so a crash leaves the old version or none.
"""

from cellabel.stores._atomic import as_path, json_names, place_errors, read_json, replace_bytes, write_json
from cellabel.stores._memory import FileMemory
from cellabel.stores.artefacts import ArtefactStore, PlateStore, check_plate_id, plate_store
from cellabel.stores.home import Home, open_home
from cellabel.stores.tables import TableStore

__all__ = [
    "ArtefactStore",
    "FileMemory",
    "Home",
    "PlateStore",
    "TableStore",
    "as_path",
    "check_plate_id",
    "open_home",
    "place_errors",
    "plate_store",
    "json_names",
    "read_json",
    "replace_bytes",
    "write_json",
]
