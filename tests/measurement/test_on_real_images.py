"""Features on NF1's images and CellProfiler's masks, against scikit-image and CellProfiler's definitions."""

import os
from pathlib import Path

import numpy as np
import pytest
from skimage.measure import label, regionprops, regionprops_table

from cellabel.measurement import measure_field, measure_objects

DATA = Path(os.environ.get("CELLABEL_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images at {DATA}: set CELLABEL_TEST_DATA"),
]
EQUAL_BY_NAME = {
    "area": "AreaShape_Area",
    "perimeter": "AreaShape_Perimeter",
    "axis_major_length": "AreaShape_MajorAxisLength",
    "axis_minor_length": "AreaShape_MinorAxisLength",
    "eccentricity": "AreaShape_Eccentricity",
    "solidity": "AreaShape_Solidity",
    "extent": "AreaShape_Extent",
    "equivalent_diameter_area": "AreaShape_EquivalentDiameter",
    "centroid-0": "Location_Center_Y",
    "centroid-1": "Location_Center_X",
    "intensity_mean": "Intensity_MeanIntensity",
    "intensity_std": "Intensity_StdIntensity",
    "intensity_min": "Intensity_MinIntensity",
    "intensity_max": "Intensity_MaxIntensity",
}


def fields():
    """Labels (connected regions of a binary mask), image, and the recipe that goes with them."""
    import tifffile

    recipes = {"MaskNuclei": "nuclei", "MaskCells": "actin"}
    for path in sorted((DATA / "nf1" / "Plate_2_masks").glob("*.tiff")):
        stem, kind = path.stem.rsplit("_", 1)
        image = DATA / "nf1" / "Plate_2_images" / f"{stem}.tif"
        if kind in recipes and image.exists():
            yield path.stem, label(tifffile.imread(path) > 0), tifffile.imread(image), recipes[kind]


def test_there_are_fields_to_test():
    assert len(list(fields())) >= 4


def test_every_feature_of_real_objects_equals_scikit_images_to_a_millionth():
    for name, labels, image, recipe in fields():
        found = measure_objects(labels, image, organelle=recipe)
        prefix = recipe.capitalize()
        properties = [one for one in EQUAL_BY_NAME if not one.endswith("-1")]
        wanted = [one.replace("-0", "") for one in properties]
        expected = regionprops_table(labels, image, properties=["label", *wanted])
        assert found["Metadata_ObjectNumber"].tolist() == expected["label"].tolist()
        for theirs, ours in EQUAL_BY_NAME.items():
            np.testing.assert_allclose(
                found[f"{prefix}_{ours}"], expected[theirs], rtol=1e-6, atol=1e-6, err_msg=f"{name} {ours}"
            )


def test_intensities_and_shapes_are_cellprofilers_on_its_scale():
    """CellProfiler divides 16-bit images by 65,535: its intensities are ours over 65,535, to 1e-6."""
    for name, labels, image, recipe in fields():
        scaled = image / 65535.0
        found = measure_objects(labels, image, organelle=recipe)
        prefix = recipe.capitalize()
        for row, region in zip(found.to_dict("records"), regionprops(labels, scaled), strict=True):
            inside = scaled[labels == region.label]
            cellprofiler = {
                "Intensity_IntegratedIntensity": inside.sum() * 65535,
                "Intensity_MeanIntensity": inside.mean() * 65535,
                "Intensity_StdIntensity": inside.std() * 65535,
                "AreaShape_FormFactor": 4 * np.pi * region.area / region.perimeter**2
                if region.perimeter
                else np.nan,
                "AreaShape_Orientation": np.degrees(region.orientation),
            }
            for feature, expected in cellprofiler.items():
                if feature == "AreaShape_Orientation" and row[f"{prefix}_AreaShape_Eccentricity"] < 0.1:
                    continue
                assert row[f"{prefix}_{feature}"] == pytest.approx(expected, rel=1e-6, nan_ok=True), (
                    name,
                    region.label,
                    feature,
                )


def test_fields_of_real_masks_add_up_to_their_objects():
    for _, labels, image, recipe in fields():
        row = measure_field(labels, image, organelle=recipe).iloc[0]
        prefix = recipe.capitalize()
        assert row[f"{prefix}_Count"] == labels.max()
        assert row[f"{prefix}_TotalArea"] == (labels > 0).sum()
        assert row[f"{prefix}_TotalIntensity"] == pytest.approx(image[labels > 0].sum(dtype=float))
