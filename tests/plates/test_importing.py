import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellabel import InputError
from cellabel.plates import QuarantinedPlate, import_plate, open_acquisition, open_plate
from cellabel.stores import PlateStore

Folder = Callable[..., Path]


def digest(folder: Path) -> str:
    state = hashlib.sha256()
    for path in sorted(p for p in Path(str(folder)).rglob("*") if p.is_file()):
        state.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return state.hexdigest()


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_every_pixel_comes_back_in_the_type_in_which_it_was_taken(metaxpress: Folder, tmp_path: Path) -> None:
    folder = metaxpress(size=45)
    for path in folder.glob("*_w1.tif"):
        tifffile.imwrite(path, (tifffile.imread(path) // 4).astype(np.uint8))
    plate = import_plate(folder, tmp_path / "store")
    found = open_acquisition(folder)
    seen = 0
    for field in plate.fields():
        for role in field.roles:
            image = field.image(role)
            original = found.image(field.well, field.site, role)
            assert image.dtype == original.dtype == (np.uint8 if role == "transmitted" else np.uint16)
            assert np.array_equal(image, original)
            seen += 1
    assert seen == 12
    assert np.array_equal(plate.wells["A01"].fields[1].image("nuclei"), found.image("A01", 1, "nuclei"))


def test_a_plate_knows_where_it_came_from(metaxpress: Folder, tmp_path: Path) -> None:
    folder = metaxpress()
    (folder / "plate_plan.csv").write_text("Metadata_Well,clone,day\nA01,c1,30\nB02,c2,\n")
    plate = import_plate(folder, tmp_path / "store")
    found = open_acquisition(folder)
    assert plate.content_hash == found.content_hash and plate.acquired_at == found.acquired_at
    assert plate.instrument == "scope-1" and plate.pixel_size_um == 0.325
    assert plate.channels == ("transmitted", "nuclei", "gfp")
    assert plate.plan is not None and found.plan is not None
    assert plate.plan.equals(found.plan) and plate.plan.loc["A01", "clone"] == "c1"
    assert plate.quarantined.empty and list(plate.wells) == ["A01", "B02"]
    record = PlateStore(tmp_path / "store").record("P1")
    assert record is not None and record["status"] == "accepted" and record["n_fields"] == 4


def test_the_stored_plate_is_valid_ome_zarr(metaxpress: Folder, tmp_path: Path) -> None:
    import zarr
    from ome_zarr_models.v05.hcs import HCS
    from ome_zarr_models.v05.image import Image

    plate = import_plate(metaxpress(), tmp_path / "store")
    group = zarr.open_group(str(plate.path), mode="r")
    assert group.metadata.zarr_format == 3
    hcs = HCS.from_zarr(group)
    assert [well.path for well in hcs.ome_attributes.plate.wells] == ["A/01", "B/02"]
    wells = list(hcs.well_groups)
    assert len(wells) == 2
    assert [image.path for image in wells[0].ome_attributes.well.images] == ["1", "2"]
    image = Image.from_zarr(group["B/02/2"])
    (multiscale,) = image.ome_attributes.multiscales
    assert [axis.name for axis in multiscale.axes] == ["c", "y", "x"]
    assert len(multiscale.datasets) >= 2
    assert multiscale.datasets[1].coordinateTransformations[0].scale == [1.0, 0.65, 0.65]


def test_the_same_content_gives_the_same_bytes_wherever_it_lies(metaxpress: Folder, tmp_path: Path) -> None:
    folder = metaxpress(size=300)
    first = import_plate(folder, tmp_path / "one")
    other = tmp_path / "renamed"
    shutil.copytree(folder, other)
    second = import_plate(other, tmp_path / "two")
    assert first.path.parent.name == second.path.parent.name
    assert digest(first.path) == digest(second.path)


def test_the_same_content_twice_writes_nothing(metaxpress: Folder, tmp_path: Path) -> None:
    folder = metaxpress()
    import_plate(folder, tmp_path / "store")
    before = times(tmp_path / "store")
    plate = import_plate(folder, PlateStore(tmp_path / "store"))
    assert times(tmp_path / "store") == before and len(list(plate.fields())) == 4


def test_a_changed_export_becomes_a_new_version_and_the_old_one_stays(
    metaxpress: Folder, tmp_path: Path
) -> None:
    folder = metaxpress()
    old = import_plate(folder, tmp_path / "store")
    pixels = tifffile.imread(folder / "P1_A01_s1_w1.tif") + 1
    tifffile.imwrite(folder / "P1_A01_s1_w1.tif", pixels)
    new = import_plate(folder, tmp_path / "store")
    assert new.content_hash != old.content_hash
    assert np.array_equal(
        open_plate(tmp_path / "store", "P1").wells["A01"].fields[1].image("transmitted"), pixels
    )
    assert not np.array_equal(old.wells["A01"].fields[1].image("transmitted"), pixels)


def test_another_plate_id_can_be_given_and_is_checked(metaxpress: Folder, tmp_path: Path) -> None:
    folder = metaxpress()
    assert import_plate(folder, tmp_path / "store", plate_id="Q-7").plate_id == "Q-7"
    assert PlateStore(tmp_path / "store").names() == ["Q-7"]
    for bad in ("a/b", "", "../x", "x" * 101):
        with pytest.raises(InputError, match="cannot be used"):
            import_plate(folder, tmp_path / "store", plate_id=bad)


def test_a_store_may_lie_on_any_file_system(metaxpress: Folder) -> None:
    folder = metaxpress()
    plate = import_plate(folder, "memory://plates-of-this-test")
    again = open_plate("memory://plates-of-this-test", "P1")
    expected = open_acquisition(folder).image("B02", 1, "gfp")
    assert np.array_equal(again.wells["B02"].fields[1].image("gfp"), expected)
    assert again.content_hash == plate.content_hash


def test_bad_fields_are_left_out_and_listed(metaxpress: Folder, tmp_path: Path) -> None:
    folder = metaxpress(sites=3)
    (folder / "P1_A01_s2_w1.tif").write_bytes(b"")
    plate = import_plate(folder, tmp_path / "store")
    assert list(plate.wells["A01"].fields) == [1, 3]
    (row,) = plate.quarantined.to_dict("records")
    assert (row["Metadata_Well"], row["Metadata_Site"]) == ("A01", 2) and "is empty" in row["reason"]


def test_a_missing_stain_is_refused_by_name_and_the_rest_of_the_field_is_there(
    metaxpress: Folder, tmp_path: Path
) -> None:
    folder = metaxpress()
    (folder / "P1_A01_s1_w2.tif").unlink()
    field = import_plate(folder, tmp_path / "store").wells["A01"].fields[1]
    assert field.roles == ("transmitted", "gfp") and field.missing == {"nuclei": "no image"}
    with pytest.raises(InputError, match=r"has no nuclei image \(no image\)"):
        field.image("nuclei")
    expected = tifffile.imread(folder / "P1_A01_s1_w3.tif")
    assert np.array_equal(field.image("gfp"), expected)


def spoil(folder: Path, count: int) -> None:
    for path in sorted(folder.glob("*_w1.tif"))[:count]:
        path.write_bytes(b"")


def test_too_many_bad_fields_quarantine_the_plate_until_a_better_export(
    metaxpress: Folder, tmp_path: Path
) -> None:
    folder, store = metaxpress(), tmp_path / "store"
    spoil(folder, 2)
    with pytest.raises(
        QuarantinedPlate, match="2 of 4 fields have no usable transmitted-light image"
    ) as caught:
        import_plate(folder, store)
    assert isinstance(caught.value, InputError) and "\n" not in str(caught.value)
    record = PlateStore(store).record("P1")
    assert record is not None and record["status"] == "quarantined" and record["reason"] == str(caught.value)
    with pytest.raises(InputError, match="P1 is quarantined"):
        open_plate(store, "P1")
    before = times(store)
    with pytest.raises(QuarantinedPlate):
        import_plate(folder, store)
    assert times(store) == before
    for path in folder.glob("*_w1.tif"):
        tifffile.imwrite(path, np.ones((48, 48), np.uint16))
    assert len(list(import_plate(folder, store).fields())) == 4


def test_a_released_plate_stays_released_and_one_that_a_person_quarantined_stays_quarantined(
    metaxpress: Folder, tmp_path: Path
) -> None:
    folder, store = metaxpress(), PlateStore(tmp_path / "store")
    spoil(folder, 2)
    with pytest.raises(QuarantinedPlate):
        import_plate(folder, store)
    store.update_record("P1", status="accepted", reason="", quarantined_by="")
    assert len(list(import_plate(folder, store).fields())) == 2
    store.update_record("P1", status="quarantined", reason="out of focus", quarantined_by="ada")
    with pytest.raises(QuarantinedPlate, match="out of focus"):
        import_plate(folder, store, max_bad_share=1.0)


def test_a_larger_share_of_bad_fields_can_be_allowed(metaxpress: Folder, tmp_path: Path) -> None:
    folder = metaxpress()
    spoil(folder, 2)
    with pytest.raises(QuarantinedPlate):
        import_plate(folder, tmp_path / "store")
    assert len(list(import_plate(folder, tmp_path / "store", max_bad_share=0.5).fields())) == 2
    with pytest.raises(InputError, match="max_bad_share"):
        import_plate(folder, tmp_path / "store", max_bad_share=1.5)


def test_a_plate_without_any_usable_field_is_quarantined_whatever_share_is_allowed(
    metaxpress: Folder, tmp_path: Path
) -> None:
    folder = metaxpress()
    spoil(folder, 4)
    with pytest.raises(QuarantinedPlate, match="4 of 4"):
        import_plate(folder, tmp_path / "store", max_bad_share=1.0)


def test_a_plate_without_transmitted_light_is_told_how_to_name_it(metaxpress: Folder, tmp_path: Path) -> None:
    folder = metaxpress()
    record = json.loads((folder / "acquisition.json").read_text())
    record["channels"]["1"] = "w1"
    (folder / "acquisition.json").write_text(json.dumps(record))
    with pytest.raises(QuarantinedPlate, match=r"none of its channels .* name it in acquisition\.json"):
        import_plate(folder, tmp_path / "store")


@pytest.mark.parametrize("status", ["quarantined", "retired"])
def test_plates_that_must_not_be_used_are_not_opened(metaxpress: Folder, tmp_path: Path, status: str) -> None:
    import_plate(metaxpress(), tmp_path / "store")
    PlateStore(tmp_path / "store").update_record("P1", status=status, reason="a lamp failed")
    with pytest.raises(InputError, match=f"P1 is {status} .a lamp failed."):
        open_plate(tmp_path / "store", "P1")
    with pytest.raises(InputError, match="no plate 'P2'"):
        open_plate(tmp_path / "store", "P2")


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """A disk on which only small files find room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(
    metaxpress: Folder, tmp_path: Path
) -> None:
    small = metaxpress("P1", size=32)
    before = import_plate(small, tmp_path / "store")
    large = metaxpress("P2", size=256)
    with largest_file(20_000), pytest.raises(InputError, match="could not be written") as caught:
        import_plate(large, tmp_path / "store", plate_id="P1")
    assert "\n" not in str(caught.value)
    assert open_plate(tmp_path / "store", "P1").content_hash == before.content_hash
    with largest_file(20_000), pytest.raises(InputError, match="could not be written"):
        import_plate(large, tmp_path / "store")
    with pytest.raises(InputError, match="no plate 'P2'"):
        open_plate(tmp_path / "store", "P2")
    assert not list((tmp_path / "store").rglob("*.part"))
    assert len(list(import_plate(large, tmp_path / "store").fields())) == 4


def files(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder) for name in names]


def test_an_import_killed_at_any_moment_leaves_the_old_plate_or_none_and_the_next_one_completes(
    metaxpress: Folder, tmp_path: Path
) -> None:
    children = multiprocessing.get_context("forkserver")
    children.set_forkserver_preload(["cellabel.plates", "tifffile", "zarr", "zarr.codecs", "zarr.storage"])
    folder = metaxpress(wells=("A01", "A02", "B01", "B02"), size=256)
    store = tmp_path / "store"

    def run(into: Path, kill_at: float = float("inf")) -> bool:
        """Import in a child, killed once it has written so many files; whether it was."""
        child = children.Process(target=import_plate, args=(folder, into))
        child.start()
        while child.is_alive():
            if len(files(into)) >= kill_at:
                child.kill()
            time.sleep(0.001)
        child.join()
        return child.exitcode != 0

    run(tmp_path / "reference")
    reference = open_plate(tmp_path / "reference", "P1")
    total = len(files(tmp_path / "reference"))
    chance = random.Random(0)
    assert run(store, kill_at=5)
    kills = int(os.environ.get("CELLABEL_KILLS", "10"))
    for moment in [chance.random() for _ in range(kills - 1)]:
        run(store, kill_at=moment * total)
        if (store / "P1" / "record.json").exists():
            assert digest(open_plate(store, "P1").path) == digest(reference.path)
            shutil.rmtree(store)
        else:
            with pytest.raises(InputError, match="no plate"):
                open_plate(store, "P1")
    plate = import_plate(folder, store)
    assert digest(plate.path) == digest(reference.path)
    left = [name for name in os.listdir(store / "P1") if name not in (plate.path.parent.name, "record.json")]
    assert left == []
