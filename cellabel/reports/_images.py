"""Images side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.reports._canvas import INK, figure_png, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def example_figure(
    image: ArrayLike,
    true: ArrayLike | None,
    predicted: ArrayLike,
    *,
    title: str = "",
    pixel_size_um: float | None = None,
) -> bytes:
    """Transmitted light, stain and prediction beside each other; stain and prediction share one grey scale.

    Args:
        image: (H, W) transmitted light.
        true: (H, W) stain in the units of the prediction; None where the field was not stained.
        predicted: (H, W).
        title: one line, for example plate, well and site.
        pixel_size_um: draws a scale bar where given.

    Returns:
        PNG.
    """
    panels = [("transmitted light", np.asarray(image, dtype=float))]
    if true is not None:
        panels.append(("stained", np.asarray(true, dtype=float)))
    panels.append(("predicted", np.asarray(predicted, dtype=float)))
    figure, axes = sheet(3.0 * len(panels), 3.4, len(panels))
    shared = np.concatenate([panel.ravel() for name, panel in panels[1:]])
    for ax, (name, panel) in zip(axes, panels, strict=True):
        low, high = limits(panel if name == "transmitted light" else shared)
        ax.imshow(panel, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        ax.set_title(name, fontsize=9, color=INK)
        ax.set_axis_off()
    if pixel_size_um:
        scale_bar(axes[0], panels[0][1].shape, pixel_size_um)
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    return figure_png(figure)


def scale_bar(ax: Axes, shape: tuple[int, ...], pixel_size_um: float) -> None:
    """A bar of a round length at the lower right of an image (H, W)."""
    from matplotlib.patheffects import withStroke

    height, width = shape[:2]
    length = _round_length(width * pixel_size_um / 5)
    end = 0.95 * width
    outline = [withStroke(linewidth=3, foreground="black")]
    ends = [end - length / pixel_size_um, end]
    ax.plot(ends, [0.94 * height] * 2, color="white", linewidth=3, path_effects=outline)
    ax.text(
        end,
        0.91 * height,
        f"{length:g} µm",
        color="white",
        fontsize=8,
        ha="right",
        va="bottom",
        path_effects=outline,
    )


def limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Black and white of a display: the 0.5th and 99.8th percentile."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.percentile(finite, [0.5, 99.8])
    return float(low), float(high if high > low else low + 1)


def _round_length(length: float) -> float:
    """The largest of 1, 2, 5 × 10ⁿ that is not longer."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step * power for step in (1, 2, 5) if step * power <= length))
