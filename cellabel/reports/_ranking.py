"""Clones in order, with how sure that is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellabel.reports._canvas import COLOURS, INK, figure_png, no_data, sheet

__all__ = ["control_chart_figure", "ranking_figure"]

MOST = 40
"""Clones that are shown, the best ones."""


def ranking_figure(ranking: pd.DataFrame, *, title: str = "") -> bytes:
    """Every clone's pooled effect with its interval, its own mean, and its chance to be on top.

    Args:
        ranking: rows of `cellabel.selection.rank_clones`.
        title: one line.

    Returns:
        PNG.
    """
    shown = ranking.head(MOST)
    figure, (left, right) = sheet(7.2, max(2.2, 0.8 + 0.2 * len(shown)), 2)
    if shown.empty:
        no_data(left, "no clone was ranked")
        no_data(right)
        return figure_png(figure)
    place = np.arange(len(shown))
    name = next((column for column in shown if str(column).startswith("Metadata_")), shown.columns[0])
    for low, high, y in zip(shown["effect_lower"], shown["effect_upper"], place, strict=True):
        left.plot([low, high], [y, y], color=COLOURS[0], linewidth=1.5)
    left.scatter(shown["effect"], place, color=COLOURS[0], s=22, zorder=3, label="pooled, with interval")
    left.scatter(shown["raw_effect"], place, color=INK, s=10, marker="x", linewidths=0.8, label="own mean")
    left.axvline(0, color=INK, linewidth=0.6)
    left.set_yticks(place, [str(one) for one in shown[name]], fontsize=7)
    left.set_ylim(len(shown) - 0.5, -0.5)
    left.set_xlabel("log score against the mean clone", color=INK, fontsize=8)
    left.legend(fontsize=7, frameon=False, loc="lower right")
    right.barh(place, shown["p_top"].fillna(0), color=COLOURS[2], height=0.6)
    right.set_yticks([])
    right.set_ylim(len(shown) - 0.5, -0.5)
    right.set_xlim(0, 1)
    right.set_xlabel(f"chance to be among the best {int(shown['top'].iloc[0])}", color=INK, fontsize=8)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure_png(figure)


def control_chart_figure(chart: pd.DataFrame, *, title: str = "") -> bytes:
    """The reference clone on every plate, between its control limits; plates outside are marked.

    Args:
        chart: rows of `cellabel.measurement.reference_chart`.
        title: one line.

    Returns:
        PNG.
    """
    figure, (ax,) = sheet(max(4.0, 1.6 + 0.35 * len(chart)), 3.0)
    if chart.empty:
        no_data(ax, "no plate has a reference well")
        return figure_png(figure)
    place = np.arange(len(chart))
    ax.plot(place, chart["mean"], color=COLOURS[0], marker="o", linewidth=1, markersize=4)
    outside = chart["outside"].to_numpy(bool)
    ax.scatter(place[outside], chart["mean"][outside], color=COLOURS[1], s=60, zorder=3, label="outside")
    for name, style in (("centre", "-"), ("lower", "--"), ("upper", "--")):
        level = float(chart[name].iloc[0])
        if np.isfinite(level):
            ax.axhline(level, color=INK, linewidth=0.8, linestyle=style)
    ax.set_xticks(place, [str(one) for one in chart["Metadata_Plate"]], rotation=60, ha="right", fontsize=7)
    ax.set_ylabel("log score of the reference clone", color=INK, fontsize=8)
    if outside.any():
        ax.legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure_png(figure)
