"""Import against reading and compressing the same bytes with tifffile and the same codec alone."""

from __future__ import annotations

import json
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
WELLS, SITES, SIDE = ("A01", "A02", "B01", "B02"), 6, 2048


@pytest.fixture(scope="module")
def acquisition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 fields × 2 channels × 2048², 16 bit: 403 MB as a camera writes them, with shot noise."""
    folder = tmp_path_factory.mktemp("export") / "P1"
    folder.mkdir()
    rng = np.random.default_rng(0)
    noise = rng.poisson(1500, (SIDE, SIDE)).astype(np.uint16)
    for k, well in enumerate(WELLS):
        for site in range(1, SITES + 1):
            for channel in (1, 2):
                pixels = np.roll(noise, 131 * (100 * k + 10 * site + channel), axis=1)
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
    ratios = []
    for turn in range(3):
        start = time.perf_counter()
        read_and_compress(acquisition)
        alone = time.perf_counter() - start
        start, cpu = time.perf_counter(), time.process_time()
        plate = import_plate(acquisition, tmp_path / str(turn))
        whole = time.perf_counter() - start
        assert len(list(plate.fields())) == len(WELLS) * SITES
        ratios.append(alone / whole)
        cores = (time.process_time() - cpu) / whole
        print(f"alone {alone:.2f} s, import {whole:.2f} s, {cores:.2f} cores busy, ratio {alone / whole:.0%}")
    print(f"import speed over tifffile + codec alone: {np.median(ratios):.0%}")
