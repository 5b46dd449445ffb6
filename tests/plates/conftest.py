"""A small plate as a MetaXpress export, for every test that needs one."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile

CHANNELS = {"1": "transmitted", "2": "nuclei", "3": "gfp"}


def picture(seed: int, size: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).poisson(400, (size, size)).astype(np.uint16)


@pytest.fixture
def metaxpress(tmp_path: Path) -> Callable[..., Path]:
    def write(
        name: str = "P1",
        wells: Sequence[str] = ("A01", "B02"),
        sites: int = 2,
        size: int = 48,
        seed: int = 0,
        record: bool = True,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for w, well in enumerate(wells):
            for site in range(1, sites + 1):
                for channel in CHANNELS:
                    pixels = picture(seed + 100 * w + 10 * site + int(channel), size)
                    tifffile.imwrite(folder / f"{name}_{well}_s{site}_w{channel}.tif", pixels)
        if record:
            content = {
                "plate_id": name,
                "acquired_at": "2025-03-01T10:00:00+02:00",
                "instrument": "scope-1",
                "pixel_size_um": 0.325,
                "channels": CHANNELS,
            }
            (folder / "acquisition.json").write_text(json.dumps(content))
        return folder

    return write
