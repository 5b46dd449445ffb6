from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cellabel import InputError
from cellabel.plates import PlateWriter, read_plate

FIELDS = [("B02", 2), ("A01", 1), ("AF48", 3)]


def stain(seed: int, shape: tuple[int, int] = (70, 90)) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 50, shape).astype(np.float32)


def test_predicted_stains_and_labels_are_written_and_read_as_they_were(tmp_path: Path) -> None:
    labels = {"nuclei": np.arange(70 * 90).reshape(70, 90) // 700}
    with PlateWriter(tmp_path / "p.zarr", "P1", fields=FIELDS, channels=["nuclei", "er"]) as writer:
        for k, key in enumerate(FIELDS):
            writer.write_field(*key, {"nuclei": stain(k), "er": stain(k + 9)}, labels if k else None)
    plate = read_plate(tmp_path / "p.zarr")
    assert [field.key for field in plate.fields()] == [("P1", "A01", 1), ("P1", "B02", 2), ("P1", "AF48", 3)]
    field = plate.wells["A01"].fields[1]
    image = field.image("er")
    assert image.dtype == np.float32 and np.array_equal(image, stain(10))
    assert field.label_names == ("nuclei",)
    assert field.labels("nuclei").dtype == np.int32 and np.array_equal(
        field.labels("nuclei"), labels["nuclei"]
    )
    with pytest.raises(InputError, match="no labels 'er'"):
        field.labels("er")
    assert plate.wells["B02"].fields[2].label_names == ()


def test_labels_are_valid_ome_zarr_and_their_coarser_levels_hold_no_new_labels(tmp_path: Path) -> None:
    import zarr
    from ome_zarr_models.v05.hcs import HCS
    from ome_zarr_models.v05.image_label import ImageLabel

    label = np.random.default_rng(0).choice([0, 7, 300], (70, 91)).astype(np.int32)
    with PlateWriter(
        tmp_path / "p.zarr", "P1", fields=FIELDS[:1], channels=["er"], pixel_size_um=0.5
    ) as writer:
        writer.write_field("B02", 2, {"er": stain(0, (70, 91))}, {"er": label})
    group = zarr.open_group(str(tmp_path / "p.zarr"), mode="r")
    HCS.from_zarr(group)
    checked = ImageLabel.from_zarr(group["B/02/2/labels/er"])
    assert len(checked.ome_attributes.multiscales[0].datasets) >= 2
    coarse = np.asarray(group["B/02/2/labels/er/1"])
    assert np.array_equal(coarse, label[:70:2, :90:2])
    assert group["B/02/2/labels"].attrs["ome"]["labels"] == ["er"]


def test_coarser_levels_are_means_of_two_by_two_pixels(tmp_path: Path) -> None:
    import zarr

    image = np.random.default_rng(0).integers(0, 65536, (1401, 1303)).astype(np.uint16)
    with PlateWriter(tmp_path / "p.zarr", "P1", fields=FIELDS[:1], channels=["dic"]) as writer:
        writer.write_field("B02", 2, {"dic": image})
    group = zarr.open_group(str(tmp_path / "p.zarr"), mode="r")["B/02/2"]
    levels = [np.asarray(group[str(k)])[0] for k in range(3)]
    assert [level.shape for level in levels] == [(1401, 1303), (700, 651), (350, 325)]
    expected = image[:1400, :1302].astype(np.float64).reshape(700, 2, 651, 2).mean((1, 3))
    assert np.abs(levels[1] - expected).max() <= 0.5
    # Equal chunks, so that nothing is compressed that sticks out of the image; one file a level.
    assert group["0"].chunks == (1, 701, 652) and group["0"].shards == (1, 1402, 1304)
    assert len([p for p in (tmp_path / "p.zarr/B/02/2/0/c").rglob("*") if p.is_file()]) == 1


def test_fields_can_be_written_by_several_threads_and_give_the_same_bytes(tmp_path: Path) -> None:
    fields = [("A01", site) for site in range(1, 9)]

    def write(name: str, n_threads: int) -> dict[str, bytes]:
        with PlateWriter(tmp_path / name, "P1", fields=fields, channels=["er"]) as writer:

            def one(key: tuple[str, int]) -> None:
                writer.write_field(*key, {"er": stain(key[1], (256, 256))})

            with ThreadPoolExecutor(n_threads) as threads:
                list(threads.map(one, fields))
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in files}

    assert write("one", 1) == write("many", 6)


def test_a_missing_channel_is_zeros_on_disk_and_refused_on_reading(tmp_path: Path) -> None:
    import zarr

    missing = {("A01", 1): {"er": "the file is empty"}}
    fields = [("A01", 1), ("A01", 2)]
    with PlateWriter(tmp_path / "p", "P1", fields=fields, channels=["dic", "er"], missing=missing) as writer:
        writer.write_field("A01", 1, {"dic": stain(0)})
        writer.write_field("A01", 2, {"dic": stain(0), "er": stain(1)})
    assert not np.asarray(zarr.open_array(str(tmp_path / "p/A/01/1/0"), mode="r"))[1].any()
    one, two = read_plate(tmp_path / "p").fields()
    assert one.roles == ("dic",) and two.roles == ("dic", "er")
    with pytest.raises(InputError, match="the file is empty"):
        one.image("er")


def test_what_was_not_announced_is_not_written(tmp_path: Path) -> None:
    writer = PlateWriter(tmp_path / "p", "P1", fields=[("A01", 1)], channels=["er"])
    with pytest.raises(ValueError, match="was not announced"):
        writer.write_field("A01", 2, {"er": stain(0)})
    with pytest.raises(ValueError, match="needs the channels"):
        writer.write_field("A01", 1, {"golgi": stain(0)})
    with pytest.raises(ValueError, match="does not fit"):
        writer.write_field("A01", 1, {"er": stain(0)}, {"er": np.zeros((3, 3), int)})
    with pytest.raises(ValueError, match="announced but not written"), writer:
        pass
    with pytest.raises(InputError, match="cannot be used"):
        PlateWriter(tmp_path / "q", "a/b", fields=[], channels=["er"])


def test_a_changed_byte_anywhere_in_a_stored_image_is_told(tmp_path: Path) -> None:
    with PlateWriter(tmp_path / "p", "P1", fields=[("A01", 1)], channels=["er"]) as writer:
        writer.write_field("A01", 1, {"er": stain(0)})
    chunk = tmp_path / "p/A/01/1/0/c/0/0/0"
    field, data = read_plate(tmp_path / "p").wells["A01"].fields[1], chunk.read_bytes()
    chance = np.random.default_rng(0)
    for at in [*chance.integers(0, len(data), 60), len(data) - 1]:
        chunk.write_bytes(data[:at] + bytes([data[at] ^ 1 << int(chance.integers(8))]) + data[at + 1 :])
        with pytest.raises(InputError, match="site 1 cannot be read"):
            field.image("er")
    chunk.write_bytes(data)
    assert np.array_equal(field.image("er"), stain(0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "float32"])
def test_coarser_levels_of_every_type_are_rounded_half_up(tmp_path: Path, dtype: str) -> None:
    import zarr

    low, high = (-100, 100) if dtype == "int16" else (0, 251)
    image = np.random.default_rng(0).integers(low, high, (71, 90)).astype(dtype)
    with PlateWriter(tmp_path / "p.zarr", "P1", fields=FIELDS[:1], channels=["dic"]) as writer:
        writer.write_field("B02", 2, {"dic": image})
    coarse = np.asarray(zarr.open_array(str(tmp_path / "p.zarr/B/02/2/1"), mode="r"))[0]
    mean = image[:70].astype(np.float64).reshape(35, 2, 45, 2).mean((1, 3))
    assert np.array_equal(coarse, mean if dtype == "float32" else np.floor(mean + 0.5))


def test_damage_in_a_stored_plate_is_told_in_one_sentence(tmp_path: Path) -> None:
    with PlateWriter(tmp_path / "p", "P1", fields=[("A01", 1)], channels=["er"]) as writer:
        writer.write_field("A01", 1, {"er": stain(0)})
    chunk = tmp_path / "p/A/01/1/0/c/0/0/0"
    field = read_plate(tmp_path / "p").wells["A01"].fields[1]
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(InputError, match="site 1 cannot be read"):
        field.image("er")
    (tmp_path / "p/zarr.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        read_plate(tmp_path / "p")
    with pytest.raises(InputError, match="holds no plate"):
        read_plate(tmp_path / "nowhere")
