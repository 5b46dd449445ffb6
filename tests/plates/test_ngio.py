"""Stored plates as ngio reads them (`pip install --group interop`; skipped where it is not installed)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellabel.plates import PlateWriter, import_plate

ngio = pytest.importorskip("ngio")


def test_an_imported_plate_is_read_by_ngio(metaxpress: Callable[..., Path], tmp_path: Path) -> None:
    plate = import_plate(metaxpress(size=300), tmp_path / "store")
    opened = ngio.open_ome_zarr_plate(str(plate.path))
    assert sorted(opened.wells_paths()) == ["A/01", "B/02"]
    image = opened.get_image("B", "02", "2").get_image(path="0")
    assert image.pixel_size.x == pytest.approx(0.325) and image.shape[-2:] == (300, 300)
    expected = plate.wells["B02"].fields[2]
    assert list(image.channel_labels) == ["transmitted", "nuclei", "gfp"]
    for role in expected.roles:
        pixels = np.squeeze(image.get_as_numpy(channel_selection=role))
        assert np.array_equal(pixels, expected.image(role))


def test_labels_are_read_by_ngio(tmp_path: Path) -> None:
    labels = np.arange(64 * 64, dtype=np.int32).reshape(64, 64) // 500
    with PlateWriter(tmp_path / "p.zarr", "P1", fields=[("A01", 1)], channels=["er"]) as writer:
        writer.write_field("A01", 1, {"er": np.ones((64, 64), np.float32)}, {"nuclei": labels})
    image = ngio.open_ome_zarr_plate(str(tmp_path / "p.zarr")).get_image("A", "01", "1")
    assert image.list_labels() == ["nuclei"]
    assert np.array_equal(np.squeeze(image.get_label("nuclei").get_as_numpy()), labels)


def test_a_focus_series_is_read_by_ngio(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 99, (3, 64, 64)).astype(np.uint16)
    focus = {("A01", 1): {"dic": (3, 1)}}
    with PlateWriter(tmp_path / "p.zarr", "P1", fields=[("A01", 1)], channels=["dic"], focus=focus) as writer:
        writer.write_field("A01", 1, {"dic": stack})
    image = ngio.open_ome_zarr_plate(str(tmp_path / "p.zarr")).get_image("A", "01", "1").get_image(path="0")
    assert np.array_equal(np.squeeze(image.get_as_numpy()), stack)
