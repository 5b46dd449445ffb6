"""A sheet to draw on, and how it becomes a PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#333333"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#666666")
"""Okabe & Ito's colours: told apart by the colour-blind."""


def sheet(width: float = 5.0, height: float = 4.0, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with a row of axes; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=INK, labelsize=8)
    return figure, list(axes)


def grid(width: float, height: float, rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """A figure with rows of axes; sizes of one panel in inches."""
    from matplotlib.figure import Figure

    # Margins in inches: a layout that measures every text takes longer than drawing.
    left, right, bottom, top = 0.8, 0.4, 0.6, 0.6
    figure = Figure(figsize=(width * columns, height * rows), dpi=80)
    inner = (width - left - right, height - bottom - top)
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": left / (width * columns),
            "right": 1 - right / (width * columns),
            "bottom": bottom / (height * rows),
            "top": 1 - top / (height * rows),
            "wspace": (left + right) / inner[0],
            "hspace": (bottom + top) / inner[1],
        },
    )
    for ax in axes.ravel():
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=INK, labelsize=8)
    return figure, [list(row) for row in axes]


def figure_png(figure: Figure, **options: Any) -> bytes:
    """A figure as PNG.

    Args:
        figure: matplotlib's.
        options: of `Figure.savefig`, for example dpi.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", **options)
    return buffer.getvalue()


def no_data(ax: Axes, text: str = "nothing to show") -> None:
    """Say that there is nothing, rather than drawing an empty frame."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", color=INK, transform=ax.transAxes)
