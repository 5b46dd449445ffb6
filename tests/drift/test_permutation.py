from itertools import combinations

import numpy as np
import pytest

from cellabel.drift import mmd_permutation_test
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
        (np.arange(10).reshape(5, 2), np.ones((5, 2)), {"bandwidth": -1}),
    ],
)
def test_meaningless_input_is_refused(x, y, options):
    with pytest.raises(InputError):
        mmd_permutation_test(x, y, **options)
