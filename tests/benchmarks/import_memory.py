"""Peak memory of an import against the number of fields: `python tests/benchmarks/import_memory.py`.

Each import runs in a process of its own, 2 × 2048² a field. The slope is what a field adds; from it follows
the plate of 384 wells × 9 sites. As many fields of 2 × 64² show what their records take.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SIDE, FIELDS = 2048, (12, 24, 48, 96)
WHOLE = 384 * 9


def write(folder: Path, n_fields: int, side: int) -> None:
    import numpy as np
    import tifffile

    folder.mkdir()
    noise = np.random.default_rng(0).poisson(1500, (side, side)).astype(np.uint16)
    for k in range(n_fields):
        well = f"{'ABCDEFGHIJKLMNOP'[k // 12 % 16]}{k % 12 + 1:02d}"
        for channel in (1, 2):
            pixels = np.roll(noise, 7 * k + channel, axis=1)
            tifffile.imwrite(folder / f"P1_{well}_s{k // 192 + 1}_w{channel}.tif", pixels)
    (folder / "acquisition.json").write_text(json.dumps({"channels": {"1": "transmitted", "2": "nuclei"}}))


def one_import(folder: str, store: str) -> None:
    from cellabel.plates import import_plate

    plate = import_plate(folder, store)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"fields": sum(1 for _ in plate.fields()), "peak_mb": peak}))


def peak_mb(scratch: str, n_fields: int, side: int) -> float:
    folder, store = Path(scratch, "P1"), Path(scratch, "store")
    write(folder, n_fields, side)
    command = [sys.executable, __file__, str(folder), str(store)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["fields"] == n_fields
    size = n_fields * 2 * side**2 * 2 / 1e9
    print(f"{n_fields} fields of 2 × {side}², {size:.2f} GB: peak {found['peak_mb']:.0f} MB")
    for place in (folder, store):
        shutil.rmtree(place)
    return float(found["peak_mb"])


def main() -> None:
    import numpy as np

    with tempfile.TemporaryDirectory() as scratch:
        peaks = [peak_mb(scratch, n, SIDE) for n in FIELDS]
        slope, start = np.polyfit(FIELDS, peaks, 1)
        print(f"slope {1000 * slope:.0f} kB a field; {WHOLE} fields: {start + slope * WHOLE:.0f} MB")
        peak_mb(scratch, WHOLE, 64)


if __name__ == "__main__":
    one_import(*sys.argv[1:]) if len(sys.argv) > 1 else main()
