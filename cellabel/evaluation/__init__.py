"""Truth against prediction: the gate between challenger and champion, and intervals of what is predicted."""

from cellabel.evaluation._error_table import error_table
from cellabel.evaluation._gain import gain_table
from cellabel.evaluation._well_errors import differing_truth
from cellabel.evaluation.conformal import ConformalInterval, conformal_interval
from cellabel.evaluation.downstream import downstream_metrics
from cellabel.evaluation.gate import CLEAN, Decision, GateSettings, decide, well_errors
from cellabel.evaluation.matching import match_objects, matched_cells
from cellabel.evaluation.reliability import (
    INTERVAL_NOTE,
    NOT_VALID,
    calibrate_intervals,
    with_intervals,
)

__all__ = [
    "INTERVAL_NOTE",
    "NOT_VALID",
    "CLEAN",
    "ConformalInterval",
    "Decision",
    "GateSettings",
    "calibrate_intervals",
    "conformal_interval",
    "decide",
    "differing_truth",
    "downstream_metrics",
    "error_table",
    "gain_table",
    "match_objects",
    "matched_cells",
    "well_errors",
    "with_intervals",
]
