"""Drift, embeddings and training over time, as figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.reports._canvas import COLOURS, INK, figure_png, no_data, sheet
from cellabel.reports._images import limits, scale_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def drift_timeline_figure(
    statistics: ArrayLike,
    thresholds: ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    title: str = "",
    name: str = "MMD",
) -> bytes:
    """The detector's statistic against its threshold, well after well, alarms marked.

    Args:
        statistics: (n,) NaN where the detector had no verdict yet.
        thresholds: (n,) or one number.
        labels: (n,) plate of each step; a line and a name mark where a plate begins.
        title: one line.
        name: of the statistic.

    Returns:
        PNG.

    Raises:
        InputError: the lengths differ.
    """
    values = np.asarray(statistics, dtype=float).ravel()
    limits = np.asarray(thresholds, dtype=float).ravel()
    if limits.size not in (1, values.size) or (labels is not None and len(labels) != values.size):
        raise InputError(
            f"{values.size} statistics, {limits.size} thresholds and {len(labels or [])} labels do not "
            "match: give one of each a well."
        )
    limits = np.broadcast_to(limits, values.shape)
    figure, (ax,) = sheet(8.0, 3.2)
    if not values.size:
        no_data(ax, "no well has been watched yet")
        return figure_png(figure)
    steps = np.arange(values.size)
    ax.plot(steps, values, color=COLOURS[0], linewidth=1.2, label=name)
    ax.step(steps, limits, where="mid", color=COLOURS[1], linewidth=1, linestyle="--", label="threshold")
    alarms = values > limits
    if alarms.any():
        ax.scatter(steps[alarms], values[alarms], color=COLOURS[1], s=16, zorder=3, label="above")
    if labels is not None:
        starts = [step for step in range(len(labels)) if step == 0 or labels[step] != labels[step - 1]]
        every = -(-len(starts) // 12)
        for index, start in enumerate(starts):
            ax.axvline(start - 0.5, color=INK, linewidth=0.4, alpha=0.4)
            if index % every == 0:
                ax.annotate(
                    str(labels[start]),
                    (start - 0.1, 0.99),
                    xycoords=("data", "axes fraction"),
                    fontsize=7,
                    color=INK,
                    va="top",
                    rotation=90,
                )
    ax.set_xlim(-0.5, values.size - 0.5)
    ax.set_xlabel("wells in order of acquisition", color=INK)
    ax.set_ylabel(name, color=INK)
    ax.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax.set_title(title, fontsize=10, color=INK)
    return figure_png(figure)


def learning_curve_figure(history: pd.DataFrame, *, title: str = "") -> bytes:
    """Losses, and beside them other measures, by epoch.

    Args:
        history: one row an epoch; columns whose name contains "loss" go to the left panel, other numbers to
            the right one; `epoch`, `step`, times and the learning rate are left out.
        title: one line.

    Returns:
        PNG.
    """
    from matplotlib.ticker import MaxNLocator

    epochs = history["epoch"].to_numpy() if "epoch" in history else np.arange(len(history))
    numbers = [
        column
        for column in map(str, history.select_dtypes("number"))
        if not re.search(r"^epoch$|^step$|second|time|^lr$|learning_rate", column)
    ]
    losses = [column for column in numbers if "loss" in column]
    others = [column for column in numbers if "loss" not in column][: len(COLOURS)]
    panels = [(part, word) for part, word in ((losses, "loss"), (others, "measure")) if part]
    figure, axes = sheet(4.2 * max(len(panels), 1), 3.2, max(len(panels), 1))
    if not panels or not len(history):
        no_data(axes[0], "no epoch was recorded")
        return figure_png(figure)
    for ax, (columns, word) in zip(axes, panels, strict=True):
        for index, column in enumerate(columns):
            values = history[column].to_numpy(dtype=float)
            known = np.isfinite(values)
            colour = COLOURS[index % len(COLOURS)]
            ax.plot(epochs[known], values[known], color=colour, marker=".", linewidth=1.2, label=column)
        if word == "loss" and history[columns].min().min() > 0:
            ax.set_yscale("log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("epoch", color=INK)
        ax.set_ylabel(word, color=INK)
        ax.legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure_png(figure)


LONGEST_NAME = 22
"""Characters that fit above a thumbnail."""


@dataclass(frozen=True)
class Thumbnail:
    """An image that is shown beside a map.

    Attributes:
        point: row of the point on the map that it belongs to.
        image: (H, W), shown from its 0.5th to its 99.8th percentile.
        name: above the image, for example plate and well.
        heading: of the images that are shown in one row.
        pixel_size_um: draws a scale bar where given.
    """

    point: int
    image: NDArray
    name: str
    heading: str
    pixel_size_um: float | None = None


def embedding_map_figure(
    points: ArrayLike,
    labels: Sequence[object] | None = None,
    *,
    title: str = "",
    method: str = "",
    thumbnails: Sequence[Thumbnail] = (),
) -> bytes:
    """Embeddings on a plane, coloured by what each belongs to, and images of some of them.

    Args:
        points: (n, 2), from a projection.
        labels: (n,) for example plate or corruption; numbers become a colour scale when there are many.
        title: one line.
        method: name of the projection, for the axes.
        thumbnails: images beside the map, a row a heading, numbered as their points are.

    Returns:
        PNG.

    Raises:
        InputError: the points do not lie on a plane, or the labels do not match.
    """
    plane = np.asarray(points, dtype=float)
    if plane.ndim != 2 or plane.shape[1] != 2 or (labels is not None and len(labels) != len(plane)):
        raise InputError(
            f"A map needs points of shape (n, 2) and a label for each, not {plane.shape}: project them first."
        )
    figure, ax, panels = _map_sheet(thumbnails)
    for number, (thumbnail, panel) in enumerate(zip(thumbnails, panels, strict=True), 1):
        _draw_thumbnail(panel, thumbnail, number)
        _draw_number(ax, plane, thumbnail.point, number)
    ax.set_xlabel(f"{method} 1".strip(), color=INK)
    ax.set_ylabel(f"{method} 2".strip(), color=INK)
    ax.set_title(title, fontsize=10, color=INK)
    if not len(plane):
        no_data(ax)
        return figure_png(figure)
    series = pd.Series([""] * len(plane) if labels is None else list(labels))
    if pd.api.types.is_numeric_dtype(series) and series.nunique() > len(COLOURS):
        drawn = ax.scatter(plane[:, 0], plane[:, 1], c=series, cmap="viridis", s=14, alpha=0.8, linewidths=0)
        figure.colorbar(drawn, ax=ax)
        return figure_png(figure)
    names = list(pd.unique(series))
    markers = "os^DvP*X"
    for index, name in enumerate(names):
        chosen = (series == name).to_numpy()
        ax.scatter(
            plane[chosen, 0],
            plane[chosen, 1],
            s=16,
            alpha=0.75,
            linewidths=0,
            color=COLOURS[index % len(COLOURS)],
            marker=markers[index // len(COLOURS) % len(markers)],
            label=str(name) or None,
        )
    if len(names) > 1 and thumbnails:
        ax.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    elif len(names) > 1:
        ax.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure_png(figure)


def _map_sheet(thumbnails: Sequence[Thumbnail]) -> tuple[Figure, Axes, list[Axes]]:
    """A figure, the axes of the map, and beside it those of the thumbnails in their order."""
    if not thumbnails:
        figure, (ax,) = sheet(5.6, 4.2)
        return figure, ax, []
    rows: dict[str, list[Thumbnail]] = {}
    for one in thumbnails:
        rows.setdefault(one.heading, []).append(one)
    columns = max(len(row) for row in rows.values())
    height = max(4.2, 0.3 + 1.75 * len(rows))
    figure, _ = sheet(5.2 + 1.6 * columns, height)
    figure.clear()
    halves: Any = figure.subfigures(1, 2, width_ratios=(5.2, 1.6 * columns))
    left, right = halves
    ax = left.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=INK, labelsize=8)
    panels: dict[int, Axes] = {}
    parts = right.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (heading, row) in zip(parts, rows.items(), strict=True):
        part.suptitle(heading, fontsize=8, color=INK)
        for place, panel in enumerate(part.subplots(1, columns, squeeze=False)[0]):
            panel.set_axis_off()
            if place < len(row):
                panels[id(row[place])] = panel
    return figure, ax, [panels[id(one)] for one in thumbnails]


def _draw_thumbnail(panel: Axes, thumbnail: Thumbnail, number: int) -> None:
    image = np.asarray(thumbnail.image, dtype=float)
    low, high = limits(image)
    panel.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    name = thumbnail.name if len(thumbnail.name) <= LONGEST_NAME else f"…{thumbnail.name[1 - LONGEST_NAME :]}"
    panel.set_title(f"{number}  {name}", fontsize=7, color=INK, pad=2)
    if thumbnail.pixel_size_um:
        scale_bar(panel, image.shape, thumbnail.pixel_size_um)


def _draw_number(ax: Axes, plane: NDArray[np.float64], point: int, number: int) -> None:
    """The number of a thumbnail at its point, away from the middle of the map."""
    away = plane[point] - plane.mean(axis=0)
    away = 11 * away / (float(np.hypot(*away)) or 1.0)
    ax.annotate(
        str(number),
        tuple(plane[point]),
        xytext=tuple(away),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=8,
        color=INK,
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
        zorder=4,
    )
