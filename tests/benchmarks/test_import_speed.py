"""Import against reading and compressing the same bytes with tifffile and the same codec alone."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numcodecs import Blosc

from cellabel.plates import import_plate
from cellabel.plates._verification import n_workers
from cellabel.plates._writer import CHUNK

pytestmark = pytest.mark.benchmark
DATA = Path(os.environ.get("CELLABEL_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
WELLS, SITES, SIDE = ("A01", "A02", "B01", "B02"), 6, 2048


def camera_noise() -> list[np.ndarray]:
    """Shot noise alone: what a codec is fastest with, and the least favourable to everything else."""
    return [np.random.default_rng(0).poisson(1500, (SIDE, SIDE)).astype(np.uint16)] * 2


def real_pixels() -> list[np.ndarray]:
    """Bright field and DNA of a real Phenix field, repeated beyond its 1080 pixels."""
    files = [DATA / f"phenix_pediatric/orig/r03c03f03p01-ch{channel}sk1fk1fl1.tiff" for channel in (1, 5)]
    if not files[0].exists():
        pytest.skip(f"real images are absent: {files[0]} (set CELLABEL_TEST_DATA)")
    return [np.tile(tifffile.imread(file), (2, 2))[:SIDE, :SIDE] for file in files]


@pytest.fixture(params=[camera_noise, real_pixels], ids=lambda make: make.__name__)
def acquisition(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """24 fields × 2 channels × 2048², 16 bit, 403 MB, uncompressed."""
    folder = tmp_path / "P1"
    folder.mkdir()
    images = request.param()
    for k, well in enumerate(WELLS):
        for site in range(1, SITES + 1):
            for channel in (1, 2):
                pixels = np.roll(images[channel - 1], 131 * (100 * k + 10 * site + channel), axis=1)
                tifffile.imwrite(folder / f"P1_{well}_s{site}_w{channel}.tif", pixels)
    (folder / "acquisition.json").write_text(json.dumps({"channels": {"1": "transmitted", "2": "nuclei"}}))
    return folder


def read_and_compress(folder: Path) -> int:
    """What cannot be avoided: every file read by tifffile, every chunk compressed by the same codec."""
    codec = Blosc(cname="zstd", clevel=3, shuffle=Blosc.BITSHUFFLE)

    def one(path: Path) -> int:
        pixels = tifffile.imread(path)
        return sum(
            len(codec.encode(np.ascontiguousarray(pixels[y : y + CHUNK, x : x + CHUNK])))
            for y in range(0, SIDE, CHUNK)
            for x in range(0, SIDE, CHUNK)
        )

    with ThreadPoolExecutor(n_workers()) as threads:
        return sum(threads.map(one, sorted(folder.glob("*.tif"))))


def test_import_beside_reading_and_compressing_the_same_bytes(acquisition: Path, tmp_path: Path) -> None:
    read_and_compress(acquisition)  # files into the page cache
    by_cpu, by_time = [], []
    for turn in range(3):
        start, cpu = time.perf_counter(), time.process_time()
        read_and_compress(acquisition)
        alone, alone_cpu = time.perf_counter() - start, time.process_time() - cpu
        start, cpu = time.perf_counter(), time.process_time()
        plate = import_plate(acquisition, tmp_path / str(turn))
        whole, whole_cpu = time.perf_counter() - start, time.process_time() - cpu
        assert len(list(plate.fields())) == len(WELLS) * SITES
        by_cpu.append(alone_cpu / whole_cpu)
        by_time.append(alone / whole)
        print(
            f"alone {alone:.2f} s ({alone_cpu:.2f} CPU s), import {whole:.2f} s ({whole_cpu:.2f} CPU s, "
            f"{whole_cpu / whole:.2f} cores busy)"
        )
    print(
        f"import speed over tifffile + codec alone: {np.median(by_time):.0%} by the clock, "
        f"{np.median(by_cpu):.0%} by CPU seconds"
    )
