"""The offline test: do two samples come from one distribution?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.drift._kernel import Bandwidth, Floats, GaussianKernel, as_rows, choose_bandwidths, row_blocks
from cellabel.drift._settings import seed_of
from cellabel.errors import InputError

__all__ = ["PermutationTest", "mmd_permutation_test"]

FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Bandwidths of the aggregated test, in units of the median rule's."""

ROUNDING = 1e-12


@dataclass(frozen=True)
class PermutationTest:
    """The outcome of a permutation test.

    Attributes:
        statistic: unbiased MMD² between the samples; with "aggregated" bandwidths the largest of the
            standardised ones (in standard deviations over the permutations).
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
            "aggregated": ⅛, ¼, ½, 1 and 2 times the median rule, each standardised over the permutations, and
            the largest taken; that statistic is permuted like any other, so the p value stays exact, and no
            one bandwidth has to be right.
        seed: of the permutations; the global random state is not used.

    Raises:
        InputError: fewer than 2 rows (or groups) on a side, lengths that differ, values that are not finite.

    Source: Gretton et al. 2012 (JMLR 13:723); the aggregation after Schrab et al. 2023 (JMLR 24:194), with
        standardised statistics in place of levels. Memory is bounded: the kernel passes by in blocks of 8 MB,
        and only which unit lies where is kept of the permutations, a byte each.
    """
    first, second = as_rows(x, "sample x"), as_rows(y, "sample y")
    if first.shape[1] != second.shape[1]:
        raise InputError(f"x has {first.shape[1]} columns and y {second.shape[1]}; give rows of one length.")
    if min(len(first), len(second)) < 2:
        raise InputError(f"x has {len(first)} rows and y {len(second)}; give at least 2 of each.")
    number = isinstance(n_permutations, Real) and not isinstance(n_permutations, bool)
    if not number or n_permutations < 1 or n_permutations % 1:
        raise InputError(f"n_permutations is {n_permutations!r}; give a whole number from 1 on.")
    rows = np.concatenate([first, second])
    rows -= rows.mean(axis=0)
    codes, of_x = _units(groups, len(first), len(rows))
    sizes = np.bincount(codes).astype(np.float64)
    sides = _sides(of_x, int(n_permutations), np.random.default_rng(seed_of(seed)))
    kernels, aggregated = _kernels(bandwidth, rows)
    each = np.array([_statistics(rows, codes, sizes, sides, kernel) for kernel in kernels])
    statistics = _largest_standardised(each) if aggregated else each[0]
    # Equal up to rounding counts as at least as large: a permutation that only swaps labels must not look
    # smaller.
    tolerance = ROUNDING * max(1.0, abs(statistics[0]))
    reached = int((statistics[1:] >= statistics[0] - tolerance).sum())
    return PermutationTest(
        float(statistics[0]), (reached + 1) / (int(n_permutations) + 1), int(n_permutations), len(sizes)
    )


def _kernels(bandwidth: Bandwidth, rows: Floats) -> tuple[list[GaussianKernel], bool]:
    """One kernel, or one a bandwidth that is to be aggregated, and whether it is."""
    aggregated = isinstance(bandwidth, str) and bandwidth == "aggregated"
    if (rows == rows[0]).all():
        return [GaussianKernel((1.0,))], aggregated  # all rows alike: any bandwidth gives zero
    if not aggregated:
        return [GaussianKernel(choose_bandwidths(bandwidth, rows))], False
    (median,) = choose_bandwidths("median", rows)
    return [GaussianKernel((factor * median,)) for factor in FACTORS], True


def _largest_standardised(each: Floats) -> Floats:
    """(permutations,) maximum over the rows of `each`, in standard deviations from each row's mean.

    Mean and deviation are over all columns, the observed one among them: the columns stay exchangeable.
    """
    spread = each.std(axis=1, keepdims=True)
    return np.where(
        spread > ROUNDING, (each - each.mean(axis=1, keepdims=True)) / np.maximum(spread, ROUNDING), 0.0
    ).max(axis=0)


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


def _sides(of_x: NDArray, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(1 + n, units) which units lie in x: as given, then permuted."""
    sides = np.empty((n + 1, len(of_x)), dtype=bool)
    sides[0] = of_x
    for place in range(1, n + 1):
        sides[place] = of_x[rng.permutation(len(of_x))]
    return sides


def _statistics(
    rows: Floats, codes: NDArray[np.int64], sizes: Floats, sides: NDArray[np.bool_], kernel: GaussianKernel
) -> Floats:
    """Unbiased MMD² of each row of `sides`, from the sums of the kernel within x, over x and in all."""
    within_x, sum_x, total = np.zeros(len(sides)), np.zeros(len(sides)), 0.0
    for units, sums in _unit_sums(rows, codes, kernel):
        of_unit = sums.sum(axis=1)
        total += float(of_unit.sum())
        for part in row_blocks(len(sides), len(sizes)):
            chosen = sides[part].astype(np.float64)
            towards = chosen @ sums.T
            within_x[part] += np.einsum("pu,pu->p", chosen[:, units], towards)
            sum_x[part] += chosen[:, units] @ of_unit
    n = sides @ sizes
    m = sizes.sum() - n
    across = sum_x - within_x
    within_y = total - within_x - 2 * across
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)


def _unit_sums(
    rows: Floats, codes: NDArray[np.int64], kernel: GaussianKernel
) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Units, and (those, all units) sums of the kernel, without pairs of a row with itself, by blocks.

    A unit whose rows fall into two blocks comes twice, each time with a part of its sums.
    """
    order = np.argsort(codes, kind="stable")
    ordered, unit = rows[order], codes[order]
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    single = len(starts) == len(rows)
    for block in row_blocks(len(rows), len(rows)):
        values = kernel(ordered[block], ordered)
        values[np.arange(len(values)), np.arange(block.start, block.stop)] = 0.0
        if single:
            yield unit[block], values
        else:
            own = np.flatnonzero(np.diff(unit[block], prepend=-1))
            yield unit[block][own], np.add.reduceat(np.add.reduceat(values, starts, axis=1), own, axis=0)
