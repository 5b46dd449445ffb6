from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter
from skimage.measure import label, regionprops_table

from cellabel.errors import InputError
from cellabel.measurement import measure_field, measure_objects

ORACLE = {
    "label": "Metadata_ObjectNumber",
    "area": "Nuclei_AreaShape_Area",
    "perimeter": "Nuclei_AreaShape_Perimeter",
    "axis_major_length": "Nuclei_AreaShape_MajorAxisLength",
    "axis_minor_length": "Nuclei_AreaShape_MinorAxisLength",
    "equivalent_diameter_area": "Nuclei_AreaShape_EquivalentDiameter",
    "eccentricity": "Nuclei_AreaShape_Eccentricity",
    "solidity": "Nuclei_AreaShape_Solidity",
    "extent": "Nuclei_AreaShape_Extent",
    "centroid-0": "Nuclei_Location_Center_Y",
    "centroid-1": "Nuclei_Location_Center_X",
    "intensity_mean": "Nuclei_Intensity_MeanIntensity",
    "intensity_std": "Nuclei_Intensity_StdIntensity",
    "intensity_min": "Nuclei_Intensity_MinIntensity",
    "intensity_max": "Nuclei_Intensity_MaxIntensity",
}


def blobs(shape=(120, 150), seed=0):
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=shape), 3)
    return label(field > np.quantile(field, 0.85)).astype(np.int32), rng.normal(100, 20, shape)


def reference(labels, image):
    names = sorted({name.split("-")[0] for name in ORACLE})
    return regionprops_table(labels, image, properties=[*names, "orientation"])


def assert_equal_to_scikit_image(labels, image):
    expected, found = reference(labels, image), measure_objects(labels, image)
    for name, column in ORACLE.items():
        np.testing.assert_allclose(found[column], expected[name], rtol=1e-6, atol=1e-6, err_msg=column)


@pytest.mark.parametrize("seed", range(3))
def test_every_feature_equals_scikit_images(seed):
    labels, image = blobs(seed=seed)
    assert_equal_to_scikit_image(labels, image)
    angle = np.radians(measure_objects(labels, image)["Nuclei_AreaShape_Orientation"])
    turned = np.abs(np.sin(angle - reference(labels, image)["orientation"]))
    long = measure_objects(labels, image)["Nuclei_AreaShape_Eccentricity"] > 0.1
    assert turned[long].max() < 1e-6


@settings(max_examples=40, deadline=None)
@given(labels=arrays(np.int32, (9, 11), elements=st.integers(0, 4)))
@pytest.mark.filterwarnings("ignore")
def test_torn_tiny_and_straight_objects_equal_scikit_images_too(labels):
    if labels.any():
        expected = regionprops_table(
            labels, properties=["label", "area", "perimeter", "solidity", "eccentricity"]
        )
        found = measure_objects(labels, np.ones(labels.shape))
        np.testing.assert_allclose(found["Nuclei_AreaShape_Perimeter"], expected["perimeter"], atol=1e-6)
        np.testing.assert_allclose(found["Nuclei_AreaShape_Solidity"], expected["solidity"], atol=1e-6)
        np.testing.assert_allclose(
            found["Nuclei_AreaShape_Eccentricity"], expected["eccentricity"], atol=1e-6
        )


def test_labels_beyond_sixteen_bits_and_with_gaps_are_measured():
    labels = np.zeros((40, 40), np.int32)
    labels[2:8, 2:8], labels[20:31, 5:25] = 70_000, 131_072
    assert_equal_to_scikit_image(labels, np.random.default_rng(0).normal(size=labels.shape))


def test_areas_are_in_pixels_and_in_square_micrometres():
    labels, image = blobs()
    table = measure_objects(labels, image, organelle="er", pixel_size_um=0.5)
    np.testing.assert_allclose(table["Er_AreaShape_AreaUm2"], table["Er_AreaShape_Area"] * 0.25)
    default = measure_objects(labels, image)
    np.testing.assert_allclose(
        default["Nuclei_AreaShape_AreaUm2"], default["Nuclei_AreaShape_Area"] * 0.65**2
    )


def test_a_disk_is_round_and_a_pixel_has_no_outline():
    y, x = np.mgrid[:61, :61]
    labels = (np.hypot(y - 30, x - 30) <= 20).astype(np.int32)
    labels[0, 0] = 2
    table = measure_objects(labels, np.ones(labels.shape))
    assert table["Nuclei_AreaShape_FormFactor"][0] == pytest.approx(1, abs=0.12)
    assert np.isnan(table["Nuclei_AreaShape_FormFactor"][1])
    assert table["Metadata_TouchesBorder"].tolist() == [False, True]


def test_neighbours_are_counted_within_their_reach():
    labels = np.zeros((20, 200), np.int32)
    for number, column in enumerate((10, 30, 150), 1):
        labels[8:12, column - 2 : column + 2] = number
    table = measure_objects(labels, np.ones(labels.shape), pixel_size_um=1.0)
    assert table["Nuclei_Neighbors_NumberOfNeighbors_25um"].tolist() == [1, 1, 0]
    assert table["Nuclei_Neighbors_FirstClosestDistance"].tolist() == [20, 20, 120]
    alone = measure_objects((labels == 1).astype(int), np.ones(labels.shape))
    assert np.isnan(alone["Nuclei_Neighbors_FirstClosestDistance"][0])


def test_no_object_gives_no_rows_but_the_same_columns():
    labels, image = blobs()
    empty = measure_objects(np.zeros_like(labels), image)
    assert empty.empty and list(empty.columns) == list(measure_objects(labels, image).columns)


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0.01, 100), offset=st.floats(-1000, 1000))
def test_gain_scales_mean_and_total_and_an_offset_moves_no_area(gain, offset):
    labels, image = blobs((50, 60))
    base, scaled, moved = (measure_objects(labels, i) for i in (image, image * gain, image + offset))
    for name in ("Nuclei_Intensity_MeanIntensity", "Nuclei_Intensity_IntegratedIntensity"):
        np.testing.assert_allclose(scaled[name], base[name] * gain, rtol=1e-9)
    assert moved["Nuclei_AreaShape_Area"].equals(base["Nuclei_AreaShape_Area"])
    np.testing.assert_allclose(
        moved["Nuclei_Intensity_MeanIntensity"], base["Nuclei_Intensity_MeanIntensity"] + offset, atol=1e-6
    )


def test_the_field_adds_up_its_objects():
    labels, image = blobs()
    objects, field = measure_objects(labels, image), measure_field(labels, image)
    assert len(field) == 1
    row = field.iloc[0]
    assert row["Nuclei_Count"] == len(objects)
    assert row["Nuclei_TotalArea"] == objects["Nuclei_AreaShape_Area"].sum()
    assert row["Nuclei_TotalIntensity"] == pytest.approx(
        objects["Nuclei_Intensity_IntegratedIntensity"].sum()
    )
    assert row["Nuclei_MeanIntensity"] == pytest.approx(image[labels > 0].mean())
    assert row["Nuclei_AreaShare"] == pytest.approx((labels > 0).mean())


def test_an_empty_field_counts_zero_and_has_no_mean():
    row = measure_field(np.zeros((9, 9), int), np.ones((9, 9)), organelle="gfp").iloc[0]
    assert row["Gfp_Count"] == row["Gfp_TotalArea"] == row["Gfp_TotalIntensity"] == 0
    assert np.isnan(row["Gfp_MeanIntensity"]) and np.isnan(row["Gfp_MeanAreaUm2"])


def test_the_border_rule_counts_every_object_of_a_mosaic_once():
    rng = np.random.default_rng(1)
    whole = np.zeros((203, 203), np.int32)
    y, x = np.mgrid[:203, :203]
    centres = [(cy, cx) for cy in range(12, 200, 19) for cx in range(12, 200, 19)]
    for number, (cy, cx) in enumerate(centres, 1):
        whole[np.hypot(y - cy - rng.integers(-2, 3), x - cx - rng.integers(-2, 3)) <= 5] = number
    # Fields of a mosaic that overlap by one pixel, so that what touches a border is seen to be cut there.
    edges = [0, 60, 111, 160, 203]
    fields = [
        whole[max(top - 1, 0) : bottom, max(left - 1, 0) : right]
        for top, bottom in pairwise(edges)
        for left, right in pairwise(edges)
    ]
    rows = [measure_field(part, np.ones(part.shape)).iloc[0] for part in fields]
    assert sum(row["Nuclei_Count"] for row in rows) > len(centres)
    assert sum(row["Nuclei_CountBorderCorrected"] for row in rows) == len(centres)


@pytest.mark.parametrize(
    ("labels", "image", "word"),
    [
        (np.ones((3, 3)), np.ones((3, 3)), "whole numbers"),
        (np.ones((3, 3), int), np.ones((3, 4)), "that was segmented"),
        (-np.ones((3, 3), int), np.ones((3, 3)), "-1"),
        (np.ones((3, 3), int), np.full((3, 3), np.nan), "NaN"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels, image, word):
    for measure in (measure_objects, measure_field):
        with pytest.raises(InputError, match=word):
            measure(labels, image)


@pytest.mark.parametrize("size", ["a", "0.65", 0, np.nan, [0.65]])
def test_a_pixel_without_a_size_is_refused(size):
    for measure in (measure_objects, measure_field):
        with pytest.raises(InputError, match="pixel size"):
            measure(np.ones((3, 3), int), np.ones((3, 3)), pixel_size_um=size)
