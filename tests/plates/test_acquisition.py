import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellabel import InputError
from cellabel.plates import Acquisition, open_acquisition

Folder = Callable[..., Path]
TRANSMITTED, NUCLEI = "P1_A01_s1_w1.tif", "P1_A01_s1_w2.tif"


def told(found: Acquisition, effect: str | None = None) -> list[str]:
    return [str(issue) for issue in found.issues if effect is None or issue.effect == effect]


def edit_record(folder: Path, **changes: object) -> None:
    path = folder / "acquisition.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_whole_export_has_no_issues_and_all_its_metadata(metaxpress: Folder) -> None:
    found = open_acquisition(metaxpress())
    assert found.issues == []
    assert found.plate_id == "P1" and found.wells == ["A01", "B02"]
    assert found.fields == [("A01", 1), ("A01", 2), ("B02", 1), ("B02", 2)]
    assert found.channels == ["transmitted", "nuclei", "gfp"]
    assert found.pixel_size_um == 0.325 and found.instrument == "scope-1" and found.plan is None
    assert found.acquired_at == datetime(2025, 3, 1, 8, tzinfo=UTC)


def test_nothing_is_written_and_images_are_those_of_the_files(metaxpress: Folder) -> None:
    folder = metaxpress()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    found = open_acquisition(folder)
    image = found.image("B02", 2, "gfp")
    assert image.dtype == np.uint16
    assert np.array_equal(image, tifffile.imread(folder / "P1_B02_s2_w3.tif"))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_content_hash_does_not_know_names_times_or_compression(metaxpress: Folder) -> None:
    folder = metaxpress()
    first = open_acquisition(folder).content_hash
    other = folder.parent / "elsewhere"
    shutil.copytree(folder, other)
    for path in other.glob("*.tif"):
        pixels = tifffile.imread(path)
        tifffile.imwrite(path, pixels, compression="zlib", description="another export")
        os.utime(path, (1, 1))
        path.rename(path.with_name(path.name.replace("P1_", "again_")))
    assert open_acquisition(other).content_hash == first


@pytest.mark.parametrize("change", ["pixel", "metadata", "plan", "less", "swap"])
def test_the_content_hash_knows_pixels_metadata_plan_and_places(metaxpress: Folder, change: str) -> None:
    folder = metaxpress()
    first = open_acquisition(folder).content_hash
    if change == "pixel":
        pixels = tifffile.imread(folder / NUCLEI)
        pixels[3, 4] += 1
        tifffile.imwrite(folder / NUCLEI, pixels)
    elif change == "metadata":
        edit_record(folder, pixel_size_um=0.326)
    elif change == "plan":
        (folder / "plate_plan.csv").write_text("Metadata_Well,clone\nA01,c1\n")
    elif change == "less":
        (folder / NUCLEI).unlink()
    else:
        (folder / NUCLEI).rename(folder / "x")
        (folder / "P1_A01_s2_w2.tif").rename(folder / NUCLEI)
        (folder / "x").rename(folder / "P1_A01_s2_w2.tif")
    assert open_acquisition(folder).content_hash != first


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def giant(path: Path) -> None:
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tag = tif.pages.first.tags[name]
            data[tag.offset + 2 : tag.offset + 4] = (4).to_bytes(2, "little")  # LONG
            data[tag.offset + 8 : tag.offset + 12] = (100_000).to_bytes(4, "little")
    path.write_bytes(data)


def bomb(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((8192, 8192), np.uint16), compression="zlib")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "truncated": (truncate, "truncated: it ends before the image does"),
    "text": (lambda path: path.write_text("well,site\nA01,1\n"), "cannot be read as an image"),
    "giant": (giant, "100000 × 100000 pixels"),
    "bomb": (bomb, "out of proportion"),
    "jpeg": (
        lambda path: tifffile.imwrite(path, np.zeros((48, 48), np.uint8), compression="jpeg"),
        "compression .JPEG. is not read",
    ),
    "other size": (
        lambda path: tifffile.imwrite(path, np.ones((48, 40), np.uint16)),
        "it is 48 × 40 pixels, the plate's images are 48 × 48",
    ),
    "other type": (
        lambda path: tifffile.imwrite(path, np.ones((48, 48), np.uint8)),
        "pixels are uint8, those of the plate's .* are uint16",
    ),
    "colour": (
        lambda path: tifffile.imwrite(
            path, np.arange(48 * 48 * 3, dtype=np.uint16).reshape(48, 48, 3), photometric="rgb"
        ),
        "it is a colour image",
    ),
    "complex": (lambda path: tifffile.imwrite(path, np.ones((48, 48), np.complex64)), "unknown or complex"),
    "absent": (lambda path: path.unlink(), "no image"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_transmitted_image_quarantines_its_field_and_says_why(metaxpress: Folder, damage: str) -> None:
    folder = metaxpress()
    spoil, sentence = DAMAGES[damage]
    spoil(folder / TRANSMITTED)
    found = open_acquisition(folder)
    assert list(found.quarantined) == [("A01", 1)]
    (issue,) = [issue for issue in found.issues if issue.effect == "field quarantined"]
    assert (issue.well, issue.site, issue.channel) == ("A01", 1, "transmitted")
    with pytest.raises(InputError, match=sentence if damage != "absent" else "holds no"):
        found.image("A01", 1, "transmitted")
    assert found.missing == {}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_stain_leaves_the_field_unlabelled_there(metaxpress: Folder, damage: str) -> None:
    folder = metaxpress()
    spoil, sentence = DAMAGES[damage]
    spoil(folder / NUCLEI)
    found = open_acquisition(folder)
    assert found.quarantined == {}
    assert list(found.missing) == [("A01", 1)] and list(found.missing["A01", 1]) == ["nuclei"]
    assert len(told(found, "stain missing")) == 1

    assert re.search(sentence, told(found, "stain missing")[0])


def test_nan_and_infinite_pixels_are_found_in_float_images(metaxpress: Folder) -> None:
    folder = metaxpress()
    for path in folder.glob("*_w2.tif"):
        tifffile.imwrite(path, tifffile.imread(path).astype(np.float32))
    for name, value in ((NUCLEI, np.nan), ("P1_A01_s2_w2.tif", np.inf)):
        pixels = tifffile.imread(folder / name)
        pixels[5, 6] = value
        tifffile.imwrite(folder / name, pixels)
    found = open_acquisition(folder)
    assert set(found.missing) == {("A01", 1), ("A01", 2)}
    assert all("NaN or infinite" in roles["nuclei"] for roles in found.missing.values())


def test_three_equal_colours_are_grey(metaxpress: Folder) -> None:
    folder = metaxpress()
    grey = tifffile.imread(folder / TRANSMITTED)
    tifffile.imwrite(folder / TRANSMITTED, np.stack([grey] * 3, axis=-1), photometric="rgb")
    found = open_acquisition(folder)
    assert found.issues == []
    assert np.array_equal(found.image("A01", 1, "transmitted"), grey)


def test_a_repeated_image_is_noted_and_two_different_ones_are_refused(metaxpress: Folder) -> None:
    folder = metaxpress()
    copy = folder / "P1_A01_s1_w1.tiff"
    shutil.copy(folder / TRANSMITTED, copy)
    found = open_acquisition(folder)
    assert found.quarantined == {} and "repeats" in told(found)[0]
    tifffile.imwrite(copy, tifffile.imread(copy) + 1)
    assert "two different images of the same thing" in open_acquisition(folder).quarantined["A01", 1]


def test_a_channel_that_all_fields_lack_is_no_channel(metaxpress: Folder) -> None:
    folder = metaxpress()
    for path in folder.glob("*_w3.tif"):
        path.unlink()
    found = open_acquisition(folder)
    assert found.channels == ["transmitted", "nuclei"] and found.issues == []


def test_without_transmitted_light_every_field_is_quarantined(metaxpress: Folder) -> None:
    folder = metaxpress()
    for path in folder.glob("*_w1.tif"):
        path.unlink()
    found = open_acquisition(folder)
    assert set(found.quarantined.values()) == {"no transmitted-light image"} and len(found.quarantined) == 4


def test_an_image_that_changes_after_it_was_verified_is_not_given_out(metaxpress: Folder) -> None:
    folder = metaxpress()
    found = open_acquisition(folder)
    assert found.issues == []
    tifffile.imwrite(folder / NUCLEI, tifffile.imread(folder / NUCLEI) + 1)
    with pytest.raises(InputError, match="has changed since it was verified"):
        found.image("A01", 1, "nuclei")


def test_what_is_no_path_is_refused(metaxpress: Folder, tmp_path: Path) -> None:
    folder = metaxpress()
    with pytest.raises(InputError, match="None is no folder"):
        open_acquisition(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no layout file"):
        open_acquisition(folder, layout=tmp_path / "missing.yaml")
    with pytest.raises(InputError, match="3 is no name of a layout"):
        open_acquisition(folder, layout=3)  # type: ignore[arg-type]


def test_asking_for_what_is_not_there_names_what_is(metaxpress: Folder) -> None:
    found = open_acquisition(metaxpress())
    with pytest.raises(InputError, match="channels transmitted, nuclei, gfp"):
        found.image("A01", 1, "er")
    with pytest.raises(InputError, match="no such field"):
        found.image("H12", 1, "nuclei")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"plate_id": "a/b"}, "'a/b' cannot be used"),
        ({"plate_id": ""}, "cannot be used"),
        ({"pixel_size_um": 0}, "pixel_size_um"),
        ({"pixel_size_um": "wide"}, "pixel_size_um"),
        ({"acquired_at": "yesterday"}, "acquired_at"),
        ({"channels": ["transmitted"]}, "channels"),
        ({"channels": {"1": "nuclei", "2": "nuclei"}}, "two channels are given the role 'nuclei'"),
    ],
)
def test_an_acquisition_file_that_cannot_be_used_is_refused_in_one_sentence(
    metaxpress: Folder, changes: dict[str, object], sentence: str
) -> None:
    folder = metaxpress()
    edit_record(folder, **changes)
    with pytest.raises(InputError, match=sentence) as caught:
        open_acquisition(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe\x00", b"[" * 100_000])
def test_an_acquisition_file_that_is_no_json_object_is_refused(metaxpress: Folder, content: bytes) -> None:
    folder = metaxpress()
    (folder / "acquisition.json").write_bytes(content)
    with pytest.raises(InputError, match=r"acquisition\.json"):
        open_acquisition(folder)


def test_a_time_without_a_zone_is_taken_as_utc(metaxpress: Folder) -> None:
    folder = metaxpress()
    edit_record(folder, acquired_at="2025-03-01T10:00:00")
    assert open_acquisition(folder).acquired_at == datetime(2025, 3, 1, 10, tzinfo=UTC)


def test_folders_that_hold_no_acquisition_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_acquisition(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds no images"):
        open_acquisition(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        open_acquisition(tmp_path / "notes.txt")
    tifffile.imwrite(tmp_path / "overview.tif", np.ones((8, 8), np.uint8))
    with pytest.raises(InputError, match=r"'overview\.tif'.*describe the names in a layout\.yaml"):
        open_acquisition(tmp_path)


def test_a_folder_name_that_cannot_name_a_plate_is_made_usable_and_told(metaxpress: Folder) -> None:
    folder = metaxpress(record=False)
    odd = folder.rename(folder.parent / "My plate (2)")
    found = open_acquisition(odd)
    assert found.plate_id == "My-plate-2"
    assert any("'My plate (2)' cannot name a plate" in text for text in told(found))
