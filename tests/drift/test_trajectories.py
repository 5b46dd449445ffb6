import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel.drift._reference import Reference
from cellabel.drift._trajectories import HeldOut


def oracle(kernel, window, held):
    left = np.setdiff1d(np.arange(len(kernel)), held)
    n, m = len(left), len(window)
    value = kernel[np.ix_(left, left)].sum() / (n * (n - 1)) - 2 * kernel[np.ix_(left, window)].mean()
    return value + (kernel[np.ix_(window, window)].sum() / (m * (m - 1)) if m > 1 else 0.0)


def zero_diagonal_kernel(reference):
    kernel = reference.kernel(reference.rows, reference.rows)
    np.fill_diagonal(kernel, 0.0)
    return kernel


@pytest.mark.parametrize("grouped", [False, True])
def test_every_window_equals_a_brute_force_mmd_against_the_rows_that_are_left(grouped):
    rng = np.random.default_rng(0)
    reference = Reference.of(rng.normal(size=(60, 4)), "median")
    kernel = zero_diagonal_kernel(reference)
    codes = (
        np.sort(rng.permutation(np.concatenate([np.arange(20), rng.integers(0, 20, 40)])))
        if grouped
        else None
    )
    held_out = HeldOut.of(reference, codes)
    path = held_out.draw(rng, 4, 45, 7)
    for window, values in zip((2, 3, 7), held_out.statistics(path, (2, 3, 7)), strict=True):
        for stream in range(4):
            for t in range(45):
                inside = path[stream, max(0, t - window + 1) : t + 1]
                held = inside if codes is None else np.flatnonzero(np.isin(codes, codes[inside]))
                assert values[stream, t] == pytest.approx(oracle(kernel, inside, held), abs=2e-6)


def test_no_row_recurs_within_a_window_even_from_the_smallest_reference():
    rng = np.random.default_rng(0)
    held_out = HeldOut.of(Reference.of(rng.normal(size=(19, 3)), "median"))
    path = held_out.draw(rng, 50, 80, 10)
    windows = np.lib.stride_tricks.sliding_window_view(path, 10, axis=1).reshape(-1, 10)
    assert (np.diff(np.sort(windows, axis=1), axis=1) > 0).all()
    counts = np.bincount(path.ravel(), minlength=19)
    assert counts.max() < 1.3 * counts.min()


def test_groups_come_whole_and_apart():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(15), [1, 2, 3] * 5)
    held_out = HeldOut.of(Reference.of(rng.normal(size=(30, 3)), "median"), codes)
    for path in held_out.draw(rng, 40, 30, 8):
        drawn = codes[path]
        opens = np.flatnonzero(np.diff(drawn, prepend=-1))
        for start, stop in itertools.pairwise(opens):
            assert sorted(path[start:stop]) == list(np.flatnonzero(codes == drawn[start]))
        for end in range(8, 31):
            inside = drawn[end - 8 : end]
            assert (np.diff(inside) != 0).sum() + 1 == len(set(inside))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 999),
    st.lists(st.integers(2, 6), min_size=1, max_size=3, unique=True).map(sorted),
    st.none() | st.lists(st.integers(1, 5), min_size=12, max_size=14),
)
def test_any_grouping_and_any_windows_equal_brute_force(seed, windows, sizes):
    rng = np.random.default_rng(seed)
    n = 30 if sizes is None else sum(sizes)
    reference = Reference.of(rng.normal(size=(n, 2)), [0.7, 2.0])
    codes = None if sizes is None else rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    held_out = HeldOut.of(reference, codes)
    path = held_out.draw(rng, 1, 14, max(windows))
    kernel = zero_diagonal_kernel(reference)
    for window, values in zip(windows, held_out.statistics(path, windows), strict=True):
        for t in range(14):
            inside = path[0, max(0, t - window + 1) : t + 1]
            held = inside if codes is None else np.flatnonzero(np.isin(codes, codes[inside]))
            assert values[0, t] == pytest.approx(oracle(kernel, inside, held), abs=5e-6)
