"""How far the true run length of a detector may lie from its promise: its reference is a finite sample."""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import eigsh

from cellabel.drift._calibration import Calibration
from cellabel.drift._kernel import Floats
from cellabel.drift._trajectories import HeldOut

__all__ = ["log_run_length_spread"]

COMPONENTS = 30
DENSE = 300
STEEPEST = 0.9


def log_run_length_spread(held_out: HeldOut, calibration: Calibration) -> float:
    """Standard deviation of log run length between detectors whose references are samples of this size.

    In the kernel's feature space MMD² is the squared length of (mean of the window − mean of the
    reference), less its expectation: along the k-th principal axis, of eigenvalue λ, the window's mean
    has variance λ/W and the reference's an error of variance λ/N that all windows share. Where the tail
    of the statistic falls off at the rate θ (the slope of log run length against the threshold, from the
    simulation), each axis contributes exp(θ r²/(1 − a)) with the error r and a = 2θλ/W, and (1 −
    a)^(−1/2) exp(−a/2) by its variance, which is itself estimated from N rows. Both vary from reference
    to reference; their first-order variances add up, with N − W for N: about what the first order leaves
    out of small references. Whole groups count as one row each.
    """
    kernel = _between_units(held_out)
    n = len(kernel)
    window = max(1.0, max(calibration.windows) * n / len(held_out.row_sums))
    values, vectors, rest = _principal_axes(kernel)
    rate = calibration.slope / calibration.scale[-1]
    a = np.minimum(2.0 * rate * values / window, STEEPEST)
    gain = 1.0 / (1.0 - a)
    kurtosis = n * (vectors**4).sum(axis=0) - 1.0
    informed = max(n - window, 1.0)
    offset = 0.5 * ((a * gain) ** 2).sum() * (window / informed) ** 2 + 2.0 * rate**2 * rest / informed**2
    shape = ((0.5 * a * (gain - 1.0)) ** 2 * kurtosis).sum() / informed
    return float(np.sqrt(offset + shape))


def _between_units(held_out: HeldOut) -> np.ndarray:
    """Mean kernel between rows, or between groups, without pairs of a row with itself."""
    if held_out.between is None:
        return held_out.matrix
    sizes = np.array([len(rows) for rows in held_out.group_rows], dtype=np.float64)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    return held_out.between / np.maximum(pairs, 1.0)


def _principal_axes(kernel: np.ndarray) -> tuple[Floats, Floats, float]:
    """Leading eigenvalues and eigenvectors of the centred kernel over n, and the sum of the other λ²."""
    n = len(kernel)
    centred = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    centred /= n
    if n <= DENSE:
        values, vectors = np.linalg.eigh(centred)
        values, vectors = values[-COMPONENTS:], vectors[:, -COMPONENTS:]
    else:
        start = np.random.default_rng(0).normal(size=n).astype(centred.dtype)
        values, vectors = eigsh(centred, k=COMPONENTS, which="LA", v0=start, tol=1e-2)
    values = np.maximum(values.astype(np.float64), 0.0)
    total = float(np.einsum("ij,ij->", centred, centred, dtype=np.float64))
    return values, vectors.astype(np.float64), max(total - float((values**2).sum()), 0.0)
