"""The offline test: do two samples come from one distribution?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.drift._kernel import Bandwidth, Floats, GaussianKernel, as_rows, choose_bandwidths, row_blocks
from cellabel.errors import InputError

__all__ = ["PermutationTest", "mmd_permutation_test"]


@dataclass(frozen=True)
class PermutationTest:
    """The outcome of a permutation test.

    Attributes:
        statistic: unbiased MMD² between the samples.
        p_value: (b + 1) / (n_permutations + 1), b permutations with a statistic at least as large; exact.
        n_permutations: permutations drawn.
        n_units: rows, or groups, that were permuted.
    """

    statistic: float
    p_value: float
    n_permutations: int
    n_units: int


def mmd_permutation_test(
    x: ArrayLike,
    y: ArrayLike,
    *,
    groups: Sequence[Any] | NDArray | None = None,
    n_permutations: int = 999,
    bandwidth: Bandwidth = "median",
    seed: int = 0,
) -> PermutationTest:
    """Test whether `x` and `y` have one distribution.

    Args:
        x: (n, d) sample.
        y: (m, d) sample.
        groups: (n + m,) labels of rows that belong together, those of `x` first. Whole groups change sides,
            so rows alike within a group (tiles of a well) do not pretend to be independent. A group lies on
            one side.
        n_permutations: the smallest p value is 1 / (n_permutations + 1).
        bandwidth: σ; by default by the median rule over both samples. Several: the mean of their kernels.
        seed: of the permutations; the global random state is not used.

    Raises:
        InputError: fewer than 2 rows (or groups) on a side, lengths that differ, values that are not finite.
    """
    first, second = as_rows(x, "sample x"), as_rows(y, "sample y")
    if first.shape[1] != second.shape[1]:
        raise InputError(f"x has {first.shape[1]} columns and y {second.shape[1]}; give rows of one length.")
    if min(len(first), len(second)) < 2:
        raise InputError(f"x has {len(first)} rows and y {len(second)}; give at least 2 of each.")
    if isinstance(n_permutations, bool) or n_permutations < 1 or n_permutations != int(n_permutations):
        raise InputError(f"n_permutations is {n_permutations!r}; give a whole number from 1 on.")
    rows = np.concatenate([first, second])
    rows -= rows.mean(axis=0)
    codes, of_x = _units(groups, len(first), len(rows))
    kernel = GaussianKernel(_bandwidths(bandwidth, rows))
    sizes = np.bincount(codes).astype(np.float64)
    pair_sums = _unit_sums(rows, codes, len(sizes), kernel)
    sides = _sides(of_x, sizes, int(n_permutations), np.random.default_rng(seed))
    statistics = _statistics(pair_sums, sizes, sides)
    # Equal up to rounding counts as at least as large: a permutation that only swaps labels must not look
    # smaller.
    tolerance = 1e-12 * max(1.0, abs(statistics[0]))
    reached = int((statistics[1:] >= statistics[0] - tolerance).sum())
    return PermutationTest(
        float(statistics[0]), (reached + 1) / (int(n_permutations) + 1), int(n_permutations), len(sizes)
    )


def _bandwidths(bandwidth: Bandwidth, rows: Floats) -> tuple[float, ...]:
    if (rows == rows[0]).all():
        return (1.0,)  # all rows alike: any bandwidth gives zero
    return choose_bandwidths(bandwidth, rows)


def _units(groups: Sequence[Any] | NDArray | None, n_first: int, n: int) -> tuple[NDArray[np.int64], NDArray]:
    """The unit of each row, and whether each unit lies in x."""
    if groups is None:
        return np.arange(n), np.arange(n) < n_first
    labels = [str(label) for label in groups]
    if len(labels) != n:
        raise InputError(
            f"There are {len(labels)} group labels for {n} rows of x and y; give one label a row."
        )
    both = set(labels[:n_first]) & set(labels[n_first:])
    if both:
        raise InputError(f"Group {sorted(both)[0]!r} has rows in x and in y; put each group on one side.")
    order: dict[str, int] = {}
    codes = np.array([order.setdefault(label, len(order)) for label in labels], dtype=np.int64)
    n_x = int(codes[:n_first].max()) + 1
    if min(n_x, len(order) - n_x) < 2:
        raise InputError(f"x has {n_x} groups and y {len(order) - n_x}; give at least 2 of each.")
    return codes, np.arange(len(order)) < n_x


def _unit_sums(rows: Floats, codes: NDArray[np.int64], n_units: int, kernel: GaussianKernel) -> Floats:
    """(units, units) sums of the kernel, without pairs of a row with itself; rows are taken by blocks."""
    sums = np.zeros((n_units, n_units))
    single = n_units == len(rows)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(n_units))
    for block in row_blocks(len(rows), len(rows)):
        values = kernel(rows[block], rows)
        values[np.arange(len(values)), np.arange(block.start, block.stop)] = 0.0
        if single:
            sums[codes[block]] = values
        else:
            np.add.at(sums, codes[block], np.add.reduceat(values[:, order], starts, axis=1))
    return sums


def _sides(of_x: NDArray, sizes: Floats, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(1 + n, units) which units lie in x: as given, then permuted."""
    sides = np.empty((n + 1, len(sizes)), dtype=bool)
    sides[0] = of_x
    for place in range(1, n + 1):
        sides[place] = of_x[rng.permutation(len(sizes))]
    return sides


def _statistics(sums: Floats, sizes: Floats, sides: NDArray[np.bool_]) -> Floats:
    total = sums.sum()
    values = np.empty(len(sides))
    for block in row_blocks(len(sides), len(sizes)):
        chosen = sides[block].astype(np.float64)
        towards = chosen @ sums
        within_x = np.einsum("bi,bi->b", towards, chosen)
        across = towards.sum(axis=1) - within_x
        within_y = total - within_x - 2 * across
        n, m = chosen @ sizes, (1 - chosen) @ sizes
        values[block] = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)
    return values
