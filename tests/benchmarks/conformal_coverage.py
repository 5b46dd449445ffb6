"""Prediction intervals of well numbers: coverage of fresh plates, and their width, by simulation.

Log errors of wells have a plate's share (intra-class correlation) and may be heavy-tailed; truth varies by a
density CV of 0.3. Each pair is a calibration on some plates and one fresh plate of 24 wells.
Run: python tests/benchmarks/conformal_coverage.py [pairs]
"""

from __future__ import annotations

import sys

import numpy as np

from cellabel.evaluation import conformal_interval

LEVEL = 0.9


def plates(
    rng: np.random.Generator, count: int, share: float, spread: float, tail: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, prediction and plate of 24 wells a plate; `tail` degrees of freedom of the wells' own errors."""
    names = np.repeat(np.arange(count), 24)
    own = rng.standard_t(tail, names.size) / np.sqrt(tail / (tail - 2))
    shift = rng.normal(0, spread * np.sqrt(share), count)[names]
    truth = np.exp(rng.normal(5, 0.3, names.size))
    return truth, truth * np.exp(shift + spread * np.sqrt(1 - share) * own), names


def judge(pairs: int, count: int, share: float, spread: float, tail: float) -> str:
    """One line: mean coverage, its worst decile over plates, and width over the marginal interval's."""
    rng = np.random.default_rng(0)
    covered, width, marginal = [], [], []
    for _ in range(pairs):
        found = conformal_interval(*plates(rng, count, share, spread, tail), level=LEVEL)
        truth, predicted, _ = plates(rng, 1, share, spread, tail)
        lower, upper = found.interval(predicted)
        covered.append(np.mean((lower <= truth) & (truth <= upper)))
        width.append(np.mean(upper - lower))
        marginal.append(np.subtract(*np.quantile(truth, [(1 + LEVEL) / 2, (1 - LEVEL) / 2])))
    worst = np.mean(np.sort(covered)[: max(1, pairs // 10)])
    return (
        f"| {count} | {share:g} | {spread:g} | {tail:g} | {found.scope} | {np.mean(covered):.1%} | "
        f"{worst:.1%} | {np.mean(width) / np.mean(marginal):.0%} |"
    )


def main(pairs: int) -> None:
    """Print a table."""
    print(f"level {LEVEL:.0%}, {pairs} pairs of calibration and fresh plate a row")
    print("| plates | ICC | SD of log error | t, freedom | speaks of | coverage | worst decile | width |")
    print("|---|---|---|---|---|---|---|---|")
    for count in (3, 9, 12, 20):
        for share, spread, tail in ((0.0, 0.05, 30), (0.3, 0.05, 30), (0.6, 0.1, 30), (0.3, 0.1, 4)):
            print(judge(pairs, count, share, spread, tail))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
