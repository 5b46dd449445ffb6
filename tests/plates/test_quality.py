import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cellabel import InputError
from cellabel.plates import Plate, PlateWriter, read_plate
from cellabel.plates._features import content
from cellabel.plates.quality import (
    CHECKS,
    FEATURES,
    QualityThresholds,
    acquisition_features,
    plate_heatmap,
    plate_quality,
)


def scene(
    seed: int, size: int = 256, *, blur: float = 0.0, noise: float = 20.0, cells: float = 1.0
) -> np.ndarray:
    """Cells as a microscope of transmitted light shows them: detail of all sizes on an even ground, float."""
    rng = np.random.default_rng(seed)
    detail = sum(
        ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), s) * s * w for s, w in ((1, 100), (3, 200))
    )
    where = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), 15) > 0
    image = 8000 + cells * detail * where
    image = ndimage.gaussian_filter(image, blur) if blur else image
    return image + rng.normal(0, noise, (size, size))


def counts(image: np.ndarray) -> np.ndarray:
    return image.clip(0, 65535).round().astype(np.uint16)


def stored(tmp_path: Path, images: list[np.ndarray]) -> Plate:
    fields = [(f"A{k + 1:02d}", 1) for k in range(len(images))]
    with PlateWriter(tmp_path / "p", "P1", fields=fields, channels=["transmitted"]) as writer:
        for key, image in zip(fields, images, strict=True):
            writer.write_field(*key, {"transmitted": image})
    return read_plate(tmp_path / "p")


def test_the_features_are_numbers_in_a_known_order() -> None:
    features = acquisition_features(counts(scene(0)))
    assert tuple(features) == FEATURES
    assert all(isinstance(value, float) and np.isfinite(value) for value in features.values())


@pytest.mark.parametrize("true", [5.0, 50.0, 500.0])
def test_the_noise_is_estimated_on_top_of_cells_and_uneven_light(true: float) -> None:
    light = 1 + 0.2 * np.linspace(-1, 1, 256) ** 2
    clean = ndimage.gaussian_filter(scene(1, noise=0), 2) * light
    image = clean + np.random.default_rng(0).normal(0, true, clean.shape)
    assert acquisition_features(counts(image))["noise"] == pytest.approx(true, rel=0.1)


def test_blur_lowers_sharpness_step_by_step_at_every_scale() -> None:
    features = [acquisition_features(counts(scene(2, blur=b))) for b in (0, 1, 2, 4)]
    fine = [f["sharpness_1"] + f["sharpness_2"] for f in features]
    assert all(a > b for a, b in pairwise(fine)) and fine[0] > 4 * fine[-1]


@pytest.mark.parametrize("gain", [0.3, 0.7, 1.5])
def test_a_fading_lamp_moves_the_level_and_not_the_sharpness(gain: float) -> None:
    image = scene(3)
    before, after = acquisition_features(counts(image)), acquisition_features(counts(image * gain))
    assert after["level"] == pytest.approx(gain * before["level"], rel=1e-3)
    assert after["spread"] == pytest.approx(gain * before["spread"], rel=0.02)
    for name in ("contrast", "sharpness_1", "sharpness_2", "unevenness", "skewness", "anisotropy"):
        assert after[name] == pytest.approx(before[name], rel=0.03, abs=0.01), name


def test_uneven_light_is_measured_under_the_cells() -> None:
    v, u = np.mgrid[-1:1:256j, -1:1:256j]
    even = acquisition_features(counts(scene(4)))
    tilted = acquisition_features(counts(scene(4) * (1 + 0.1 * u)))
    bowl = acquisition_features(counts(scene(4) * (1 - 0.15 * (u**2 + v**2))))
    assert even["unevenness"] < 0.03 and even["tilt"] < 0.03
    assert tilted["tilt"] == pytest.approx(0.2, abs=0.03) and tilted["unevenness"] == pytest.approx(
        0.2, abs=0.04
    )
    assert bowl["unevenness"] == pytest.approx(0.3 / 0.9, abs=0.05) and bowl["tilt"] < 0.03


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 4095), (np.uint16, 65535)])
def test_saturated_and_black_pixels_are_counted(dtype: type, top: int) -> None:
    image = np.random.default_rng(0).integers(1, 200, (64, 64)).astype(dtype)
    assert acquisition_features(image)["saturated_share"] == 0 == acquisition_features(image)["black_share"]
    image[:8] = top
    image[8:10] = 0
    features = acquisition_features(image)
    assert features["saturated_share"] == 8 / 64 and features["black_share"] == 2 / 64


def test_the_preferred_diagonal_changes_sign_when_the_camera_is_turned() -> None:
    rng = np.random.default_rng(0)
    image = counts(
        8000 + 500 * sum(np.roll(rng.normal(0, 1, (1, 256)), k) for k in range(1)) + np.zeros((256, 256))
    )
    sheared = np.stack([np.roll(row, k) for k, row in enumerate(image)])
    value = acquisition_features(sheared)["anisotropy"]
    assert abs(value) > 1
    assert acquisition_features(np.ascontiguousarray(np.rot90(sheared)))["anisotropy"] == pytest.approx(
        -value, rel=0.05
    )


def test_features_of_constant_tiny_float_and_boolean_like_images_are_finite() -> None:
    for image in (
        np.zeros((16, 16), np.uint16),
        np.full((17, 40), 255, np.uint8),
        np.eye(32, dtype=np.float64),
        -np.ones((20, 20), np.float32),
    ):
        assert all(np.isfinite(value) for value in acquisition_features(image).values())


@pytest.mark.parametrize("image", [np.zeros((8, 64)), np.zeros((3, 64, 64)), np.full((32, 32), np.nan)])
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError):
        acquisition_features(image)


def test_features_take_milliseconds() -> None:
    image = counts(scene(0, 512))
    acquisition_features(image)
    best = min(_seconds(image) for _ in range(15))
    assert best < 0.02  # 4 to 6 ms on an idle core


def _seconds(image: np.ndarray) -> float:
    start = time.thread_time()
    acquisition_features(image)
    return time.thread_time() - start


def test_each_fault_fails_its_own_check_and_the_reason_says_so(tmp_path: Path) -> None:
    v, _ = np.mgrid[-1:1:256j, -1:1:256j]
    bright = scene(20)
    bright[:20] = 1e6
    images = [scene(k) for k in range(8)] + [
        scene(10, blur=4),
        bright,
        scene(12) * (1 + 0.9 * v),
        np.random.default_rng(0).normal(8000, 30, (256, 256)),
    ]
    table = plate_quality(stored(tmp_path, [counts(image) for image in images])).set_index("Metadata_Well")
    assert table["passed"].tolist() == [True] * 8 + [False] * 4
    assert not table.loc["A09", "in_focus"] and "out of focus" in table.loc["A09", "reason"]
    assert not table.loc["A10", "not_saturated"] and "saturated" in table.loc["A10", "reason"]
    assert not table.loc["A11", "evenly_lit"] and "light differs" in table.loc["A11", "reason"]
    assert not table.loc["A12", "not_empty"] and "nothing but noise" in table.loc["A12", "reason"]
    assert (table["reason"] == "").tolist() == table["passed"].tolist()
    assert {"Metadata_Plate", "Metadata_Site", *FEATURES, *CHECKS} <= set(table.columns)


def test_a_sparse_field_is_neither_empty_nor_out_of_focus(tmp_path: Path) -> None:
    images = [scene(k) for k in range(6)]
    sparse = np.random.default_rng(9).normal(8000, 20, (256, 256))
    sparse[100:130, 100:130] += scene(8, noise=0)[100:130, 100:130] - 8000
    table = plate_quality(stored(tmp_path, [counts(image) for image in [*images, sparse]]))
    assert table["not_empty"].all()


@pytest.mark.parametrize("noise", [5.0, 30.0, 300.0])
@pytest.mark.parametrize("size", [128, 512])
def test_noise_alone_on_uneven_light_is_empty(noise: float, size: int) -> None:
    v, u = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    light = 8000 * (1 + 0.1 * u - 0.15 * (u**2 + v**2))
    image = light + np.random.default_rng(size).normal(0, noise, (size, size))
    image[np.random.default_rng(0).random(image.shape) < 1e-4] = 60_000  # hot pixels are no cells
    found = content(counts(image), acquisition_features(counts(image))["noise"])
    assert found < QualityThresholds().min_content


def test_focus_is_not_judged_on_too_few_fields_and_limits_can_be_set(tmp_path: Path) -> None:
    plate = stored(tmp_path, [counts(scene(0)), counts(scene(1, blur=4))])
    assert plate_quality(plate)["passed"].all()
    limits = QualityThresholds(max_unevenness=0.0)
    assert not plate_quality(plate, limits)["evenly_lit"].any()


def test_a_heatmap_has_the_layout_of_the_plate(tmp_path: Path) -> None:
    import pandas as pd

    table = pd.DataFrame(
        {"Metadata_Well": ["A01", "A01", "H12"], "focus": [1.0, 3.0, 5.0], "passed": [True, False, True]}
    )
    figure = plate_heatmap(table, "focus")
    grid = np.asarray(figure.axes[0].images[0].get_array())
    assert grid.shape == (8, 12) and grid[0, 0] == 2.0 and grid[7, 11] == 5.0
    figure.savefig(tmp_path / "map.png")
    larger = plate_heatmap(table.replace("H12", "P24").set_index("Metadata_Well"), "passed")
    assert np.asarray(larger.axes[0].images[0].get_array()).shape == (16, 24)
    with pytest.raises(InputError, match="'sharpness'"):
        plate_heatmap(table, "sharpness")
    with pytest.raises(InputError, match="'Z99' is no well"):
        plate_heatmap(table.replace("H12", "Z99"), "focus")


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = (
        "import sys, cellabel.plates, cellabel.plates.quality;"
        "heavy = {'torch', 'mlflow', 'skimage', 'zarr', 'tifffile', 'pandas', 'cv2', 'matplotlib'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_debris_is_found_where_it_lies_and_crowded_plates_are_not_taken_for_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dirty = scene(2)
    for y, x in rng.integers(20, 236, (12, 2)):
        dirty[y - 12 : y + 12, x - 12 : x + 12] -= 4000
    images = [counts(scene(seed)) for seed in (0, 1, 3, 4)]
    table = plate_quality(stored(tmp_path, [*images, counts(dirty)]))
    assert table["free_of_debris"].tolist() == [True, True, True, True, False]
    assert "debris covers" in table["reason"].iloc[4]
    all_dirty = plate_quality(stored(tmp_path / "all", [counts(np.roll(dirty, k, 0)) for k in range(5)]))
    assert all_dirty["free_of_debris"].all()


def test_the_second_of_two_equal_fields_fails_and_names_the_first(tmp_path: Path) -> None:
    table = plate_quality(stored(tmp_path, [counts(scene(seed)) for seed in (0, 1, 0, 2)]))
    assert table["not_duplicate"].tolist() == [True, True, False, True]
    assert table["reason"].iloc[2] == "the same image as well A01 site 1"


def test_thresholds_are_those_of_the_instrument() -> None:
    changes = {"all": {"max_unevenness": 0.7}, "scope-2": {"max_unevenness": 0.9, "min_fields_for_focus": 6}}
    assert QualityThresholds.of_instrument({}, "scope-2") == QualityThresholds()
    assert QualityThresholds.of_instrument(changes, "scope-1").max_unevenness == 0.7
    found = QualityThresholds.of_instrument(changes, "scope-2")
    assert (found.max_unevenness, found.min_fields_for_focus) == (0.9, 6)
    with pytest.raises(InputError, match=r"threshold max_uneven = 1 cannot be used: thresholds are"):
        QualityThresholds.of_instrument({"all": {"max_uneven": 1}}, "")


def test_the_map_of_a_plate_shows_every_kind_of_fault(tmp_path: Path) -> None:
    table = plate_quality(stored(tmp_path, [counts(scene(seed, 96)) for seed in range(4)]))
    figure = plate_heatmap(table)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [
        "relative focus",
        "saturated share",
        "unevenness",
        "content",
        "debris share",
        "passed",
    ]
