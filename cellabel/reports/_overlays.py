"""Stains over each other in colours, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.reports._canvas import INK, figure_png, no_data, sheet
from cellabel.reports._images import limits, scale_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["STAIN_COLOURS", "overlay", "overlay_figure"]

STAIN_COLOURS: Mapping[str, tuple[float, float, float]] = {
    "nuclei": (0.25, 0.55, 1.0),
    "er": (1.0, 0.25, 0.75),
    "actin": (1.0, 0.25, 0.75),
    "gfp": (0.2, 1.0, 0.3),
    "golgi": (1.0, 0.75, 0.1),
    "nucleoli": (1.0, 1.0, 1.0),
}
"""Blue, magenta, green and amber: told apart by the colour-blind by hue and by lightness."""
COMBINATIONS = (("nuclei", "er"), ("nuclei", "actin"), ("gfp", "nuclei", "er"))


def overlay(stains: Mapping[str, ArrayLike], cells: ArrayLike | None = None) -> NDArray[np.float64]:
    """Stains added up in their colours, each from its own background to its 99.8th percentile.

    Args:
        stains: organelle → (H, W).
        cells: (H, W) labels whose borders are drawn in white; None draws none.

    Returns:
        (H, W, 3) from 0 to 1.

    Raises:
        InputError: no stain, or stains of different shapes.
    """
    images = {name: np.asarray(image, dtype=float) for name, image in stains.items()}
    shapes = {image.shape for image in images.values()}
    if len(shapes) != 1:
        raise InputError(
            f"Stains of the shapes {sorted(shapes)} cannot be laid over each other: give one field's."
        )
    picture = np.zeros((*shapes.pop(), 3))
    for name, image in images.items():
        low, high = limits(image)
        level = np.clip((np.nan_to_num(image, nan=low) - low) / (high - low), 0, 1)
        picture += level[..., None] * np.array(STAIN_COLOURS.get(name, (1.0, 1.0, 1.0)))
    picture = np.minimum(picture, 1.0)
    if cells is not None:
        marks = np.asarray(cells)
        border = np.zeros(marks.shape, bool)
        border[:, 1:] |= marks[:, 1:] != marks[:, :-1]
        border[1:] |= marks[1:] != marks[:-1]
        picture[border] = 0.65 * picture[border] + 0.35
    return picture


def overlay_figure(
    stains: Mapping[str, ArrayLike],
    *,
    cells: ArrayLike | None = None,
    combinations: Sequence[Sequence[str]] = COMBINATIONS,
    title: str = "",
    pixel_size_um: float | None = None,
) -> bytes:
    """The combinations of stains that are there beside each other, and last the cells' borders over all.

    Args:
        stains: organelle → (H, W), for example predictions of one field.
        cells: (H, W) labels of `cellabel.measurement.join_cells`.
        combinations: which stains to lay over each other; those that lack one are left out.
        title: one line, for example plate, well and site.
        pixel_size_um: draws a scale bar where given.

    Returns:
        PNG.
    """
    panels: list[tuple[Sequence[str], Any]] = [
        (names, None) for names in combinations if set(names) <= set(stains)
    ]
    if cells is not None and stains:
        shown = [name for name in ("nuclei", "er", "actin") if name in stains] or list(stains)[:1]
        panels.append((shown, cells))
    figure, axes = sheet(3.6 * max(len(panels), 1), 3.9, max(len(panels), 1))
    if not panels:
        no_data(axes[0], "no two stains to combine")
        return figure_png(figure)
    for ax, (names, marks) in zip(axes, panels, strict=True):
        ax.imshow(overlay({name: stains[name] for name in names}, marks), interpolation="nearest")
        ax.set_axis_off()
        _legend(ax, [*names, *(["cells"] if marks is not None else [])])
    if pixel_size_um:
        scale_bar(axes[0], np.asarray(next(iter(stains.values()))).shape, pixel_size_um)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure_png(figure)


def _legend(ax: Axes, names: Sequence[str]) -> None:
    """Names in their colours, on black."""
    for index, name in enumerate(names):
        ax.text(
            0.02,
            0.98 - 0.075 * index,
            name,
            transform=ax.transAxes,
            ha="left",
            va="top",
            fontsize=9,
            color=STAIN_COLOURS.get(name, (1.0, 1.0, 1.0)),
            bbox={"facecolor": "black", "edgecolor": "none", "pad": 2},
        )
