"""Fields judged before any normalisation, by their transmitted light: focus, saturation, light, emptiness."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellabel.errors import InputError
from cellabel.plates._features import FEATURES, acquisition_features, content
from cellabel.plates._plate import Field, Plate
from cellabel.plates._verification import TRANSMITTED, n_workers
from cellabel.plates._wells import column_index, normal_well, row_index, row_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "CHECKS",
    "FEATURES",
    "QualityThresholds",
    "acquisition_features",
    "field_quality",
    "plate_heatmap",
    "plate_quality",
]

CHECKS = ("in_focus", "not_saturated", "evenly_lit", "not_empty")
"""The pass or fail columns of `plate_quality`."""


@dataclass(frozen=True)
class QualityThresholds:
    """What a field must keep to pass.

    Attributes:
        min_relative_focus: least share of the plate's median focus.
        focus_deviations: or at most so many robust standard deviations (of log focus) below that median.
        min_fields_for_focus: with fewer fields the plate is no yardstick: focus passes.
        max_saturated_share: most pixels at the camera's maximum.
        max_black_share: most pixels at 0.
        max_unevenness: most relative range of the illumination.
        min_content: least detail in the richest part of the field, over the noise's (blank: 0.6 to 1.2).
    """

    min_relative_focus: float = 0.5
    focus_deviations: float = 4.0
    min_fields_for_focus: int = 4
    max_saturated_share: float = 0.01
    max_black_share: float = 0.2
    max_unevenness: float = 1.5
    min_content: float = 1.3


def field_quality(fields: Iterable[Field], role: str = TRANSMITTED) -> pd.DataFrame:
    """The features of `acquisition_features`, one row a field, in the fields' order.

    Columns: Metadata_Plate, Metadata_Well, Metadata_Site, the features, `focus` (share of detail finer
    than 4 px) and `content` (detail in the richest block over the noise's).

    Raises:
        InputError: a field has no image in this role.
    """
    import pandas as pd

    with ThreadPoolExecutor(n_workers()) as threads:
        rows = list(threads.map(lambda one: (*one.key, *_measured(one.image(role))), fields))
    names = ["Metadata_Plate", "Metadata_Well", "Metadata_Site", *FEATURES, "focus", "content"]
    return pd.DataFrame(rows, columns=names)


def plate_quality(
    plate: Plate, thresholds: QualityThresholds | None = None, *, role: str = TRANSMITTED
) -> pd.DataFrame:
    """Every field of a plate judged.

    Returns:
        The columns of `field_quality`; `relative_focus` (over the plate's median); booleans for each of
        `CHECKS`; `passed`; and `reason`, "" where the field passed.

    Raises:
        InputError: the plate has no field.
    """
    limits = thresholds or QualityThresholds()
    table = field_quality(plate.fields(), role)
    if table.empty:
        raise InputError(f"Plate {plate.plate_id} has no field to judge: import it from a better export.")
    log_focus = np.log(np.maximum(table["focus"].to_numpy(), 1e-6))
    centre = float(np.median(log_focus))
    deviation = 1.4826 * float(np.median(np.abs(log_focus - centre)))
    table["relative_focus"] = np.exp(log_focus - centre)
    blurred = (table["relative_focus"] < limits.min_relative_focus) & (
        log_focus < centre - limits.focus_deviations * deviation
    )
    table["in_focus"] = ~blurred | (len(table) < limits.min_fields_for_focus)
    table["not_saturated"] = (table["saturated_share"] <= limits.max_saturated_share) & (
        table["black_share"] <= limits.max_black_share
    )
    table["evenly_lit"] = table["unevenness"] <= limits.max_unevenness
    table["not_empty"] = table["content"] >= limits.min_content
    table["passed"] = table[list(CHECKS)].all(axis=1)
    table["reason"] = [_reason(row, limits) for row in table.to_dict("records")]
    return table


def plate_heatmap(table: pd.DataFrame, column: str) -> Figure:
    """One column of a table of fields or wells, in the layout of the plate (mean of a well's fields).

    Args:
        table: with `Metadata_Well` as a column or index, and `column` with numbers or booleans.
        column: which one.

    Raises:
        InputError: no such column, or no wells.
    """
    from matplotlib.figure import Figure

    flat = table if "Metadata_Well" in table else table.reset_index()
    if "Metadata_Well" not in flat or column not in flat or flat.empty:
        raise InputError(
            f"A map of {column!r} needs a table with wells and this column: measure the plate first."
        )
    means = flat.assign(value=flat[column].astype(float)).groupby("Metadata_Well")["value"].mean()
    if unknown := [well for well in means.index if normal_well(str(well)) is None]:
        raise InputError(f"{unknown[0]!r} is no well of a plate: write wells as A01 or AF48.")
    places = [(row_index(well), column_index(well)) for well in means.index]
    last_row, last_column = max(row for row, _ in places), max(column for _, column in places)
    rows, columns = next(s for s in ((8, 12), (16, 24), (32, 48)) if last_row < s[0] and last_column < s[1])
    grid = np.full((rows, columns), np.nan)
    for place, value in zip(places, means, strict=True):
        grid[place] = value
    figure = Figure(figsize=(1.5 + 0.35 * columns, 1.0 + 0.35 * rows), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(grid, cmap="viridis", aspect="equal", interpolation="nearest")
    axes.set_xticks(range(columns), [str(k + 1) for k in range(columns)], fontsize=7)
    axes.set_yticks(range(rows), [row_name(k) for k in range(rows)], fontsize=7)
    axes.set_title(column)
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    return figure


def _measured(image: np.ndarray) -> tuple[float, ...]:
    features = acquisition_features(image)
    focus = features["sharpness_1"] + features["sharpness_2"]
    return (*(features[name] for name in FEATURES), focus, content(image, features["noise"]))


def _reason(row: dict, limits: QualityThresholds) -> str:
    """What a field fails, in words."""
    told = []
    if not row["in_focus"]:
        told.append(f"out of focus ({row['relative_focus']:.0%} of the plate's median)")
    if row["saturated_share"] > limits.max_saturated_share:
        told.append(f"{row['saturated_share']:.1%} of the pixels are saturated")
    if row["black_share"] > limits.max_black_share:
        told.append(f"{row['black_share']:.1%} of the pixels are black")
    if not row["evenly_lit"]:
        told.append(f"light differs by {row['unevenness']:.0%} across the field")
    if not row["not_empty"]:
        told.append(f"nothing but noise (content {row['content']:.2f})")
    return "; ".join(told)
