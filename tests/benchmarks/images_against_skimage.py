"""Segmentation, measurement and rolling ball beside plain scikit-image: CPU seconds, one thread, ratios.

Run: OMP_NUM_THREADS=1 python tests/benchmarks/images_against_skimage.py [repeats]

The library route is what its gallery shows: Gaussian, Otsu, distance transform, watershed, told the lengths
in pixels. Real fields are compared where they are found (CELLABEL_TEST_DATA); objects that the border cuts
are left out where the masks leave them out.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage import feature, filters, measure, morphology, restoration, segmentation

from cellabel.measurement import measure_objects
from cellabel.preprocessing import rolling_ball
from cellabel.segmentation import clear_border, segment

DATA = Path(os.environ.get("CELLABEL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
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


def real_fields() -> Iterator[tuple[str, float, bool, list[tuple[np.ndarray, np.ndarray]]]]:
    """Data set, pixel size (µm), whether its masks leave out cut objects, images with true labels."""
    import tifffile
    from skimage.io import imread

    folder = DATA / "bbbc039"
    pairs = [
        (tifffile.imread(path), measure.label(imread(folder / "masks" / f"{path.stem}.png")[..., 0]))
        for path in sorted((folder / "images").glob("*.tif"))
    ]
    yield "bbbc039", 0.656, False, pairs
    paths = sorted((DATA / "aisegcell" / "fig10").glob("*_nuc.tif"))
    masks = [path.with_name(path.name.replace("_nuc", "_mask")) for path in paths]
    yield (
        "aisegcell",
        0.65,
        True,
        [
            (tifffile.imread(path), measure.label(tifffile.imread(mask) > 0))
            for path, mask in zip(paths, masks, strict=True)
        ],
    )
    folder = DATA / "nf1"
    yield (
        "nf1",
        0.3225,
        True,
        [
            (
                tifffile.imread(path),
                measure.label(tifffile.imread(folder / "Plate_2_masks" / f"{path.stem}_MaskNuclei.tiff") > 0),
            )
            for path in sorted((folder / "Plate_2_images").glob("*DAPI*.tif"))
        ],
    )


def plain_scikit_image(image: np.ndarray, pixel_size_um: float = 0.65) -> np.ndarray:
    """The usual recipe: Gaussian, Otsu, holes, small objects, opening, distance transform, watershed."""
    from scipy import ndimage

    side = 0.65 / pixel_size_um
    smooth = filters.gaussian(image.astype(float), side, preserve_range=True)
    mask = ndimage.binary_fill_holes(smooth > filters.threshold_otsu(smooth))
    mask = morphology.remove_small_objects(mask, max_size=round(19 * side * side))
    mask = morphology.opening(mask, morphology.disk(1))
    distance = filters.gaussian(ndimage.distance_transform_edt(mask), side)
    tops = feature.peak_local_max(distance, min_distance=round(7 * side), labels=measure.label(mask))
    seeds = np.zeros(mask.shape, int)
    seeds[tuple(tops.T)] = np.arange(1, len(tops) + 1)
    return segmentation.watershed(-distance, seeds, mask=mask)


def matched(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Objects that agree at an intersection over union above one half; found; true."""
    n, m = int(true.max()), int(found.max())
    joint = np.bincount(true.ravel().astype(np.int64) * (m + 1) + found.ravel(), minlength=(n + 1) * (m + 1))
    joint = joint.reshape(n + 1, m + 1)
    union = np.maximum(joint.sum(1)[:, None] + joint.sum(0) - joint, 1)
    return np.array([((joint / union)[1:, 1:] > 0.5).sum(), m, len(np.unique(true)) - 1])


def f1(true: np.ndarray, found: np.ndarray) -> float:
    """Twice the agreeing objects over all found and true ones."""
    agreeing, n, m = matched(true, found)
    return 2 * agreeing / (n + m)


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """The shortest CPU time of several runs, s."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def compare_real(repeats: int) -> None:
    """Print F1, count error and fields a CPU second of both routes, for every data set."""
    for name, pixel, whole_only, pairs in real_fields():
        told = []
        routes: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
            lambda image, size=pixel: segment(image, pixel_size_um=size),
            lambda image, size=pixel: plain_scikit_image(image, size),
        )
        for route in routes:
            total = np.zeros(3)
            for image, true in pairs:
                labels = route(image)
                total += matched(true, clear_border(labels) if whole_only else labels)
            spent = seconds(lambda run=route, some=pairs: [run(image) for image, _ in some], repeats)
            told.append((2 * total[0] / (total[1] + total[2]), total[1] / total[2] - 1, len(pairs) / spent))
        (f, count, speed), (other_f, other_count, other_speed) = told
        print(
            f"{name}, {len(pairs)} fields: F1 {f:.3f} against {other_f:.3f}, count {count:+.1%} against "
            f"{other_count:+.1%}, {speed:.1f} against {other_speed:.1f} fields/s, {speed / other_speed:.1f} ×"
        )


def main(repeats: int) -> None:
    """Print what was timed, both times and their ratio."""
    cv2.setNumThreads(1)
    if DATA.is_dir():
        compare_real(repeats)
    else:
        print(f"No real images at {DATA}: set CELLABEL_TEST_DATA.")
    image, true = simulated_field()
    ours, theirs = segment(image), plain_scikit_image(image)
    rows = [
        (
            f"segment 2048² (F1 {f1(true, ours):.3f} against {f1(true, theirs):.3f})",
            seconds(lambda: segment(image), repeats),
            seconds(lambda: plain_scikit_image(image), repeats),
        ),
        (
            f"measure {len(np.unique(true)) - 1} objects",
            seconds(lambda: measure_objects(true, image), repeats),
            seconds(lambda: measure.regionprops_table(true, image, properties=PROPERTIES), repeats),
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
