from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel.drift import _kernel, mmd_permutation_test
from cellabel.errors import InputError


def brute_force(x, y, sigmas):
    def kernel(a, b):
        squared = ((a[:, None] - b[None]) ** 2).sum(axis=-1)
        return np.mean([np.exp(-squared / (2 * sigma**2)) for sigma in sigmas], axis=0)

    n, m = len(x), len(y)
    own = (kernel(x, x).sum() - n) / (n * (n - 1)) + (kernel(y, y).sum() - m) / (m * (m - 1))
    return own - 2 * kernel(x, y).mean()


@pytest.mark.parametrize("sigmas", [[1.5], [0.5, 1.0, 3.0]])
def test_the_statistic_is_the_unbiased_mmd(sigmas):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(14, 3)) + 50, rng.normal(size=(9, 3)) + 50.4
    found = mmd_permutation_test(x, y, n_permutations=9, bandwidth=sigmas)
    assert found.statistic == pytest.approx(brute_force(x, y, sigmas), abs=1e-10)


def test_the_p_value_converges_to_that_of_all_permutations():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 2)), rng.normal(size=(4, 2)) + 0.8
    rows = np.concatenate([x, y])
    observed = brute_force(x, y, [1.0])
    every = []
    for chosen in combinations(range(9), 5):
        rest = [i for i in range(9) if i not in chosen]
        every.append(brute_force(rows[list(chosen)], rows[rest], [1.0]) >= observed - 1e-12)
    found = mmd_permutation_test(x, y, n_permutations=4999, bandwidth=1.0)
    assert found.p_value == pytest.approx(np.mean(every), abs=0.02)


def test_the_smallest_p_value_is_one_in_permutations_plus_one():
    rng = np.random.default_rng(2)
    found = mmd_permutation_test(rng.normal(size=(20, 3)), rng.normal(size=(20, 3)) + 4, n_permutations=199)
    assert found.p_value == 1 / 200 and found.n_units == 40


def test_p_values_are_uniform_without_a_difference():
    rng = np.random.default_rng(3)
    values = [
        mmd_permutation_test(
            rng.normal(size=(12, 2)), rng.normal(size=(15, 2)), n_permutations=99, seed=i
        ).p_value
        for i in range(300)
    ]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(values) <= level) == pytest.approx(level, abs=0.075)


def grouped_pair(rng):
    def sample(n_groups):
        return (rng.normal(size=(n_groups, 1, 3)) + 0.5 * rng.normal(size=(n_groups, 8, 3))).reshape(-1, 3)

    return sample(8), sample(8), np.repeat(np.arange(16), 8)


def test_whole_groups_are_permuted_so_that_alike_rows_are_no_evidence():
    rng = np.random.default_rng(4)
    naive, honest = [], []
    for seed in range(60):
        x, y, groups = grouped_pair(rng)
        naive.append(mmd_permutation_test(x, y, n_permutations=99, seed=seed).p_value)
        honest.append(mmd_permutation_test(x, y, groups=groups, n_permutations=99, seed=seed).p_value)
    assert np.mean(np.array(naive) <= 0.05) > 0.5
    assert np.mean(np.array(honest) <= 0.05) <= 0.15


def test_groups_of_different_sizes_keep_the_statistic_of_the_rows():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(10, 2)), rng.normal(size=(7, 2))
    groups = ["a"] * 5 + ["b"] * 2 + ["c"] * 3 + ["d"] * 1 + ["e"] * 6
    plain = mmd_permutation_test(x, y, n_permutations=9)
    assert mmd_permutation_test(x, y, groups=groups, n_permutations=9).statistic == pytest.approx(
        plain.statistic
    )


def test_the_same_seed_gives_the_same_answer_and_leaves_the_global_state():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 3)) + 0.4
    before = np.random.get_state()[1].copy()
    assert mmd_permutation_test(x, y, seed=1) == mmd_permutation_test(x, y, seed=1)
    assert (np.random.get_state()[1] == before).all()


def test_equal_constant_samples_do_not_differ():
    assert mmd_permutation_test(np.ones((5, 2)), np.ones((6, 2)), n_permutations=19).p_value == 1.0


def test_the_aggregated_p_values_are_uniform_without_a_difference():
    rng = np.random.default_rng(7)
    options = {"n_permutations": 99, "bandwidth": "aggregated"}
    values = [
        mmd_permutation_test(rng.normal(size=(10, 2)), rng.normal(size=(12, 2)), seed=i, **options).p_value
        for i in range(300)
    ]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(values) <= level) == pytest.approx(level, abs=0.075)


def test_the_aggregated_test_sees_what_the_median_bandwidth_is_too_wide_for():
    rng = np.random.default_rng(8)
    found = {"median": 0, "aggregated": 0}
    for seed in range(12):
        modes = 3.0 * rng.integers(0, 4, size=(160, 1))
        x = modes[:80] + rng.normal(size=(80, 1)) * 0.2
        y = modes[80:] + rng.choice([-0.9, 0.9], size=(80, 1))
        for bandwidth in found:
            result = mmd_permutation_test(x, y, n_permutations=99, bandwidth=bandwidth, seed=seed)
            found[bandwidth] += result.p_value <= 0.05
    assert found["aggregated"] >= found["median"] + 5, found


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_order_sides_offset_and_the_size_of_the_blocks_do_not_change_the_statistic(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    n, m = data.draw(st.integers(2, 12)), data.draw(st.integers(2, 12))
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + 0.5
    groups = None
    if data.draw(st.booleans()):
        groups = [f"x{i % max(2, n // 2)}" for i in range(n)] + [f"y{i % max(2, m // 3)}" for i in range(m)]
    expected = mmd_permutation_test(x, y, groups=groups, n_permutations=19)
    order = rng.permutation(n)
    moved = None if groups is None else [groups[i] for i in order] + groups[n:]
    again = mmd_permutation_test(x[order] + 100, y + 100, groups=moved, n_permutations=19)
    swapped = mmd_permutation_test(
        y, x, groups=None if groups is None else groups[n:] + groups[:n], n_permutations=19
    )
    whole, _kernel.BLOCK_BYTES = _kernel.BLOCK_BYTES, 8 * (n + m) * 3
    try:
        blocks = mmd_permutation_test(x, y, groups=groups, n_permutations=19)
    finally:
        _kernel.BLOCK_BYTES = whole
    for other in (again, swapped, blocks):
        assert other.statistic == pytest.approx(expected.statistic, abs=1e-9)
    assert blocks.p_value == expected.p_value and expected.p_value * 20 == round(expected.p_value * 20)


def test_memory_does_not_grow_with_the_square_of_the_rows():
    import tracemalloc

    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(1500, 2)), rng.normal(size=(1500, 2))
    tracemalloc.start()
    mmd_permutation_test(x, y, n_permutations=9, bandwidth=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 3000**2 / 2  # half of one matrix of all pairs


@pytest.mark.parametrize("n", [19, 50, 301])
def test_the_median_of_all_pairs_is_exact_also_where_they_are_not_held_together(n, monkeypatch):
    rows = np.random.default_rng(n).normal(size=(n, 3))
    rows[: n // 4] = rows[0]  # ties
    halves = ((rows[:, None] - rows[None]) ** 2).sum(axis=-1)[np.triu_indices(n, 1)] / 2
    expected = np.sqrt(np.median(halves))
    assert _kernel.median_bandwidth(rows) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(_kernel, "PAIRS_AT_ONCE", 20)
    monkeypatch.setattr(_kernel, "BLOCK_BYTES", 8 * n * 4)
    assert _kernel.median_bandwidth(rows) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "options"),
    [
        (np.zeros((1, 2)), np.ones((5, 2)), {}),
        (np.zeros((5, 2)), np.ones((5, 3)), {}),
        (np.full((5, 2), np.nan), np.ones((5, 2)), {}),
        (np.zeros(5), np.ones(5), {}),
        (np.zeros((5, 2)), np.ones((5, 2)), {"groups": [1] * 9}),
        (np.zeros((5, 2)), np.ones((5, 2)), {"groups": list("aabbccddee")}),
        (np.zeros((5, 2)), np.ones((5, 2)), {"groups": list("aaaaabbbbb")}),
        (np.zeros((5, 2)), np.ones((5, 2)), {"n_permutations": 0}),
        (np.zeros((5, 2)), np.ones((5, 2)), {"n_permutations": "9"}),
        (np.zeros((5, 2)), np.ones((5, 2)), {"n_permutations": None}),
        (np.zeros((5, 2)), np.ones((5, 2)), {"seed": -1}),
        (np.zeros((5, 2)), np.ones((5, 2)), {"seed": "a"}),
        (np.zeros((5, 2), complex), np.ones((5, 2)), {}),
        (np.arange(10).reshape(5, 2), np.ones((5, 2)), {"bandwidth": -1}),
    ],
)
def test_meaningless_input_is_refused(x, y, options):
    with pytest.raises(InputError):
        mmd_permutation_test(x, y, **options)
