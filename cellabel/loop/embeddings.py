"""Embeddings as columns of tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["embedding_columns", "embedding_matrix", "field_embedding", "well_embeddings"]

PREFIX = "e"
WELL = ["Metadata_Plate", "Metadata_Well"]


def field_embedding(whole: NDArray, foreground: NDArray) -> NDArray[np.float32]:
    """Whole-field mean, then the foreground-weighted one: background hides foreign cells in the first."""
    return np.concatenate([whole, foreground]).astype(np.float32)


def embedding_columns(embedding: NDArray) -> dict[str, float]:
    """An embedding (d,) as columns e000, e001, … ."""
    return {f"{PREFIX}{index:03d}": float(value) for index, value in enumerate(embedding)}


def number_columns(table: pd.DataFrame) -> list[str]:
    """The columns that are numbers of the embedding (or acquisition features), in order of their names."""
    return sorted(name for name in table.columns if not name.startswith("Metadata_") and name != "condition")


def embedding_matrix(table: pd.DataFrame) -> NDArray[np.float64]:
    """The embeddings of a table, (n, d)."""
    return table[number_columns(table)].to_numpy(dtype=float)


def well_embeddings(fields: pd.DataFrame, by: list[str] | None = None) -> pd.DataFrame:
    """One row a well, the mean over its fields: fields of a well are alike, wells are the observations."""
    return fields.groupby(by or WELL, as_index=False, sort=True)[number_columns(fields)].mean()
