"""What a person looks at: figures as PNG, Evidently's report of a plate's tables, model cards.

Figures are drawn with matplotlib's objects, without pyplot's global state, and come back as PNG bytes.
Importing this room loads neither matplotlib nor evidently.
"""

from cellabel.registry import model_card
from cellabel.reports._agreement import agreement_figure, bland_altman_figure, scatter_figure
from cellabel.reports._canvas import figure_png
from cellabel.reports._evidently import evidently_report
from cellabel.reports._gain import gain_figure
from cellabel.reports._images import example_figure
from cellabel.reports._monitoring import (
    Thumbnail,
    drift_timeline_figure,
    embedding_map_figure,
    learning_curve_figure,
)
from cellabel.reports._overlays import overlay, overlay_figure
from cellabel.reports._ranking import control_chart_figure, ranking_figure

__all__ = [
    "Thumbnail",
    "agreement_figure",
    "bland_altman_figure",
    "control_chart_figure",
    "drift_timeline_figure",
    "embedding_map_figure",
    "evidently_report",
    "example_figure",
    "figure_png",
    "gain_figure",
    "learning_curve_figure",
    "model_card",
    "overlay",
    "overlay_figure",
    "ranking_figure",
    "scatter_figure",
]
