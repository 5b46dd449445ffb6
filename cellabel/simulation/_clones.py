"""Clones: what a name means, the same on every plate."""

from __future__ import annotations

from dataclasses import dataclass

from cellabel.simulation._physics import Physics
from cellabel.simulation._randomness import stream

__all__ = ["Clone", "draw_clone"]


@dataclass(frozen=True)
class Clone:
    """Traits of a clone; `log_` traits add to a cell's logarithm, `visible` to its visible morphology.

    Attributes:
        log_gfp: expression of the reporter; `negative` is the share of cells without any.
        log_er, log_size, log_elongation, log_nucleus, log_growth: shifts of those traits.
        visible: standard deviations of the visible morphology (granularity, texture, height).
        log_productivity: what neither reporter nor ER explains.
    """

    name: str
    producing: bool
    log_gfp: float
    negative: float
    log_er: float
    log_size: float
    log_elongation: float
    log_nucleus: float
    log_growth: float
    visible: float
    log_productivity: float


def draw_clone(
    name: str, role: str, family: str, physics: Physics, *, novelty: float = 0.0, passages: float = 0.0
) -> Clone:
    """The clone called `name`; `novelty` standard deviations away from it, or some passages later.

    The direction of novelty is one for all clones of a family, so that a plate of new clones differs as one.
    A passage costs a clone 2 % of its expression and turns 0.4 % of its cells negative.
    """
    rng = stream("clone", name, family)
    log_gfp, log_er, log_size, log_elongation, log_nucleus, log_growth, visible = rng.standard_normal(7)
    low, high = physics.gfp_negative
    negative = low + (high - low) * float(rng.beta(2.0, 2.0))
    log_productivity = physics.productivity_noise[0] * float(rng.standard_normal())
    novel = stream("new clone", family).choice([-1.0, 1.0], 4) * novelty
    return Clone(
        name=name,
        producing=role in ("sample", "reference", "high_producer"),
        log_gfp=physics.gfp_clone_sd * float(log_gfp) - 0.02 * passages,
        negative=min(negative + 0.004 * passages, 0.95),
        log_er=0.20 * float(log_er) + 0.10 * float(novel[0]),
        log_size=0.08 * float(log_size) + 0.10 * float(novel[1]) + 0.002 * passages,
        log_elongation=0.10 * float(log_elongation) + 0.12 * float(novel[2]),
        log_nucleus=0.04 * float(log_nucleus),
        log_growth=0.10 * float(log_growth),
        visible=0.25 * float(visible) + 0.35 * float(novel[3]),
        log_productivity=log_productivity,
    )
