"""Drift, embeddings and training over time, as figures."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cellabel.errors import InputError
from cellabel.reports._canvas import COLOURS, INK, figure_png, no_data, sheet


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


def embedding_map_figure(
    points: ArrayLike, labels: Sequence[object] | None = None, *, title: str = "", method: str = ""
) -> bytes:
    """Embeddings on a plane, coloured by what each belongs to.

    Args:
        points: (n, 2), from a projection.
        labels: (n,) for example plate or corruption; numbers become a colour scale when there are many.
        title: one line.
        method: name of the projection, for the axes.

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
    figure, (ax,) = sheet(5.6, 4.2)
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
    if len(names) > 1:
        ax.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure_png(figure)
