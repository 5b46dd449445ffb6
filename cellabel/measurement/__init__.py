"""Objects, cells, fields, wells and plates as tables: what the lab would have measured, on any image.

Columns are named as CellProfiler and pycytominer name them. Intensities are those of the image that is given.
"""

from cellabel.measurement._cells import JoinedCells, Layer, assign_cytoplasm, join_cells
from cellabel.measurement._fields import measure_field, measure_well
from cellabel.measurement._flags import flag_cells, gfp_threshold, positive_probability
from cellabel.measurement._objects import NEIGHBOUR_REACH_UM, measure_objects
from cellabel.measurement._plate_statistics import (
    assay_window,
    edge_effect,
    median_polish,
    plate_statistics,
    reference_chart,
)
from cellabel.measurement._states import state_features, state_probabilities
from cellabel.measurement._summaries import USABLE_CELLS, bimodality, count_interval, summarise_wells

__all__ = [
    "NEIGHBOUR_REACH_UM",
    "USABLE_CELLS",
    "JoinedCells",
    "Layer",
    "assay_window",
    "assign_cytoplasm",
    "bimodality",
    "count_interval",
    "edge_effect",
    "flag_cells",
    "gfp_threshold",
    "join_cells",
    "measure_field",
    "measure_objects",
    "measure_well",
    "median_polish",
    "plate_statistics",
    "positive_probability",
    "reference_chart",
    "state_features",
    "state_probabilities",
    "summarise_wells",
]
