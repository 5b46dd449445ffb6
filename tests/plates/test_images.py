import io
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellabel.plates._images import ImageError, focus_score, open_image, read_plane

PIXELS = np.random.default_rng(0).poisson(300, (24, 32)).astype(np.uint16)


def tiff(**options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PIXELS, **options)
    return buffer.getvalue()


SEEDS = {
    "plain.tif": tiff(),
    "big.tif": tiff(bigtiff=True),
    "swapped.tif": tiff(byteorder=">"),
    "deflate.tif": tiff(compression="zlib", predictor=True),
    "lzw.tif": tiff(compression="lzw"),
    "tiles.tif": tiff(tile=(16, 16), compression="zlib"),
    "imagej.tif": tiff(imagej=True),
    "image.png": cv2.imencode(".png", PIXELS)[1].tobytes(),
}


@pytest.mark.parametrize("name", SEEDS)
def test_every_lossless_way_of_storing_gives_the_same_pixels(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(SEEDS[name])
    image = read_plane(tmp_path / name, 0)
    assert image.dtype == np.uint16 and image.dtype.isnative and np.array_equal(image, PIXELS)


edits = st.lists(
    st.tuples(
        st.floats(0, 1), st.sampled_from(["byte", "flip", "ones", "cut", "long"]), st.integers(0, 2**32 - 1)
    ),
    min_size=1,
    max_size=5,
)


def mutated(data: bytes, changes: list[tuple[float, str, int]]) -> bytes:
    out = bytearray(data)
    for place, kind, value in changes:
        if not out:
            break
        at = min(int(place**2 * len(out)), len(out) - 1)  # headers are hit more often than pixels
        if kind == "byte":
            out[at] = value & 255
        elif kind == "flip":
            out[at] ^= 1 << (value & 7)
        elif kind == "ones":
            out[at : at + 2] = b"\xff\xff"
        elif kind == "cut":
            del out[at:]
        else:
            out[at : at + 4] = value.to_bytes(4, "little")
    return bytes(out)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(SEEDS)), changes=edits)
def test_a_damaged_file_is_an_image_or_one_sentence_and_never_anything_else(
    tmp_path: Path, name: str, changes: list[tuple[float, str, int]]
) -> None:
    path = tmp_path / name
    path.write_bytes(mutated(SEEDS[name], changes))
    try:
        with open_image(path) as file:
            image = file.plane(0)
    except ImageError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert image.ndim == 2 and image.dtype.kind in "uif" and image.nbytes < 2**27


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(SEEDS)), share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_lacks_its_end_never_yields_other_pixels(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    path.write_bytes(SEEDS[name][: int(share * len(SEEDS[name]))])
    try:
        image = read_plane(path, 0)
    except ImageError:
        return
    assert np.array_equal(image, PIXELS)


def giant_png(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    size = side.to_bytes(4) * 2 + bytes([16, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def giant_tiff(side: int) -> bytes:
    data = bytearray(tiff(compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            at = file.pages.first.tags[name].offset
            data[at + 2 : at + 12] = b"\x04\x00\x01\x00\x00\x00" + side.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("side", [11_000, 100_000])
def test_a_giant_header_is_refused_before_memory_is_taken(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(giant_png(side))
    (tmp_path / "b.tif").write_bytes(giant_tiff(side))
    tracemalloc.start()
    for name in ("a.png", "b.tif"):
        with pytest.raises(ImageError, match=f"{side} × {side} pixels"):
            read_plane(tmp_path / name, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_damage_in_a_png_is_found_by_its_checksums(tmp_path: Path) -> None:
    data = bytearray(SEEDS["image.png"])
    data[len(data) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match="checksum"):
        read_plane(tmp_path / "a.png", 0)


def test_the_sharpest_plane_has_the_highest_focus_score() -> None:
    blurred = cv2.GaussianBlur(PIXELS.astype(np.float32), (0, 0), 1.5)
    assert focus_score(PIXELS) > focus_score(blurred) > focus_score(np.full((24, 32), 300.0)) == 0
