"""Damaged files: told, or read as if they were whole; never anything else."""

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellabel import InputError
from cellabel.plates import QuarantinedPlate, import_plate, open_acquisition
from cellabel.plates._images import ImageError, read_plane
from cellabel.plates._verification import pixel_digest

Folder = Callable[..., Path]
DATA = Path(os.environ.get("CELLABEL_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
MUTATIONS = int(os.environ.get("CELLABEL_MUTATIONS", "100"))
REAL = {  # folder → files, layout.yaml
    "aisegcell": (
        "aisegcell/fig10/181024TK20_p0002_t00012*_[bn]*",
        r"pattern: '(?P<plate>\w+?)_(?P<position>p\d+)_t(?P<time>\d+)_z001_(?P<channel>bf|nuc|mask)\.tif'"
        "\nchannels: {bf: transmitted, nuc: nuclei}\n",
    ),
    "celldetective": ("celldetective_mcf7/110_snap_0_1_10.*", ""),
    "imagexpress": ("imagexpress/*/9987_Plate_3434/TimePoint_1/ZStep_1/*B02_s1_w*", ""),
    "isl": (
        "isl_condition_blue/*z_depth-6*",
        r"pattern: '.*well-(?P<well>[A-Z]\d+),.*z_depth-(?P<z>\d+),channel-(?P<channel>\w+),.*\.png'"
        "\nchannels: {PHASE_CONTRAST: transmitted}\n",
    ),
    "nf1": (
        "nf1/Plate_2_images/B7_01_1_3_*",
        r"pattern: '(?P<well>[A-H]\d+)_01_1_(?P<site>\d+)_(?P<channel>\w+)_001\.tif'"
        "\nchannels: {DAPI: nuclei, GFP: transmitted, RFP: actin}\n",
    ),
    "phenix": (
        "phenix_pediatric/orig/*ch[14]sk*",
        "channels: {ch1: transmitted, ch4: mitochondria}\nlayout: phenix\n",
    ),
    "sephace": ("sephace/Set 1/*Time[12]s*.ics", ""),
}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One field of every real acquisition, in a folder of its own."""
    home, folders = tmp_path_factory.mktemp("real"), {}
    for name, (pattern, layout) in REAL.items():
        files = sorted(DATA.glob(pattern))
        if not files:
            pytest.skip(f"real images are absent: {DATA / pattern} (set CELLABEL_TEST_DATA)")
        folders[name] = home / name
        folders[name].mkdir()
        for file in files:
            (folders[name] / file.name).write_bytes(file.read_bytes())
        if layout:
            (folders[name] / "layout.yaml").write_text(layout)
    return folders


def seen(folder: Path) -> tuple[dict[tuple[str, int, str], tuple[str, ...]], set[str]]:
    """Digests of the pixels of every usable image, and all that is told of the acquisition."""
    found = open_acquisition(folder)
    told = {str(issue) for issue in found.issues} | {f"channel {name}" for name in found.channels}
    return {
        slot: tuple(plane.digest for plane in image.planes)
        for slot, image in found.images.items()
        if image.bad is None
    }, told


def mutate(data: bytes, chance: random.Random) -> tuple[bytes, set[int]]:
    out = bytearray(data)
    places = {chance.randrange(len(out)) for _ in range(chance.choice([1, 1, 1, 2, 5]))}
    if chance.random() < 0.4:  # headers are small, and hold the worst
        places = {min(place % 2500, len(out) - 1) for place in places}
    for place in places:
        out[place] = chance.choice([chance.randrange(256), out[place] ^ 1 << chance.randrange(8), 0, 255])
    return bytes(out), {place for place in places if out[place] != data[place]}


def unprotected(path: Path) -> Callable[[int], bool]:
    """Whether a byte of an undamaged file lies where no checksum, and no sum of pixels, covers it."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return lambda place: False
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        parts = [(a, a + n) for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        covered = int(page.compression) == 8 or 65520 in page.tags
    return lambda place: not (covered and any(a <= place < b for a, b in parts))


def listed(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.name not in ("SHA256SUMS", "layout.yaml"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder / "SHA256SUMS"


@pytest.mark.real
def test_a_mutated_real_file_is_told_or_gives_its_own_pixels_and_takes_no_five_seconds(
    real: dict[str, Path], tmp_path: Path
) -> None:
    """Every second time a list of checksums lies beside the images: then any changed byte is told."""
    whole = {name: seen(folder) for name, folder in real.items()}
    chance, outcomes, slowest = random.Random(0), dict.fromkeys(("told", "same", "not told"), 0), 0.0
    for k in range(MUTATIONS):
        name = chance.choice(sorted(real))
        folder = real[name]
        path = chance.choice(sorted(p for p in folder.iterdir() if p.name != "layout.yaml"))
        data, silent = path.read_bytes(), unprotected(path)
        checksums = listed(folder) if k % 2 else None
        mutated, places = mutate(data, chance)
        path.write_bytes(mutated)
        what, start = f"{path.name} at {sorted(places)}, mutation {k}", time.monotonic()
        try:
            digests, told = seen(folder)
            if k % 10 == 0:
                plate = import_plate(folder, tmp_path / str(k), max_bad_share=1.0)
                for field in plate.fields():
                    for role in set(field.roles) & {slot[2] for slot in digests}:
                        kept = pixel_digest(field.image(role))
                        assert kept in digests[field.well, field.site, role], what
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) > 20, what
            outcome = "told"
        else:
            before, known = whole[name]
            assert not any("\n" in one for one in told), what
            outcome = "same" if digests == before else "told" if told - known or known - told else "not told"
            if checksums is not None:
                assert outcome == "told" or not places, what
            elif outcome == "not told":
                assert any(silent(place) for place in places), what
        finally:
            path.write_bytes(data)
            if checksums is not None:
                checksums.unlink()
        slowest = max(slowest, time.monotonic() - start)
        assert slowest < 5, what
        outcomes[outcome] += 1
    print(f"{MUTATIONS} mutations: {outcomes}, the slowest took {slowest:.2f} s")
    assert outcomes["told"] > MUTATIONS / 3


def tiff(path: Path, **options: object) -> np.ndarray:
    pixels = np.random.default_rng(0).poisson(300, (64, 48)).astype(np.uint16)
    tifffile.imwrite(path, pixels, rowsperstrip=16, **options)
    return pixels


def entry(path: Path, code: int, at: int, value: bytes) -> None:
    """Overwrite bytes of one entry of the header: 0 its code, 2 its type, 4 its number, 8 its value."""
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags[code].offset + at
    data = bytearray(path.read_bytes())
    data[place : place + len(value)] = value
    path.write_bytes(data)


def test_pixels_that_contradict_the_mean_their_writer_kept_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = tiff(path, extratags=[(65520, 2, None, json.dumps({"mean": 1.0}), False)])
    with pytest.raises(ImageError, match="damaged: the mean of its pixels is"):
        read_plane(path, 0)
    kept = json.dumps({"mean": float(pixels.mean()), "stddev": 1})
    tiff(path, extratags=[(65520, 2, None, kept, False)])
    assert np.array_equal(read_plane(path, 0), pixels)
    data = path.read_bytes()
    at = data.index(pixels[5].tobytes())
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(ImageError, match="the mean of its pixels"):
        read_plane(path, 0)


@pytest.mark.parametrize(
    ("code", "at", "value", "why"),
    [
        (317, 4, b"\x02", "Predictor of its header has a type or number"),
        (317, 2, b"\x02", "Predictor of its header has a type or number"),
        (317, 2, b"\x63", "entries of its header cannot be read"),
    ],
)
def test_entries_that_cannot_be_are_damage(
    tmp_path: Path, code: int, at: int, value: bytes, why: str
) -> None:
    path = tmp_path / "a.tif"
    tiff(path, compression="zlib", predictor=True)
    entry(path, code, at, value)
    with pytest.raises(ImageError, match=why):
        read_plane(path, 0)


def test_strips_over_one_another_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tiff(path)
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[273]
    data = bytearray(path.read_bytes())
    data[tag.valueoffset + 4 : tag.valueoffset + 8] = (tag.value[0] + 2).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ImageError, match="lie over one another"):
        read_plane(path, 0)


@pytest.mark.parametrize("lacks", ["sign", "byte_order", "compression", "format"])
def test_an_ics_header_that_lacks_how_pixels_are_stored_is_not_guessed(tmp_path: Path, lacks: str) -> None:
    values = {"format": "integer", "sign": "unsigned", "compression": "uncompressed", "byte_order": "1 2"}
    lines = [f"representation\t{key}\t{value}\n" for key, value in values.items() if key != lacks]
    head = "\t\nics_version\t2.0\nlayout\torder\tbits\tx\ty\nlayout\tsizes\t16\t8\t4\n"
    path = tmp_path / "a.ics"
    path.write_bytes((head + "".join(lines) + "end\n").encode() + bytes(64))
    with pytest.raises(ImageError, match=r"not tell|not read|not told"):
        read_plane(path, 0)


def sums(folder: Path, algorithm: str, line: str) -> str:
    return "".join(
        line.format(hashlib.new(algorithm, path.read_bytes()).hexdigest(), path.name) + "\n"
        for path in sorted(folder.iterdir())
    )


@pytest.mark.parametrize(
    ("name", "algorithm", "line"),
    [
        ("SHA256SUMS", "sha256", "{}  {}"),
        ("md5sums.txt", "md5", "{} *{}"),
        ("checksums.txt", "sha512", "SHA512 ({1}) = {0}"),
        ("export.sha1", "sha1", "{}  ./{}"),
    ],
)
def test_a_list_of_checksums_beside_the_images_finds_any_changed_byte(
    metaxpress: Folder, tmp_path: Path, name: str, algorithm: str, line: str
) -> None:
    folder = metaxpress()
    before = {str(issue) for issue in open_acquisition(folder).issues}
    (folder / name).write_text(sums(folder, algorithm, line))
    assert {str(issue) for issue in open_acquisition(folder).issues} == before
    path = folder / "P1_A01_s1_w1.tif"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = open_acquisition(folder)
    assert found.quarantined == {
        ("A01", 1): f"{path.name}: its checksum is not the one in {name}: copy it again"
    }
    with pytest.raises(QuarantinedPlate, match="its checksum is not the one in"):
        import_plate(folder, tmp_path / "store", max_bad_share=0.1)


def test_a_digest_alone_names_the_file_before_its_suffix(metaxpress: Folder) -> None:
    folder = metaxpress()
    (folder / "P1_A01_s1_w1.tif.md5").write_text("0" * 32)
    assert ("A01", 1) in open_acquisition(folder).quarantined


def test_listed_files_that_are_not_there_and_images_that_are_not_listed_are_told(metaxpress: Folder) -> None:
    folder = metaxpress()
    (folder / "SHA256SUMS").write_text(sums(folder, "sha256", "{}  {}"))
    (folder / "P1_A01_s1_w2.tif").rename(folder / "P1_A01_s1_w3.tif")
    shutil.copyfile(folder / "P1_A01_s1_w1.tif", folder / "P1_A01_s3_w1.tif")
    told = "\n".join(str(issue) for issue in open_acquisition(folder).issues)
    assert "not there, but named by a list of checksums: 1 (P1_A01_s1_w2.tif)" in told
    assert "with images, but not named by a list of checksums: 1 (P1_A01_s3_w1.tif)" in told


def test_damaged_metadata_of_a_vendor_are_refused_and_what_people_wrote_may_change(
    metaxpress: Folder,
) -> None:
    folder = metaxpress()
    (folder / "P1.HTD").write_text('"HTSInfoFile", Version 1.0\n')
    (folder / "SHA256SUMS").write_text(sums(folder, "sha256", "{}  {}"))
    (folder / "acquisition.json").write_text((folder / "acquisition.json").read_text() + "\n")
    assert open_acquisition(folder).fields
    (folder / "P1.HTD").write_text('"HTSInfoFile", Version 1.1\n')
    with pytest.raises(
        InputError, match=r"P1\.HTD cannot be used: its checksum is not the one in SHA256SUMS"
    ):
        open_acquisition(folder)


def test_a_list_that_is_no_list_is_one_sentence(metaxpress: Folder) -> None:
    folder = metaxpress()
    for text in ("zz  P1_A01_s1_w1.tif", "0" * 33 + "  P1_A01_s1_w1.tif", "0" * 32 + "  ../other.tif"):
        (folder / "MD5SUMS").write_text(text)
        with pytest.raises(InputError, match=r"Line 1 of .*MD5SUMS is no checksum and name"):
            open_acquisition(folder)
    (folder / "MD5SUMS").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as a list of checksums"):
        open_acquisition(folder)


def test_a_list_covers_the_chunks_and_metadata_of_an_ome_zarr_plate(
    metaxpress: Folder, tmp_path: Path
) -> None:
    stored = import_plate(metaxpress(), tmp_path / "store").path
    folder = tmp_path / "again"
    shutil.copytree(stored, folder / "P1.zarr")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{hashlib.md5(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}\n" for p in files]
    (folder / "MD5SUMS").write_text("".join(lines))
    assert open_acquisition(folder).quarantined == {}
    array = folder / "P1.zarr/A/01/1/0/zarr.json"
    chunk = next(path for path in array.parent.rglob("c/**/*") if path.is_file())
    data = chunk.read_bytes()
    chunk.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    assert "its checksum is not the one in" in open_acquisition(folder).quarantined["A01", 1]
    chunk.write_bytes(data)
    array.write_text(array.read_text() + "\n")
    with pytest.raises(InputError, match=r"zarr\.json cannot be used: its checksum"):
        open_acquisition(folder)
