"""Clones ranked from tables: which to carry on, how sure that is, and what it rests on."""

from cellabel.selection._ranking import rank_clones
from cellabel.selection._scores import SCORES, score_wells
from cellabel.selection._stability import stability

__all__ = ["rank_clones", "score_wells", "stability", "SCORES"]
