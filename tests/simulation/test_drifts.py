"""What each drift changes, and what it leaves as it was."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage

from cellabel.simulation import BIOLOGY_KINDS, DRIFT_KINDS, simulate_plate

ARGUMENTS = {
    "plate_id": "P",
    "wells": ["B02", "B03", "B04", "C05"],
    "sites": 1,
    "size": 96,
    "preset": "20x",
    "seed": 7,
}
ARGUMENTS |= {"stains": ("nuclei",), "parental": 0, "reference": 0}
POSITION = ["x_px", "y_px"]
SIZES = {
    "defocus": 4.0, "lamp": -0.4, "bias": 20.0, "tilt": 8.0, "dust": 10, "medium": 1.345, "vibration": 0.6,
    "condenser": 0.5, "decentre": 0.3, "camera": 90, "mirror": 1, "density": 0.6, "new_clone": 3.0,
    "passage": 20, "mass_death": 0.7, "unfixed": 0.4,
}  # fmt: skip


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    made = {}

    def simulated(drift=None, **more):
        key = repr((drift, sorted(more.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("plates") / "plate"
            made[key] = simulate_plate(folder, **ARGUMENTS, drift=drift, **more)
        return made[key]

    return simulated


def transmitted(plate, well: str) -> np.ndarray:
    return tifffile.imread(Path(plate.path) / f"P_{well}_s1_w1.tif").astype(float)


def labels(plate, well: str) -> np.ndarray:
    return tifffile.imread(Path(plate.path) / "truth" / f"P_{well}_s1_cells.tif")


def sharpness(image: np.ndarray) -> float:
    image = image / ndimage.gaussian_filter(image, 12)
    return float((ndimage.gaussian_filter(image, 1.5) - ndimage.gaussian_filter(image, 3.0)).std())


def test_every_kind_has_a_size_in_these_tests():
    assert set(SIZES) == set(DRIFT_KINDS)


@pytest.mark.parametrize("kind", sorted(set(DRIFT_KINDS) - BIOLOGY_KINDS))
def test_a_fault_of_the_microscope_changes_the_image_and_not_the_cells(make, kind):
    clean, drifted = make(), make((kind, SIZES[kind]))
    turned = kind in ("camera", "mirror")
    drop = [*POSITION, "label", "touches_border"] if turned else []
    pd.testing.assert_frame_equal(clean.cells.drop(columns=drop), drifted.cells.drop(columns=drop))
    pd.testing.assert_frame_equal(clean.wells, drifted.wells)
    pd.testing.assert_frame_equal(clean.plan, drifted.plan)
    difference = np.abs(transmitted(clean, "C05") - transmitted(drifted, "C05")).mean()
    assert difference > 3 * np.sqrt(2 * transmitted(clean, "C05").mean() / 0.46) * 0.05


@pytest.mark.parametrize("kind", sorted(BIOLOGY_KINDS))
def test_a_change_of_the_biology_changes_the_cells(make, kind):
    clean, changed = make(), make((kind, SIZES[kind]))
    shared = ["Metadata_Well", "area_px", "nuclei_total", "log_gfp", "state"]
    assert not clean.cells[shared].equals(changed.cells[shared])


def test_defocus_takes_sharpness(make):
    clean, drifted = make(), make(("defocus", 6.0))
    assert sharpness(transmitted(drifted, "B03")) < 0.7 * sharpness(transmitted(clean, "B03"))


def test_the_two_signs_of_defocus_differ(make):
    above, below = transmitted(make(("defocus", 3.0)), "B03"), transmitted(make(("defocus", -3.0)), "B03")
    assert np.abs(above - below).mean() > 300


def test_the_lamp_scales_the_level(make):
    clean, drifted = transmitted(make(), "B03") - 100, transmitted(make(("lamp", -0.4)), "B03") - 100
    assert drifted.mean() / clean.mean() == pytest.approx(0.6, abs=0.005)


def test_bias_moves_the_level_as_the_sine_says(make):
    clean, drifted = make(), make(("bias", 20.0))
    fields, instrument = clean.fields.set_index("Metadata_Well"), clean.parameters["instrument"]
    gamma = np.radians(instrument["bias_deg"] + fields.loc["B03", "bias_deg"])
    empty = [np.sin(g / 2) ** 2 + instrument["extinction"] for g in (gamma, gamma + np.radians(20))]
    ratio = np.median(transmitted(drifted, "B03") - 100) / np.median(transmitted(clean, "B03") - 100)
    assert ratio == pytest.approx(empty[1] / empty[0], rel=0.03)


def test_a_medium_nearer_to_the_cells_takes_contrast(make):
    contrasts = [np.std(transmitted(make(("medium", n)), "B03")) for n in (1.333, 1.345, 1.36)]
    assert contrasts[0] > contrasts[1] > contrasts[2]


def test_tilt_pulls_the_ends_of_the_plate_apart(make):
    shift = make(("tilt", 8.0)).fields["focus_um"] - make().fields["focus_um"]
    assert np.ptp(shift) > 1.0
    assert shift.is_monotonic_increasing


def test_dust_stays_in_place_from_well_to_well(make):
    clean, dusty = make(), make(("dust", 10))
    passed = [transmitted(dusty, well) / transmitted(clean, well) for well in ("B02", "C05")]
    assert np.corrcoef(passed[0].ravel(), passed[1].ravel())[0, 1] > 0.8
    assert passed[0].min() < 0.9


def test_vibration_blurs_along_x_only(make):
    clean, shaken = transmitted(make(), "B03"), transmitted(make(("vibration", 0.8)), "B03")
    along, across = (np.diff(shaken, 2, axis=a).std() / np.diff(clean, 2, axis=a).std() for a in (1, 0))
    assert along < across


def test_a_turned_or_mirrored_camera_turns_images_and_truth_alike(make):
    clean = labels(make(), "B03")
    np.testing.assert_array_equal(labels(make(("camera", 90)), "B03"), np.rot90(clean))
    np.testing.assert_array_equal(labels(make(("mirror", 1)), "B03"), clean[:, ::-1])
    turned = np.rot90(transmitted(make(("camera", 90)), "B03"), -1)
    assert np.corrcoef(turned.ravel(), transmitted(make(), "B03").ravel())[0, 1] > 0.9


def test_a_step_begins_at_its_well(make):
    clean, drifted = make(), make(("lamp", -0.5), drift_from="B04")
    ratios = [transmitted(drifted, w).mean() / transmitted(clean, w).mean() for w in ARGUMENTS["wells"]]
    np.testing.assert_allclose(ratios, [1, 1, 0.5, 0.5], atol=0.01)


def test_a_ramp_grows_from_its_well_to_the_last(make):
    clean, drifted = make(), make(("lamp", -0.6), drift_from="B03", drift_shape="ramp")
    ratios = [transmitted(drifted, w).mean() / transmitted(clean, w).mean() for w in ARGUMENTS["wells"]]
    np.testing.assert_allclose(ratios, [1, 0.8, 0.6, 0.4], atol=0.01)
    np.testing.assert_allclose(drifted.fields["drift"], [0, 1 / 3, 2 / 3, 1])


def test_drifts_add_up(make):
    both = make((("defocus", 3.0), ("lamp", -0.5))).fields
    clean = make().fields
    np.testing.assert_allclose(both["focus_um"] - clean["focus_um"], 3.0)
    np.testing.assert_allclose(both["lamp"] / clean["lamp"], 0.5)


def test_mass_death_kills_the_share_it_says(make):
    assert make(("mass_death", 0.7)).cells["dead"].mean() == pytest.approx(0.7, abs=0.2)
    assert make().cells["dead"].mean() < 0.2


def test_a_new_clone_takes_the_place_of_the_samples_from_its_well_on(make):
    plan = make(("new_clone", 3.0), drift_from="B04").plan
    assert list(plan["clone"].str.endswith("-NEW")) == [False, False, True, True]
