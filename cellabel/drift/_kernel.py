"""The Gaussian kernel, its median bandwidth, and the refusals every array of embeddings meets first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError

__all__ = ["Bandwidth", "Floats", "GaussianKernel", "as_rows", "choose_bandwidths", "row_blocks"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bandwidth = str | float | ArrayLike

LARGEST = 1e100
"""Values beyond this overflow when squared and summed, so they are refused like infinities."""

BLOCK_BYTES = 8 * 2**20

PAIRS_AT_ONCE = 4_000_000
"""Pairs of rows whose distances are held together for their median: 32 MB, all of them up to 2,800 rows."""

BINS = 4096


def as_rows(values: Any, what: str, *, columns: int | None = None) -> Floats:
    """`values` as a finite (n, d) float64 array.

    Raises:
        InputError: not a numeric matrix, another number of columns than `columns`, or a value that is not
            finite.
    """
    try:
        if np.iscomplexobj(values):  # numpy would drop the imaginary parts with a mere warning
            raise TypeError("complex numbers")
        rows = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"The {what} is not numeric ({error}); give an (n, d) array of numbers.") from error
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise InputError(f"The {what} has shape {rows.shape}; give an (n, d) array, one row an observation.")
    if columns is not None and rows.shape[1] != columns:
        raise InputError(
            f"The {what} has {rows.shape[1]} columns, but the reference has {columns}; "
            "use embeddings of the model that made the reference."
        )
    within = np.abs(rows) <= LARGEST  # False for NaN and infinities too
    if not within.all():
        row = int(np.flatnonzero(~within.all(axis=1))[0])
        raise InputError(
            f"The {what} holds a NaN, infinite or absurdly large value in row {row}; "
            "leave that row out or embed its image again."
        )
    return rows


def row_blocks(n_rows: int, row_length: int) -> Iterator[slice]:
    """Slices of `n_rows` rows so that a float64 block of `row_length` columns stays within 8 MB."""
    step = max(1, BLOCK_BYTES // (8 * max(row_length, 1)))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


@dataclass(frozen=True)
class GaussianKernel:
    """k(a, b) = exp(−|a − b|² / (2σ²)), averaged over the bandwidths σ."""

    bandwidths: tuple[float, ...]

    def __call__(self, a: Floats, b: Floats) -> Floats:
        """Kernel values (len(a), len(b)) of centred rows."""
        return self.of_half_distances(half_squared_distances(a, b))

    def paired(self, a: Floats, b: Floats) -> Floats:
        """Kernel values of row i of `a` with row i of `b`."""
        difference = a - b
        return self.of_half_distances(np.einsum("ij,ij->i", difference, difference) * -0.5)

    def of_half_distances(self, negative_half: Floats) -> Floats:
        """Kernel of −|a − b|²/2, which is overwritten where there is one bandwidth."""
        if len(self.bandwidths) == 1:
            negative_half *= self.bandwidths[0] ** -2.0
            return np.exp(negative_half, out=negative_half)
        total = np.exp(negative_half * self.bandwidths[0] ** -2.0)
        for bandwidth in self.bandwidths[1:]:
            total += np.exp(negative_half * bandwidth**-2.0)
        total /= len(self.bandwidths)
        return total

    def in_single(self, negative_half: Floats, out: Singles) -> Singles:
        """As `of_half_distances`, in single precision, written to `out`: off by 1e-7 at most."""
        for place, bandwidth in enumerate(self.bandwidths):
            scaled = out if place == 0 else np.empty_like(out)
            with np.errstate(over="ignore"):  # farther than single precision reaches: similarity 0
                np.multiply(negative_half, bandwidth**-2.0, out=scaled, casting="same_kind")
            np.exp(scaled, out=scaled)
            if place:
                out += scaled
        if len(self.bandwidths) > 1:
            out /= len(self.bandwidths)
        return out


def half_squared_distances(a: Floats, b: Floats) -> Floats:
    """−|a_i − b_j|²/2 as one matrix product; rows are centred, or digits are lost at large offsets."""
    halves = a @ b.T
    halves -= 0.5 * np.einsum("ij,ij->i", a, a)[:, None]
    halves -= 0.5 * np.einsum("ij,ij->i", b, b)
    return np.minimum(halves, 0.0, out=halves)


def choose_bandwidths(bandwidth: Bandwidth, centred: Floats) -> tuple[float, ...]:
    """The σ that `bandwidth` asks for: "median", one positive number or several.

    The median rule here: σ² is the median over pairs i < j of |x_i − x_j|² / 2.
    """
    if isinstance(bandwidth, str):
        if bandwidth != "median":
            raise InputError(
                f"The bandwidth {bandwidth!r} is unknown; give 'median', a number or an array of numbers."
            )
        return (median_bandwidth(centred),)
    try:
        values = np.atleast_1d(np.asarray(bandwidth, dtype=np.float64)).ravel()
    except (TypeError, ValueError) as error:
        raise InputError(
            "The bandwidth is not numeric; give 'median', a number or an array of numbers."
        ) from error
    if values.size == 0 or not np.isfinite(values).all() or (values <= 0).any():
        raise InputError(
            f"The bandwidth {bandwidth!r} is not positive and finite; give 'median' or positive numbers."
        )
    return tuple(float(value) for value in values)


def median_bandwidth(centred: Floats) -> float:
    """σ by the median rule over all pairs of rows, exactly; memory stays bounded for any number of rows."""
    n = len(centred)
    n_pairs = n * (n - 1) // 2
    low, high = 0.0, 2.0 * float(np.einsum("ij,ij->i", centred, centred).max()) * (1 + 1e-9)
    below = 0  # pairs under `low`
    inside = n_pairs
    middle = ((n_pairs - 1) // 2, n_pairs // 2)
    while inside > PAIRS_AT_ONCE and high - low > 1e-12 * high:
        counts = np.zeros(BINS, dtype=np.int64)
        for block in _pair_blocks(centred):
            counts += np.histogram(block, BINS, (low, high))[0]
        reached = below + np.cumsum(counts)
        first, last = (int(np.searchsorted(reached, place, side="right")) for place in middle)
        below = int(reached[first] - counts[first])
        inside = int(counts[first : last + 1].sum())
        edges = np.linspace(low, high, BINS + 1)
        low, high = float(edges[first]), float(edges[last + 1])
    # The edges of bins are only as sharp as rounding, so the rank is counted again by comparison.
    below, parts = 0, []
    for block in _pair_blocks(centred):
        below += int((block < low).sum())
        parts.append(block[(block >= low) & (block <= high)])
    kept = np.concatenate(parts)
    places = np.clip(np.array(middle) - below, 0, len(kept) - 1)
    kept.partition(places)
    median = float(kept[places].mean())
    if not median > 0:
        raise InputError(
            "More than half of the reference's pairs of rows are identical, so the median bandwidth is zero; "
            "remove the duplicates or give a bandwidth."
        )
    return float(np.sqrt(median))


def _pair_blocks(centred: Floats) -> Iterator[Floats]:
    """|x_i − x_j|²/2 over the pairs i < j, block by block of rows i."""
    n = len(centred)
    for block in row_blocks(n, n):
        halves = half_squared_distances(centred[block], centred[block.start :])
        np.negative(halves, out=halves)
        yield np.concatenate([row[place + 1 :] for place, row in enumerate(halves)])
