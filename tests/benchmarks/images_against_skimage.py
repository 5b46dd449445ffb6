"""Segmentation, measurement and rolling ball beside plain scikit-image: CPU seconds, one thread, ratios.

Run: OMP_NUM_THREADS=1 python tests/benchmarks/images_against_skimage.py [repeats]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from skimage import feature, filters, measure, morphology, restoration, segmentation

from cellabel.measurement import measure_objects
from cellabel.preprocessing import rolling_ball
from cellabel.segmentation import segment

PROPERTIES = (
    "label", "area", "perimeter", "axis_major_length", "axis_minor_length", "equivalent_diameter_area",
    "eccentricity", "solidity", "extent", "orientation", "centroid", "intensity_mean", "intensity_std",
    "intensity_min", "intensity_max",
)  # fmt: skip


def simulated_field(size: int = 2048, count: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A field of elliptic nuclei, some touching, with camera noise; and the true labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.int32)
    for number in range(1, count + 1):
        centre = tuple(int(v) for v in rng.uniform(15, size - 15, 2))
        axes = tuple(int(v) for v in rng.uniform(8, 12, 2))
        cv2.ellipse(labels, centre, axes, float(rng.uniform(0, 180)), 0, 360, number, -1)
    heights = np.concatenate([[0], rng.uniform(500, 1500, count)]).astype(np.float32)
    image = cv2.GaussianBlur(heights[labels], (0, 0), 1.5) + 150
    return rng.poisson(image).astype(np.uint16), labels


def plain_scikit_image(image: np.ndarray) -> np.ndarray:
    """The usual recipe: Gaussian, Otsu, holes, small objects, opening, distance transform, watershed."""
    from scipy import ndimage

    smooth = filters.gaussian(image.astype(float), 1, preserve_range=True)
    mask = ndimage.binary_fill_holes(smooth > filters.threshold_otsu(smooth))
    mask = morphology.opening(morphology.remove_small_objects(mask, max_size=19), morphology.disk(1))
    distance = filters.gaussian(ndimage.distance_transform_edt(mask), 1)
    tops = feature.peak_local_max(distance, min_distance=7, labels=measure.label(mask))
    seeds = np.zeros(mask.shape, int)
    seeds[tuple(tops.T)] = np.arange(1, len(tops) + 1)
    return segmentation.watershed(-distance, seeds, mask=mask)


def f1(true: np.ndarray, found: np.ndarray) -> float:
    """Share of objects matched at an intersection over union above one half."""
    n, m = int(true.max()), int(found.max())
    joint = np.bincount(true.ravel().astype(np.int64) * (m + 1) + found.ravel(), minlength=(n + 1) * (m + 1))
    joint = joint.reshape(n + 1, m + 1)
    union = np.maximum(joint.sum(1)[:, None] + joint.sum(0) - joint, 1)
    return 2 * ((joint / union)[1:, 1:] > 0.5).sum() / (len(np.unique(true)) - 1 + m)


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """The shortest CPU time of several runs, s."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def main(repeats: int) -> None:
    """Print what was timed, both times and their ratio."""
    cv2.setNumThreads(1)
    image, true = simulated_field()
    ours, theirs = segment(image), plain_scikit_image(image)
    rows = [
        (
            f"segment 2048² (F1 {f1(true, ours):.3f} against {f1(true, theirs):.3f})",
            seconds(lambda: segment(image), repeats),
            seconds(lambda: plain_scikit_image(image), repeats),
        ),
        (
            f"measure {ours.max()} objects",
            seconds(lambda: measure_objects(ours, image), repeats),
            seconds(lambda: measure.regionprops_table(ours, image, properties=PROPERTIES), repeats),
        ),
    ]
    part = image[:512, :512]
    rows.append(
        (
            "rolling ball, radius 50, 2048² (scikit-image: a sixteenth of it, times 16)",
            seconds(lambda: rolling_ball(image, 50), repeats),
            16 * seconds(lambda: restoration.rolling_ball(part, radius=50), 1),
        )
    )
    for name, our_time, their_time in rows:
        print(f"{name}: {our_time:.3f} s against {their_time:.3f} s, {their_time / our_time:.1f} ×")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
