"""Real nuclei against masks that people drew.

Pixel sizes: BBBC039 was taken at 20× with 2 × 2 binning (0.65 µm); aiSEGcell's nuclei, about 10 px wide,
fit 0.65 µm; NF1's, about 40 px, fit 0.32 µm.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from cellabel.organelles import ORGANELLES, Step
from cellabel.segmentation import clear_border, segment

DATA = Path(os.environ.get("CELLABEL_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images at {DATA}: set CELLABEL_TEST_DATA"),
]


def read(path):
    import tifffile

    return tifffile.imread(path)


def regions(mask):
    from skimage.measure import label

    return label(mask)


def agreement(true, found):
    """Objects matched at an intersection over union above one half; found; true."""
    n, m = int(true.max()), int(found.max())
    joint = np.bincount(true.ravel().astype(np.int64) * (m + 1) + found.ravel(), minlength=(n + 1) * (m + 1))
    joint = joint.reshape(n + 1, m + 1)
    union = joint.sum(1)[:, None] + joint.sum(0) - joint
    return int(((joint / union)[1:, 1:] > 0.5).sum()), m, n


def changed(**parameters):
    """The nuclei's recipe with some parameters changed: {step: {name: value}}."""
    steps = [
        Step(step.function, {**step.parameters, **parameters.get(step.function, {})})
        for step in ORGANELLES["nuclei"].segmentation
    ]
    return dataclasses.replace(ORGANELLES["nuclei"], segmentation=tuple(steps))


def test_on_bbbc039_objects_and_counts_agree_with_the_annotators():
    from skimage.io import imread

    results = []
    for path in sorted((DATA / "bbbc039" / "images").glob("*.tif")):
        true = regions(imread(DATA / "bbbc039" / "masks" / f"{path.stem}.png")[..., 0])
        results.append(agreement(true, segment(read(path), pixel_size_um=0.65)))
    matched, found, true = np.sum(results, axis=0)
    assert 2 * matched / (found + true) >= 0.93
    assert abs(found / true - 1) <= 0.03


def test_on_aisegcell_objects_agree_with_masks_drawn_a_pixel_inside_the_edge():
    # These masks end at three fifths of the nucleus's height, about a pixel inside the steepest place, and
    # leave out what the border cuts, haze and debris: a recipe that is told so.
    tight = changed(
        normalise={"smoothing_um": 1.0},
        split_touching={"depth_um": 0.8},
        trim={"share": 0.7},
        drop_dim={"share": 0.4},
        drop_small={"min_area_um2": 15.0},
    )
    results = []
    for path in sorted((DATA / "aisegcell" / "fig10").glob("*_nuc.tif")):
        true = regions(read(path.with_name(path.name.replace("_nuc", "_mask"))) > 0)
        results.append(agreement(true, clear_border(segment(read(path), tight, pixel_size_um=0.65))))
    matched, found, true = np.sum(results, axis=0)
    assert 2 * matched / (found + true) >= 0.85


def test_on_nf1_counts_agree_with_cellprofiler():
    # CellProfiler's masks leave out nuclei at the border (its outlines are a little wider) and debris.
    found = expected = 0
    for path in sorted((DATA / "nf1" / "Plate_2_images").glob("*DAPI*.tif")):
        mask = read(DATA / "nf1" / "Plate_2_masks" / f"{path.stem}_MaskNuclei.tiff") > 0
        labels = segment(read(path), changed(drop_small={"min_area_um2": 40.0}), pixel_size_um=0.32)
        frame = np.pad(np.ones(tuple(side - 12 for side in mask.shape), bool), 6)
        cut = np.unique(labels[~frame])
        found += labels.max() - np.count_nonzero(cut)
        expected += regions(mask).max()
    assert abs(found / expected - 1) <= 0.05
