"""What a training against corruptions has brought, as a figure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellabel.reports._canvas import COLOURS, INK, figure_png, grid, no_data, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLEAN = "clean"
_TABLE_5 = re.compile(r"(defocus|contrast|brightness) ([+-]\d)")
_MODELS = (("before", COLOURS[1], "s"), ("after", COLOURS[0], "o"))


def gain_figure(
    table: pd.DataFrame, *, title: str = "", names: tuple[str, str] = ("champion", "retrained")
) -> bytes:
    """Errors of champion and retrained model by corruption and severity, with intervals.

    A row of panels a metric. The corruptions of table 5 are drawn over their severity, 0 being clean; all
    other conditions (defocus by the pupil, exposure, faults of the microscope) stand side by side.

    Args:
        table: rows as of `cellabel.loop.corruption_gain`.
        title: one line.
        names: of the two models.

    Returns:
        PNG.
    """
    if table.empty:
        figure, (ax,) = sheet(5.0, 2.0)
        no_data(ax, "the models were not measured under the same conditions")
        return figure_png(figure)
    found = [_TABLE_5.fullmatch(name) for name in table["condition"]]
    table = table.assign(
        kind=[one[1] if one else "" for one in found],
        severity=[float(one[2]) if one else np.nan for one in found],
    )
    kinds = [kind for kind in ("defocus", "contrast", "brightness") if (table["kind"] == kind).any()]
    others = table.loc[(table["kind"] == "") & (table["condition"] != CLEAN), "condition"].unique().tolist()
    metrics = table["metric"].unique().tolist()
    figure, axes = grid(3.0, 2.5, len(metrics), max(len(kinds) + bool(others), 1))
    for row, metric in zip(axes, metrics, strict=True):
        rows = table[table["metric"] == metric]
        clean = rows[rows["condition"] == CLEAN].assign(severity=0)
        for ax, kind in zip(row, kinds, strict=False):
            _draw_severities(ax, pd.concat([clean, rows[rows["kind"] == kind]]), names)
            ax.set_xlabel(f"{kind}, severity", color=INK, fontsize=8)
        if others:
            _draw_others(row[-1], rows.set_index("condition").reindex(others), names)
        row[0].set_ylabel(f"{metric}\n|log error|", color=INK, fontsize=8)
        top = 1.08 * float(np.nanmax(rows[["before_ci_upper", "after_ci_upper", "before", "after"]]))
        for ax in row:
            ax.set_ylim(0, top)
    if kinds or others:
        axes[0][0].legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure_png(figure, dpi=110, bbox_inches="tight")


def _draw_severities(ax: Axes, rows: pd.DataFrame, names: tuple[str, str]) -> None:
    rows = rows.sort_values("severity")
    for (side, colour, marker), name in zip(_MODELS, names, strict=True):
        severity = rows["severity"].to_numpy(dtype=float)
        ax.plot(severity, rows[side], color=colour, marker=marker, markersize=3.5, linewidth=1.2, label=name)
        ends = rows[f"{side}_ci_lower"].to_numpy(float), rows[f"{side}_ci_upper"].to_numpy(float)
        ax.fill_between(severity, *ends, color=colour, alpha=0.18, linewidth=0)
    ax.set_xticks(rows["severity"].astype(int).tolist())


def _draw_others(ax: Axes, rows: pd.DataFrame, names: tuple[str, str]) -> None:
    place = np.arange(len(rows))
    for shift, (side, colour, marker), name in zip((-0.12, 0.12), _MODELS, names, strict=True):
        ax.scatter(place + shift, rows[side], color=colour, marker=marker, s=16, label=name)
        ends = rows[f"{side}_ci_lower"], rows[f"{side}_ci_upper"]
        ax.vlines(place + shift, *ends, color=colour, linewidth=1.5, alpha=0.6)
    ax.set_xlim(-0.5, len(rows) - 0.5)
    ax.set_xticks(place, [str(name) for name in rows.index], rotation=30, ha="right", fontsize=7)
