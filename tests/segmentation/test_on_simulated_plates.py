import numpy as np
import pytest

from cellabel.measurement import measure_field
from cellabel.preprocessing import prepare_target
from cellabel.segmentation import segment
from cellabel.simulation import simulate_plate


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Stained nuclei and their true labels, at 10× and 0.65 µm a pixel."""
    import tifffile

    folder = tmp_path_factory.mktemp("plate") / "P1"
    simulate_plate(
        folder, plate_id="P1", wells=3, sites=1, size=320, seed=5, stains=("nuclei",), preset="10x", workers=1
    )
    return [
        (tifffile.imread(path), tifffile.imread(folder / "truth" / path.name.replace("_w2", "_nuclei")))
        for path in sorted(folder.glob("*_w2.tif"))
    ]


def test_counts_on_simulated_stains_are_near_the_truth(fields):
    counts = np.array([(np.unique(true).size - 1, segment(image).max()) for image, true in fields])
    assert counts[:, 0].min() > 20
    assert abs(counts[:, 1].sum() / counts[:, 0].sum() - 1) <= 0.04


def test_targets_are_measured_as_their_raw_stains_are_counted(fields):
    for image, true in fields:
        target = prepare_target(image, "nuclei")
        row = measure_field(segment(target), target).iloc[0]
        assert row["Nuclei_Count"] == pytest.approx(segment(image).max(), rel=0.05, abs=1)
        assert row["Nuclei_TotalIntensity"] == pytest.approx(target[true > 0].sum(dtype=float), rel=0.15)


def test_gfp_is_learnt_as_the_mask_that_is_measured(tmp_path):
    import tifffile

    simulate_plate(
        tmp_path / "P1", plate_id="P1", wells=2, sites=1, size=320, seed=5, stains=("gfp",), preset="10x"
    )
    for path in sorted((tmp_path / "P1").glob("*_w2.tif")):
        image = tifffile.imread(path)
        learnt, measured = prepare_target(image, "gfp") > 0, segment(image, "gfp") > 0
        true = tifffile.imread(tmp_path / "P1" / "truth" / path.name.replace("_w2", "_gfp")) > 0
        assert learnt.sum() == pytest.approx(measured.sum(), rel=0.05)
        assert (learnt & measured).sum() / (learnt | measured).sum() > 0.9
        assert measured.sum() == pytest.approx(true.sum(), rel=0.3)
