"""Truth against prediction: the gate between challenger and champion, and intervals of what is predicted."""

from cellabel.evaluation.downstream import downstream_metrics
from cellabel.evaluation.gate import CLEAN, Decision, GateSettings, decide, well_errors

__all__ = ["CLEAN", "Decision", "GateSettings", "decide", "downstream_metrics", "well_errors"]
