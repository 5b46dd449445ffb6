"""Groups on a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.projections._rows import as_rows

__all__ = ["CLUSTERINGS", "cluster", "new_groups"]

Points = NDArray[np.float64]
Labels = NDArray[np.int64]

NOISE = -1
MOST_GROUPS = 8


def cluster(points: ArrayLike, method: str = "hdbscan", *, smallest: int = 5, seed: int = 0) -> Labels:
    """Groups of points that lie together.

    Args:
        points: (n, d), usually a projection's (n, 2).
        method: of `CLUSTERINGS`.
        smallest: points that make a group.
        seed: of the clusterings that begin by chance (k-means).

    Returns:
        (n,) group of each point, numbered from 0 by size, the largest first; −1 is in none. HDBSCAN and
        DBSCAN leave points out, k-means never does.

    Raises:
        InputError: unknown method, `smallest` below 2, fewer points than two groups need, a value that is not
            finite, or all points the same.
    """
    if method not in CLUSTERINGS:
        raise InputError(f"There is no clustering {method!r}: choose one of {', '.join(CLUSTERINGS)}.")
    if smallest < 2:
        raise InputError(f"Groups of {smallest} points say nothing: let `smallest` be at least 2.")
    rows = as_rows(points, "points", 2 * smallest)
    return _by_size(CLUSTERINGS[method](rows, smallest=smallest, seed=seed))


def new_groups(labels: ArrayLike, is_new: ArrayLike, *, share: float = 0.8) -> list[int]:
    """The groups that consist of new rows: on a map of a drift, wells unlike any of the reference.

    Args:
        labels: (n,) of `cluster`; −1 is no group.
        is_new: (n,) whether a row is new.
        share: of new rows, at least, that makes a group new.

    Returns:
        Their labels, ascending.

    Raises:
        InputError: the lengths differ.
    """
    groups, new = np.asarray(labels), np.asarray(is_new, dtype=bool)
    if groups.ndim != 1 or groups.shape != new.shape:
        raise InputError(
            f"{groups.size} labels and {new.size} marks of new rows do not match: give one of each a row."
        )
    return [
        int(group) for group in np.unique(groups) if group != NOISE and new[groups == group].mean() >= share
    ]


def hdbscan(points: Points, *, smallest: int, seed: int) -> Labels:
    """Groups that persist over densities.

    Source: Campello, Moulavi & Sander 2013 (PAKDD 160), package hdbscan.
    """
    from hdbscan import HDBSCAN

    del seed
    found = HDBSCAN(min_cluster_size=smallest, approx_min_span_tree=False, core_dist_n_jobs=1)
    return found.fit_predict(points)


def dbscan(points: Points, *, smallest: int, seed: int) -> Labels:
    """Groups denser than one density: that of 90 % of the points, by the distance to their neighbours.

    Source: Ester, Kriegel, Sander & Xu 1996 (KDD 226) for the method and for the sorted distances.
    """
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import NearestNeighbors

    del seed
    reach = NearestNeighbors(n_neighbors=smallest - 1).fit(points).kneighbors()[0][:, -1]
    radius = max(float(np.quantile(reach, 0.9)), float(np.finfo(np.float32).tiny))
    return DBSCAN(eps=radius, min_samples=smallest).fit_predict(points)


def kmeans(points: Points, *, smallest: int, seed: int) -> Labels:
    """As many groups, 2 to 8, as have the best silhouette; a group smaller than `smallest` disqualifies.

    Two groups where nothing qualifies.

    Source: Rousseeuw 1987 (J Comput Appl Math 20:53) for the silhouette.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    best, most = np.empty(0, dtype=np.int64), -np.inf
    distinct = len(np.unique(points, axis=0))
    for count in range(2, max(2, min(MOST_GROUPS, len(points) // smallest, distinct - 1)) + 1):
        labels = KMeans(count, n_init=10, random_state=seed).fit_predict(points)
        if not best.size:
            best = labels
        if np.bincount(labels).min() < smallest or distinct <= 2:
            continue
        score = float(silhouette_score(points, labels))
        if score > most:
            best, most = labels, score
    return best


CLUSTERINGS: Mapping[str, Callable[..., Labels]] = {"hdbscan": hdbscan, "dbscan": dbscan, "kmeans": kmeans}
"""Clusterings by name: `(points (n, d), *, smallest, seed) -> labels (n,)`, −1 in no group."""


def _by_size(labels: NDArray) -> Labels:
    """The same groups, numbered by size, ties by the first row."""
    groups, first, counts = np.unique(labels, return_index=True, return_counts=True)
    known = groups != NOISE
    groups, first, counts = groups[known], first[known], counts[known]
    order = np.lexsort((first, -counts))
    named = np.full(len(labels), NOISE, dtype=np.int64)
    for place, index in enumerate(order):
        named[labels == groups[index]] = place
    return named
