"""Parquet tables, one file a table and plate."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from cellabel.errors import InputError
from cellabel.stores._atomic import as_path, is_local, replace_bytes

if TYPE_CHECKING:
    import pandas as pd
    from upath import UPath


class TableStore:
    """Tables addressed by their folder parts and a name: `write(table, "cells", "nuclei", "P1")`."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.root = as_path(url)

    def path(self, *parts: str) -> UPath:
        """The file of a table."""
        if not parts or any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts):
            raise InputError(f"{'/'.join(parts)!r} cannot name a table: parts are plain names.")
        return self.root.joinpath(*parts[:-1], f"{parts[-1]}.parquet")

    def write(self, table: pd.DataFrame, *parts: str) -> UPath:
        """Replace a table, atomically."""
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False, compression="zstd")
        path = self.path(*parts)
        replace_bytes(path, buffer.getvalue())
        return path

    def read(self, *parts: str) -> pd.DataFrame:
        """A table.

        Raises:
            InputError: it is not there, or is not a Parquet file.
        """
        import pandas as pd
        import pyarrow as pa

        path = self.path(*parts)
        try:
            return pd.read_parquet(io.BytesIO(path.read_bytes()))
        except FileNotFoundError as error:
            raise InputError(
                f"There is no table {'/'.join(parts)!r} in {self.root}: make it first."
            ) from error
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{path} is not a Parquet table ({error}): delete it and make it again."
            ) from error

    def has(self, *parts: str) -> bool:
        """Whether the table is there."""
        return self.path(*parts).exists()

    def names(self, *parts: str) -> list[str]:
        """The tables in a folder, sorted."""
        folder = self.root.joinpath(*parts)
        if not folder.exists():
            return []
        if is_local(folder):
            names = (name for name in os.listdir(str(folder)) if name.endswith(".parquet"))
            return sorted(name.removesuffix(".parquet") for name in names)
        return sorted(file.name.removesuffix(".parquet") for file in folder.glob("*.parquet"))
