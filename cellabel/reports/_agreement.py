"""Predicted against stained, as figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.reports._canvas import COLOURS, INK, figure_png, grid, no_data, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def scatter_figure(
    true: ArrayLike, predicted: ArrayLike, feature: str, *, groups: ArrayLike | None = None
) -> bytes:
    """Predicted against stained with the line of identity, n, Pearson's r and Lin's concordance.

    Args:
        true: (n,) measured on the stain.
        predicted: (n,) measured on the prediction.
        feature: name of the axes.
        groups: (n,) for example plates, each in a colour of its own.

    Returns:
        PNG.

    Raises:
        InputError: the lengths differ.
    """
    x, y, labels = _pairs(true, predicted, groups)
    figure, (ax,) = sheet(4.4, 4.2)
    _draw_scatter(ax, x, y, labels, feature)
    return figure_png(figure)


def bland_altman_figure(
    true: ArrayLike, predicted: ArrayLike, feature: str, *, groups: ArrayLike | None = None
) -> bytes:
    """Difference (predicted − stained) against the mean of both, with bias and limits of agreement.

    Args:
        true: (n,) measured on the stain.
        predicted: (n,) measured on the prediction.
        feature: name of the axes.
        groups: (n,) for example plates, each in a colour of its own.

    Returns:
        PNG.

    Raises:
        InputError: the lengths differ.

    Source: Bland & Altman 1986 (Lancet 327:307).
    """
    x, y, labels = _pairs(true, predicted, groups)
    figure, (ax,) = sheet(5.0, 3.8)
    _draw_bland_altman(ax, x, y, labels, feature)
    return figure_png(figure)


def agreement_figure(
    true: pd.DataFrame, predicted: pd.DataFrame, features: Sequence[str], *, group: str = "Metadata_Plate"
) -> bytes:
    """Scatter above, Bland and Altman below, one column a feature.

    Args:
        true: one row a unit, measured on the stain.
        predicted: the same units in the same order, measured on the prediction.
        features: columns; those that a side lacks are left out.
        group: column of `true` that colours the points, where it exists.

    Returns:
        PNG.
    """
    from matplotlib.ticker import MaxNLocator

    shown = [name for name in features if name in true and name in predicted]
    figure, rows = grid(3.9, 3.5, 2, max(len(shown), 1))
    if not shown:
        for row in rows:
            no_data(row[0], "no feature was measured on both images")
        return figure_png(figure)
    labels = true.get(group)
    for column, name in enumerate(shown):
        x, y, names = _pairs(true[name], predicted[name], labels)
        above, below = rows[0][column], rows[1][column]
        _draw_scatter(above, x, y, names, name)
        _draw_bland_altman(below, x, y, names, name)
        for ax in (above, below):
            ax.xaxis.set_major_locator(MaxNLocator(4))
        if len(x):  # a panel is too narrow for the feature's name on its axes
            above.set_title(f"{name}\n{above.get_title()}", fontsize=8, color=INK)
            above.set_xlabel("stained", color=INK, fontsize=8)
            above.set_ylabel("predicted", color=INK, fontsize=8)
            below.set_xlabel("mean of stained and predicted", color=INK, fontsize=8)
    return figure_png(figure)


def _draw_scatter(
    ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], labels: NDArray[np.str_], feature: str
) -> None:
    ax.set_xlabel(f"{feature}, stained", color=INK)
    ax.set_ylabel(f"{feature}, predicted", color=INK)
    if not len(x):
        no_data(ax, "no well was measured on both images")
        return
    _points(ax, x, y, labels)
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.05 * (high - low) or 1.0
    ends = (low - margin, high + margin)
    ax.plot(ends, ends, color=INK, linewidth=0.8, linestyle="--", zorder=0)
    ax.set_xlim(ends)
    ax.set_ylim(ends)
    ax.set_aspect("equal")
    ax.set_title(_agreement(x, y), fontsize=9, color=INK)


def _draw_bland_altman(
    ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], labels: NDArray[np.str_], feature: str
) -> None:
    ax.set_xlabel(f"{feature}, mean of stained and predicted", color=INK)
    ax.set_ylabel("predicted − stained", color=INK)
    if not len(x):
        no_data(ax, "no well was measured on both images")
        return
    difference = y - x
    _points(ax, (x + y) / 2, difference, labels)
    ax.axhline(0, color=INK, linewidth=0.6)
    bias = float(difference.mean())
    spread = 1.96 * float(difference.std(ddof=1)) if len(x) > 1 else float("nan")
    for level, name in ((bias, "bias"), (bias + spread, "+1.96 SD"), (bias - spread, "−1.96 SD")):
        if np.isfinite(level):
            ax.axhline(level, color=COLOURS[1], linewidth=1, linestyle="-" if name == "bias" else "--")
            ax.annotate(
                f"{name} {level:.3g}".replace("-", "−"),
                (1, level),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=8,
                color=COLOURS[1],
                annotation_clip=False,
            )
    ax.set_title(f"n = {len(x)}", fontsize=9, color=INK)


def _pairs(
    true: ArrayLike, predicted: ArrayLike, groups: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.str_]]:
    x, y = np.asarray(true, dtype=float).ravel(), np.asarray(predicted, dtype=float).ravel()
    labels = np.full(len(x), "") if groups is None else np.asarray(groups).astype(str).ravel()
    if not len(x) == len(y) == len(labels):
        raise InputError(
            f"{len(x)} stained, {len(y)} predicted values and {len(labels)} groups cannot be paired: "
            "give one of each a well."
        )
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known], labels[known]


def _points(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], labels: NDArray[np.str_]) -> None:
    names = np.unique(labels)
    for index, name in enumerate(names):
        chosen = labels == name
        colour = COLOURS[index % len(COLOURS)]
        ax.scatter(x[chosen], y[chosen], s=18, alpha=0.75, color=colour, linewidths=0, label=name or None)
    if 1 < len(names) <= len(COLOURS):
        ax.legend(fontsize=7, frameon=False)


def _agreement(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return f"n = {len(x)}"
    pearson = float(np.corrcoef(x, y)[0, 1])
    covariance = float(((x - x.mean()) * (y - y.mean())).mean())
    concordance = 2 * covariance / float(x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    return f"n = {len(x)}, r = {pearson:.3f}, concordance = {concordance:.3f}"
