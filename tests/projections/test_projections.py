"""Maps of embeddings and their groups."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellabel.errors import InputError
from cellabel.projections import CLUSTERINGS, PROJECTIONS, cluster, new_groups, project
from cellabel.projections._projections import _neighbour_pairs

SIZES = (40, 25, 12)
BLOBS = np.repeat(np.arange(3), SIZES)


def blobs(sizes=SIZES, columns=48, apart=3.0, seed=0):
    """Rows about as many centres as there are sizes."""
    draw = np.random.default_rng(seed)
    centres = apart * draw.normal(size=(len(sizes), columns))
    return np.repeat(centres, sizes, axis=0) + draw.normal(size=(sum(sizes), columns))


def purity(labels, truth):
    """Share of the rows that belong to the commonest truth of their group; noise is never right."""
    groups = [truth[labels == group] for group in set(labels) - {-1}]
    return sum(np.bincount(group).max() for group in groups) / len(truth)


@pytest.mark.parametrize("method", PROJECTIONS)
@pytest.mark.parametrize("columns", [48, 300])
def test_separated_blobs_stay_separated(method, columns):
    points = project(blobs(columns=columns), method, seed=1)

    assert points.shape == (sum(SIZES), 2)
    assert points.dtype == np.float64
    assert purity(cluster(points, "kmeans"), BLOBS) == 1


@pytest.mark.parametrize("method", CLUSTERINGS)
def test_every_clustering_finds_the_three_blobs(method):
    labels = cluster(blobs(columns=2, apart=30.0, seed=3), method)

    assert purity(labels, BLOBS) > 0.9
    assert set(labels) - {-1} == {0, 1, 2}


def test_groups_are_numbered_by_size():
    labels = cluster(blobs(columns=2, apart=30.0, seed=3)[::-1], "kmeans")

    assert np.bincount(labels).tolist() == list(SIZES)


def test_hdbscan_leaves_out_a_point_that_lies_alone():
    labels = cluster(np.vstack([blobs(columns=2, apart=30.0, seed=3), [[500.0, 500.0]]]))

    assert labels[-1] == -1


@pytest.mark.parametrize("method", CLUSTERINGS)
def test_points_on_two_spots_are_two_groups(method):
    labels = cluster(np.repeat([[0.0, 0.0], [1.0, 0.0]], [8, 6], axis=0), method)

    assert labels.tolist() == [0] * 8 + [1] * 6


@pytest.mark.parametrize("method", PROJECTIONS)
def test_the_same_seed_gives_the_same_bytes(method):
    rows = blobs()
    first = project(rows, method, seed=7)
    project(rows[:30], method, seed=8)
    again = project(rows, method, seed=7)

    assert first.tobytes() == again.tobytes()
    assert cluster(first, "kmeans", seed=2).tobytes() == cluster(again, "kmeans", seed=2).tobytes()


def test_another_seed_draws_another_pacmap():
    rows = blobs()

    assert not np.allclose(project(rows, seed=1), project(rows, seed=2))


def test_no_global_state_is_touched():
    import faiss
    import pacmap.pacmap as module

    numpy_before, python_before = np.random.get_state(), random.getstate()
    threads, level = faiss.omp_get_max_threads(), module.logger.level
    rows = blobs()
    given = rows.copy()

    for method in PROJECTIONS:
        points = project(rows, method, seed=5)
    for method in CLUSTERINGS:
        cluster(points, method, seed=5)

    assert np.random.get_state()[1].tolist() == numpy_before[1].tolist()
    assert np.random.get_state()[2] == numpy_before[2]
    assert random.getstate() == python_before
    assert faiss.omp_get_max_threads() == threads
    assert module.logger.level == level
    assert np.array_equal(rows, given)


def test_nothing_is_printed_or_logged(capfd, caplog):
    project(blobs(), seed=5)

    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize("count", range(10, 48))
def test_pacmap_copes_with_every_small_number_of_rows(count):
    points = project(blobs((count // 2, count - count // 2)), seed=0)

    assert points.shape == (count, 2)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("method", PROJECTIONS)
def test_repeated_rows_are_drawn(method):
    rows = blobs((30,))
    rows[:25] = rows[0]

    assert np.isfinite(project(rows, method)).all()


@pytest.mark.parametrize("method", PROJECTIONS)
def test_an_offset_and_a_unit_change_no_neighbourhood(method):
    rows = blobs()

    shifted = project(1e4 + 1e-3 * rows, method, seed=3)

    assert purity(cluster(shifted, "kmeans"), BLOBS) == 1


def test_pca_agrees_with_scikit_learn():
    from sklearn.decomposition import PCA

    rows = blobs()
    known = PCA(5, svd_solver="full").fit_transform(rows)

    found = PROJECTIONS["pca"](rows, seed=0, n_components=5)

    np.testing.assert_allclose(np.abs(found), np.abs(known), atol=1e-9)


def test_pca_of_two_rows_has_one_dimension():
    points = project([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]], "pca")

    np.testing.assert_allclose(points, [[-2.5, 0.0], [2.5, 0.0]], atol=1e-12)


def test_neighbours_are_those_of_brute_force():
    rows = blobs((9, 8), columns=4)
    far = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    local = np.sort(far, axis=1)[:, 4:7].mean(axis=1)
    scaled = far**2 / local[:, None] / local[None]
    np.fill_diagonal(scaled, np.inf)

    pairs = _neighbour_pairs(rows, 3)

    assert pairs[:, 0].tolist() == np.repeat(np.arange(17), 3).tolist()
    assert pairs[:, 1].reshape(17, 3).tolist() == np.argsort(scaled, axis=1)[:, :3].tolist()


@pytest.mark.parametrize("new_wells", [6, 10, 24])
def test_new_wells_that_drifted_are_a_new_group(new_wells):
    rows = np.random.default_rng(4).normal(size=(60 + new_wells, 64))
    is_new = np.arange(len(rows)) >= 60
    rows[is_new] += 2.0

    groups = cluster(project(rows))
    apart = np.isin(groups, new_groups(groups, is_new))

    assert (apart & is_new).sum() >= new_wells - 1
    assert (apart & ~is_new).sum() <= 1


def test_new_wells_like_the_others_are_no_new_group():
    rows = np.random.default_rng(5).normal(size=(90, 64))
    groups = cluster(project(rows))

    assert new_groups(groups, np.arange(90) >= 66) == []


def test_a_new_group_needs_four_fifths_new_rows_and_noise_is_none():
    labels = [0] * 5 + [1] * 5 + [2] * 5 + [-1] * 3
    is_new = [1, 1, 1, 1, 0] + [1, 1, 1, 0, 0] + [1] * 5 + [1] * 3

    assert new_groups(labels, is_new) == [0, 2]
    assert new_groups(labels, is_new, share=0.6) == [0, 1, 2]
    assert new_groups(labels, np.zeros(18)) == []
    assert new_groups([], []) == []


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 40))
def test_all_of_every_new_group_is_mostly_new(data, count):
    labels = data.draw(arrays(int, count, elements=st.integers(-1, 4)))
    is_new = data.draw(arrays(bool, count))

    found = new_groups(labels, is_new)

    for group in range(5):
        members = is_new[labels == group]
        assert (group in found) == (len(members) > 0 and members.sum() >= 0.8 * len(members))


NAN = blobs((12,))
NAN[3, 2] = np.nan


@pytest.mark.parametrize("method", PROJECTIONS)
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (NAN, "Row 3"),
        (np.where(np.isnan(NAN), np.inf, NAN), "Row 3"),
        (np.ones((12, 4)), "the same"),
        (np.ones((1, 4)), "too few"),
        (np.ones((0, 4)), "too few"),
        (np.ones((12, 0)), "shape"),
        (np.ones(12), "shape"),
    ],
)
def test_rows_that_cannot_be_drawn_are_named(method, rows, said):
    with pytest.raises(InputError, match=said):
        project(rows, method)


@pytest.mark.parametrize("method", ["pacmap", "pca_pacmap"])
def test_pacmap_asks_for_ten_rows_and_names_pca(method):
    with pytest.raises(InputError, match=r"9 rows .* use pca"):
        project(blobs((9,)), method)


def test_pacmap_asks_for_as_many_columns_as_it_draws():
    with pytest.raises(InputError, match="1 numbers"):
        project(np.arange(20.0)[:, None])


@pytest.mark.parametrize("method", CLUSTERINGS)
@pytest.mark.parametrize(
    ("points", "said"), [(NAN, "Row 3"), (np.ones((12, 2)), "the same"), (blobs((9,)), "too few")]
)
def test_points_that_cannot_be_grouped_are_named(method, points, said):
    with pytest.raises(InputError, match=said):
        cluster(points, method)


def test_unknown_names_and_lengths_are_told_with_those_there_are():
    with pytest.raises(InputError, match=r"'umap'.*pca, pacmap, pca_pacmap"):
        project(blobs(), "umap")
    with pytest.raises(InputError, match=r"'ward'.*hdbscan, dbscan, kmeans"):
        cluster(blobs(), "ward")
    with pytest.raises(InputError, match="at least 2"):
        cluster(blobs(), smallest=1)
    with pytest.raises(InputError, match="3 labels and 2 marks"):
        new_groups([0, 0, 1], [True, False])


def test_importing_the_room_loads_neither_pacmap_nor_scikit_learn():
    heavy = {"pacmap", "sklearn", "hdbscan", "numba"}
    code = f"import sys, cellabel.projections; print({heavy} & set(sys.modules))"

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
