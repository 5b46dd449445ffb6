"""Drift: has what the model sees changed, since when, into what, and does it harm?

Arrays in, verdicts out, on numpy and scipy alone. `OnlineMMD` watches one stream of embeddings and keeps its
promise of false alarms.
"""

from cellabel.drift._online import OnlineMMD, Step
from cellabel.drift._report import FitReport, RunLength

__all__ = ["OnlineMMD", "Step", "FitReport", "RunLength"]
