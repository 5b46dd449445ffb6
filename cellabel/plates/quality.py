"""Fields judged before any normalisation, by their transmitted light: focus, saturation, light, emptiness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from cellabel.errors import InputError
from cellabel.plates._features import FEATURES, acquisition_features, content, debris_share
from cellabel.plates._plate import Field, Plate
from cellabel.plates._verification import TRANSMITTED, n_workers, pixel_digest
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

CHECKS = ("in_focus", "not_saturated", "evenly_lit", "not_empty", "free_of_debris", "not_duplicate")
"""The pass or fail columns of `plate_quality`."""
HEATMAP = ("relative_focus", "saturated_share", "unevenness", "content", "debris_share", "passed")
"""The columns of `plate_quality` that the map of a plate shows."""


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
        max_debris_share: most of the field that large dark or bright lumps may cover,
        debris_over_median: or at most so many times the plate's median.
    """

    min_relative_focus: float = 0.5
    focus_deviations: float = 4.0
    min_fields_for_focus: int = 4
    max_saturated_share: float = 0.01
    max_black_share: float = 0.2
    max_unevenness: float = 1.5
    min_content: float = 1.3
    max_debris_share: float = 0.05
    debris_over_median: float = 4.0

    @classmethod
    def of_instrument(cls, changes: Mapping[str, Mapping[str, float]], instrument: str) -> QualityThresholds:
        """The defaults, changed by what is given for "all" instruments, then for this one.

        Raises:
            InputError: no threshold has such a name, or the value is no number.
        """
        merged = {**changes.get("all", {}), **changes.get(instrument, {})}
        known = {one.name for one in fields(cls)}
        for name, value in merged.items():
            if name not in known or not isinstance(value, int | float) or value != value:
                raise InputError(
                    f"The quality threshold {name} = {value!r} cannot be used: thresholds are "
                    f"{', '.join(sorted(known))}; mend `quality` in the settings."
                )
        whole = {"min_fields_for_focus"}
        return cls(**{name: int(v) if name in whole else v for name, v in merged.items()})  # type: ignore[arg-type]


def field_quality(images: Iterable[Field], role: str = TRANSMITTED) -> pd.DataFrame:
    """The features of `acquisition_features`, one row a field, in the fields' order.

    Columns: Metadata_Plate, Metadata_Well, Metadata_Site, the features, `focus` (share of detail finer
    than 4 px), `content` (detail in the richest block over the noise's), `debris_share` (see `debris_share`)
    and `pixels` (a digest of the image).

    Raises:
        InputError: a field has no image in this role.
    """
    import pandas as pd

    with ThreadPoolExecutor(n_workers()) as threads:
        rows = list(threads.map(lambda one: (*one.key, *_measured(one.image(role))), images))
    names = [
        "Metadata_Plate",
        "Metadata_Well",
        "Metadata_Site",
        *FEATURES,
        "focus",
        "content",
        "debris_share",
        "pixels",
    ]
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
    # Crowded or rounded cells lie in all fields of a plate; debris lies in some.
    usual = limits.debris_over_median * float(table["debris_share"].median())
    table["free_of_debris"] = table["debris_share"] <= max(limits.max_debris_share, usual)
    # The first of several equal images may be the true one; those that follow show not what they say.
    table["not_duplicate"] = ~table.duplicated("pixels")
    table["passed"] = table[list(CHECKS)].all(axis=1)
    first = table.drop_duplicates("pixels").set_index("pixels")
    table["reason"] = [_reason(row, limits, first) for row in table.to_dict("records")]
    return table


def plate_heatmap(table: pd.DataFrame, *columns: str) -> Figure:
    """Columns of a table of fields or wells, each in the layout of the plate (mean of a well's fields).

    Args:
        table: with `Metadata_Well` as a column or index, and the columns with numbers or booleans.
        columns: which ones, by default those of `HEATMAP`.

    Raises:
        InputError: no such column, or no wells.
    """
    from matplotlib.figure import Figure

    columns = columns or HEATMAP
    flat = table if "Metadata_Well" in table else table.reset_index()
    if lacking := [name for name in ("Metadata_Well", *columns) if name not in flat]:
        raise InputError(f"A map of the plate needs a table with {lacking[0]!r}: measure the plate first.")
    if flat.empty:
        raise InputError("A map of the plate needs a table with wells: measure the plate first.")
    wells = [str(well) for well in flat["Metadata_Well"].unique()]
    if unknown := [well for well in wells if normal_well(well) is None]:
        raise InputError(f"{unknown[0]!r} is no well of a plate: write wells as A01 or AF48.")
    last_row, last_column = max(map(row_index, wells)), max(map(column_index, wells))
    shape = next(s for s in ((8, 12), (16, 24), (32, 48)) if last_row < s[0] and last_column < s[1])
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    size = (across * (1.5 + 0.35 * shape[1]), down * (1.0 + 0.35 * shape[0]))
    figure = Figure(figsize=size, layout="constrained")
    for number, column in enumerate(columns, start=1):
        means = flat.assign(value=flat[column].astype(float)).groupby("Metadata_Well")["value"].mean()
        grid = np.full(shape, np.nan)
        for well, value in means.items():
            grid[row_index(str(well)), column_index(str(well))] = value
        _draw(figure.add_subplot(down, across, number), grid, column.replace("_", " "))
    return figure


def _draw(axes: Any, grid: np.ndarray, title: str) -> None:
    rows, columns = grid.shape
    constant = np.nanmin(grid) == np.nanmax(grid)
    limits = (np.nanmin(grid) - 0.5, np.nanmax(grid) + 0.5) if constant else (None, None)
    drawn = axes.imshow(
        grid, cmap="viridis", aspect="equal", interpolation="nearest", vmin=limits[0], vmax=limits[1]
    )
    axes.set_xticks(range(columns), [str(k + 1) for k in range(columns)], fontsize=7)
    axes.set_yticks(range(rows), [row_name(k) for k in range(rows)], fontsize=7)
    axes.set_title(title)
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8)


def _measured(image: np.ndarray) -> tuple[float | str, ...]:
    features = acquisition_features(image)
    focus = features["sharpness_1"] + features["sharpness_2"]
    own = (content(image, features["noise"]), debris_share(image), pixel_digest(image))
    return (*(features[name] for name in FEATURES), focus, *own)


def _reason(row: dict, limits: QualityThresholds, first: pd.DataFrame) -> str:
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
    if not row["free_of_debris"]:
        told.append(f"debris covers {row['debris_share']:.0%} of the field")
    if not row["not_duplicate"]:
        twin = first.loc[row["pixels"]]
        told.append(f"the same image as well {twin['Metadata_Well']} site {twin['Metadata_Site']}")
    return "; ".join(told)
