"""The reference sample: centred rows, the kernel over them, and how a new row resembles them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cellabel.drift._kernel import (
    Bandwidth,
    Floats,
    GaussianKernel,
    Singles,
    as_rows,
    choose_bandwidths,
    row_blocks,
)
from cellabel.errors import InputError

__all__ = ["Reference"]

BUFFER_BYTES = 256 * 1024

ROWS_FOR_SINGLE = 500
"""From here on the mean of single-precision kernel values is right to 1e-8, and takes a third of the time."""


@dataclass(frozen=True)
class Reference:
    """Reference rows, ready to compare others with.

    Attributes:
        rows: (N, d) float64, centred.
        centre: (d,) mean that was taken off; taken off new rows too.
        kernel: with its bandwidths fixed.
        self_similarity: A, the mean of k(x_i, x_j) over i ≠ j.
        half_norms: (N,) |x|²/2 of the centred rows.
    """

    rows: Floats
    centre: Floats
    kernel: GaussianKernel
    self_similarity: float
    half_norms: Floats

    @classmethod
    def of(cls, values: object, bandwidth: Bandwidth) -> Reference:
        """Centre `values` and fix the bandwidth.

        Raises:
            InputError: not a finite matrix, fewer than 3 rows, or all rows alike.
        """
        raw = as_rows(values, "reference")
        if len(raw) < 3:
            raise InputError(f"The reference has {len(raw)} rows; at least 3 are needed.")
        if (raw == raw[0]).all():
            raise InputError(
                "The reference is constant: all its rows are alike; give embeddings of different wells."
            )
        centre = raw.mean(axis=0)
        rows = raw - centre
        kernel = GaussianKernel(choose_bandwidths(bandwidth, rows))
        n = len(rows)
        total = sum(float(kernel(rows[block], rows).sum()) for block in row_blocks(n, n))
        return cls.centred(rows, centre, kernel, (total - n) / (n * (n - 1)))

    @classmethod
    def centred(
        cls, rows: Floats, centre: Floats, kernel: GaussianKernel, self_similarity: float
    ) -> Reference:
        """A reference whose rows have been centred, and their self-similarity summed, already.

        A detector that is loaded elsewhere goes on with the very bits it was saved with, in no time.
        """
        return cls(rows, centre, kernel, self_similarity, 0.5 * np.einsum("ij,ij->i", rows, rows))

    def similarity(self, centred: Floats) -> float:
        """m(y), the mean kernel value of one centred row (d,) with the reference."""
        halves = self.rows @ centred
        halves -= self.half_norms
        halves -= 0.5 * (centred @ centred)
        return float(self.kernel.of_half_distances(halves).mean())

    def similarities(self, centred: Floats) -> Floats:
        """m(y) of each centred row (n, d), by blocks of one matrix product each."""
        n_rows, n = len(self.rows), len(centred)
        result = np.empty(n)
        # −|y − x|²/2 = y·x − |y|²/2 − |x|²/2 comes out of the matrix product itself, with two columns more;
        # one small buffer stays in the cache for the exponential and the sum that follow.
        left = np.column_stack([centred, -0.5 * np.einsum("ij,ij->i", centred, centred), np.ones(n)])
        step = min(max(n, 1), max(1, BUFFER_BYTES // (8 * n_rows)))
        halves, single = np.empty((step, n_rows)), np.empty((step, n_rows), np.float32)
        for start in range(0, n, step):
            part = left[start : start + step]
            product = np.matmul(part, self._augmented, out=halves[: len(part)])
            values: Floats | Singles = (
                self.kernel.in_single(product, single[: len(part)])
                if n_rows >= ROWS_FOR_SINGLE
                else self.kernel.of_half_distances(product)
            )
            result[start : start + step] = values.sum(axis=1, dtype=np.float64)
        return result / n_rows

    @cached_property
    def _augmented(self) -> Floats:
        """(d + 2, N): the rows, ones, and −|x|²/2."""
        return np.vstack([self.rows.T, np.ones(len(self.rows)), -self.half_norms])
