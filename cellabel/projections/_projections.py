"""Projections on a plane."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.projections._rows import as_rows

__all__ = ["PROJECTIONS", "project"]

Points = NDArray[np.float64]

LEAST_PACMAP = 10
"""Rows below which neighbours, mid-near and further pairs of PaCMAP would be the same few rows."""

NEIGHBOURS = 10
"""PaCMAP's own choice below 10 000 rows."""

FEW_NEIGHBOURS = 5
"""Among tens of rows: a group of twelve wells whose neighbours are all the others shrinks to one dot."""

COMPONENTS = 10
"""Of the study's two choices before a map, 10 and 50, the one that suits tens to hundreds of wells."""

WIDEST = 100
"""Columns above which PaCMAP reduces by PCA of its own accord; done here exactly, in float64."""


def project(embeddings: ArrayLike, method: str = "pacmap", *, seed: int = 0) -> Points:
    """Embeddings on a plane.

    Args:
        embeddings: (n, d), in comparable units (drift's are standardised by the reference).
        method: of `PROJECTIONS`.
        seed: the same seed and rows give the same bytes.

    Returns:
        (n, 2). Axes have no units; with PaCMAP only neighbourhoods mean something, not distances far apart.

    Raises:
        InputError: unknown method, too few rows (2; 10 with PaCMAP), a value that is not finite, or all rows
            the same.
    """
    if method not in PROJECTIONS:
        raise InputError(f"There is no projection {method!r}: choose one of {', '.join(PROJECTIONS)}.")
    return PROJECTIONS[method](embeddings, seed=seed)


def pca(embeddings: ArrayLike, *, seed: int = 0, n_components: int = 2) -> Points:
    """Principal components (n, n_components), by exact decomposition: the seed changes nothing.

    Columns beyond the rank of the rows are 0.

    Raises:
        InputError: see `project`.
    """
    del seed
    return _components(as_rows(embeddings, "embeddings", 2), n_components)


def pacmap(embeddings: ArrayLike, *, seed: int = 0, n_components: int = 2) -> Points:
    """PaCMAP from a start by PCA, with exact neighbours: 10, 5 below 72 rows, fewer below 20.

    Neighbours are found here, by brute force and then PaCMAP's own scaling: its approximate index finds 95 %
    of them among 3000 rows, takes a row for its own neighbour where rows repeat, and sets the number of
    threads of the whole process, torch's included.

    Raises:
        InputError: see `project`; fewer than 10 rows, for which PCA says all there is to say.

    Source: Wang, Huang, Rudin & Shaposhnik 2021 (J Mach Learn Res 22:201), package pacmap.
    """
    rows = as_rows(embeddings, "embeddings", 2)
    if len(rows) < LEAST_PACMAP:
        raise InputError(
            f"{len(rows)} rows of embeddings are too few for PaCMAP: give {LEAST_PACMAP} or more, or use pca."
        )
    if rows.shape[1] < n_components:
        raise InputError(
            f"Embeddings of {rows.shape[1]} numbers cannot become {n_components}: ask for fewer components."
        )
    from pacmap import PaCMAP

    rows = rows - rows.mean(axis=0)
    rows /= np.abs(rows).max()
    if rows.shape[1] > WIDEST:
        rows = _components(rows, min(WIDEST, max(len(rows) - 1, n_components)))
    neighbours = min(NEIGHBOURS, max(FEW_NEIGHBOURS, len(rows) // 12), len(rows) // 4)
    with _quiet():
        reducer = PaCMAP(
            n_components=n_components,
            n_neighbors=neighbours,
            pair_neighbors=_neighbour_pairs(rows, neighbours),
            apply_pca=False,
            random_state=int(seed),
        )
        points = reducer.fit_transform(rows, init="pca")
    return np.asarray(points, dtype=float)


def pca_pacmap(embeddings: ArrayLike, *, seed: int = 0, n_components: int = 2) -> Points:
    """PaCMAP of the first 10 principal components, or of as many as there are.

    Raises:
        InputError: see `pacmap`.
    """
    rows = as_rows(embeddings, "embeddings", 2)
    kept = max(n_components, min(COMPONENTS, len(rows) - 1, rows.shape[1]))
    return pacmap(_components(rows, kept), seed=seed, n_components=n_components)


PROJECTIONS: Mapping[str, Callable[..., Points]] = {"pca": pca, "pacmap": pacmap, "pca_pacmap": pca_pacmap}
"""Projections by name: `(embeddings (n, d), *, seed, n_components=2) -> (n, n_components)`."""


def _components(rows: Points, count: int) -> Points:
    """The first principal components, the sign such that the largest loading is positive."""
    left, strength, right = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    sign = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    scores = (left * strength * sign)[:, :count]
    return np.pad(scores, ((0, 0), (0, count - scores.shape[1])))


def _neighbour_pairs(rows: Points, count: int) -> NDArray[np.int32]:
    """(n · count, 2) each row with its nearest, distances scaled by how dense it is about both."""
    from sklearn.neighbors import NearestNeighbors

    wide = min(count + 50, len(rows) - 1)
    far, near = NearestNeighbors(n_neighbors=wide, algorithm="brute").fit(rows).kneighbors()
    local = np.maximum(far[:, 3:6].mean(axis=1), 1e-10)
    order = np.argsort(far**2 / local[:, None] / local[near], axis=1, kind="stable")[:, :count]
    first = np.repeat(np.arange(len(rows)), count)
    return np.column_stack([first, np.take_along_axis(near, order, axis=1).ravel()]).astype(np.int32)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PaCMAP's warnings that a seed was set and that columns are not reduced."""
    logger = logging.getLogger("pacmap.pacmap")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
