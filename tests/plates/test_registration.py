import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from cellabel.plates import import_plate, registered
from cellabel.plates._registration import _edges, channel_offset

Folder = Callable[..., Path]


def pair(seed: int, offset: tuple[float, float], size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Transmitted light and nuclei of the same cells, which differ; the nuclei lie off by `-offset`."""
    rng = np.random.default_rng(seed)
    cells = np.zeros((size, size))
    y, x = np.mgrid[:size, :size]
    for cy, cx in rng.uniform(10, size - 10, (40, 2)):
        cells = np.maximum(cells, np.hypot(y - cy, x - cx) < rng.uniform(6, 10))
    light = 1000 - 400 * ndimage.gaussian_laplace(cells, 1.5) + rng.normal(0, 20, cells.shape)
    nuclei = ndimage.shift(ndimage.gaussian_filter(cells, 1.5), (-offset[0], -offset[1]), order=1)
    return light, 100 + 3000 * nuclei + rng.normal(0, 30, cells.shape)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (-5.0, 2.0), (3.5, -8.25)])
def test_the_offset_of_a_stain_is_found_to_half_a_pixel(offset: tuple[float, float]) -> None:
    found = channel_offset(*pair(0, offset))
    assert found is not None and np.abs(np.subtract(found, offset)).max() < 0.5


def test_images_that_have_nothing_in_common_have_no_offset() -> None:
    rng = np.random.default_rng(0)
    assert channel_offset(rng.normal(100, 5, (256, 256)), rng.normal(100, 5, (256, 256))) is None


@pytest.fixture
def shifted(tmp_path: Path) -> Callable[[list[tuple[float, float]]], Path]:
    def write(offsets: list[tuple[float, float]]) -> Path:
        folder = tmp_path / "P1"
        folder.mkdir()
        for k, offset in enumerate(offsets, start=1):
            for channel, image in enumerate(pair(k, offset), start=1):
                pixels = image.clip(0, 65535).astype(np.uint16)
                tifffile.imwrite(folder / f"P1_A01_s{k}_w{channel}.tif", pixels)
        (folder / "acquisition.json").write_text(
            json.dumps({"channels": {"1": "transmitted", "2": "nuclei"}})
        )
        return folder

    return write


def test_a_plate_reports_its_offsets_and_corrects_by_those_on_which_fields_agree(
    shifted: Callable[[list[tuple[float, float]]], Path], tmp_path: Path
) -> None:
    plate = import_plate(shifted([(-5.0, 2.0)] * 4), tmp_path / "store")
    (row,) = plate.registration.reset_index().to_dict("records")
    assert row["channel"] == "nuclei" and row["reliable"] and row["n"] == row["of"] == 4
    assert abs(row["dy"] + 5) < 0.5 and abs(row["dx"] - 2) < 0.5
    field = plate.wells["A01"].fields[1]
    moved = registered(plate, field.image("nuclei"), "nuclei")
    assert moved.dtype == np.uint16
    after = channel_offset(field.image("transmitted"), moved)
    assert after is not None and max(map(abs, after)) < 0.6
    assert np.array_equal(
        registered(plate, field.image("transmitted"), "transmitted"), field.image("transmitted")
    )


def test_offsets_on_which_fields_disagree_are_reported_and_not_used(
    shifted: Callable[[list[tuple[float, float]]], Path], tmp_path: Path
) -> None:
    plate = import_plate(shifted([(-5.0, 2.0), (6.0, 0.0), (0.0, -7.0), (9.0, 9.0)]), tmp_path / "store")
    (row,) = plate.registration.reset_index().to_dict("records")
    assert not row["reliable"] and row["spread"] > 1
    image = plate.wells["A01"].fields[1].image("nuclei")
    assert np.array_equal(registered(plate, image, "nuclei"), image)


def test_edges_are_the_gradient_magnitude_of_scipy() -> None:
    light, _ = pair(0, (0, 0))
    gradient = ndimage.gaussian_gradient_magnitude(light.astype(np.float32), 2.0)
    expected = np.log1p(gradient / np.median(gradient))
    window = np.outer(np.hanning(len(light)), np.hanning(len(light)))
    assert np.abs(_edges(light) - (expected - expected.mean()) * window).max() < 1e-4
