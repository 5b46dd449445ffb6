"""Truth against prediction: the gate between challenger and champion, and intervals of what is predicted."""

from cellabel.evaluation.conformal import ConformalInterval, conformal_interval
from cellabel.evaluation.downstream import downstream_metrics
from cellabel.evaluation.gate import CLEAN, Decision, GateSettings, decide, well_errors

__all__ = [
    "CLEAN",
    "ConformalInterval",
    "Decision",
    "GateSettings",
    "conformal_interval",
    "decide",
    "downstream_metrics",
    "well_errors",
]
