"""Real nuclei against masks that people drew: the one recipe, told the pixel size and nothing else.

Pixel sizes. BBBC039: ImageXpress Micro at 20x, 6.45 µm camera binned 2 x 2, 0.656 µm as its makers state for
these plates. NF1: 1224 x 904 at 20x, which on its Cytation reader is 0.3225 µm. aiSEGcell's files carry none:
nuclei of blood cells, about 8 µm wide, fit 0.65 µm.
"""

import os
from pathlib import Path

import numpy as np
import pytest

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
    union = np.maximum(joint.sum(1)[:, None] + joint.sum(0) - joint, 1)
    return int(((joint / union)[1:, 1:] > 0.5).sum()), m, n


def test_on_bbbc039_objects_and_counts_agree_with_the_annotators():
    from skimage.io import imread

    results = []
    for path in sorted((DATA / "bbbc039" / "images").glob("*.tif")):
        true = regions(imread(DATA / "bbbc039" / "masks" / f"{path.stem}.png")[..., 0])
        results.append(agreement(true, segment(read(path), pixel_size_um=0.656)))
    matched, found, true = np.sum(results, axis=0)
    assert 2 * matched / (found + true) >= 0.93
    assert abs(found / true - 1) <= 0.03


def test_on_aisegcell_whole_objects_agree_with_the_masks():
    # The masks leave out what the border cuts.
    results = []
    for path in sorted((DATA / "aisegcell" / "fig10").glob("*_nuc.tif")):
        true = regions(read(path.with_name(path.name.replace("_nuc", "_mask"))) > 0)
        results.append(agreement(true, clear_border(segment(read(path), pixel_size_um=0.65))))
    matched, found, true = np.sum(results, axis=0)
    assert 2 * matched / (found + true) >= 0.85


def test_on_nf1_counts_of_whole_nuclei_agree_with_cellprofiler():
    # CellProfiler was told to leave out what the border cuts.
    found = expected = 0
    for path in sorted((DATA / "nf1" / "Plate_2_images").glob("*DAPI*.tif")):
        mask = read(DATA / "nf1" / "Plate_2_masks" / f"{path.stem}_MaskNuclei.tiff") > 0
        found += clear_border(segment(read(path), pixel_size_um=0.3225)).max()
        expected += regions(mask).max()
    assert abs(found / expected - 1) <= 0.05
