"""How soon every drift that the simulator knows is seen, by the frozen encoder and the acquisition features.

    OMP_NUM_THREADS=1 .venv/bin/python tests/benchmarks/drift_power.py --cache FOLDER

Plates of 24 wells, single fields of 160 × 160 px at 0.65 µm, every plate with clones of its own; the encoder
learns from other, clean plates. The two streams of an instrument that no champion can blind share an accepted
5 % of false alarms a plate, and both are calibrated with whole plates as groups. Printed are the clean plates
that alarm all the same, then P(alarm within k wells) of either stream and of each, and the median delay, with
95 % intervals by plate. What is no fault of the microscope (new clones, passages, density) is marked. Plates
are made once and kept in the cache (twenty minutes of one core).
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import tifffile
from drift_tables import SIZE, by_plate, detector_of, run_lengths, share, trained_encoder

from cellabel.drift import expected_run_time
from cellabel.loop.encoder import embed_field
from cellabel.plates.quality import acquisition_features
from cellabel.simulation import BIOLOGY_KINDS, simulate_plate

WELLS, ACCEPTED, W = 24, 0.05, 10
TRAINING, REFERENCE, CLEAN, DRIFTED = 2, 40, 12, 8
STREAMS = ("encoder", "features")
DRIFTS = [
    ("defocus", 2.0), ("defocus", -2.0), ("defocus", 4.0), ("defocus", -4.0), ("tilt", 10.0), ("lamp", -0.3),
    ("lamp", 0.3), ("bias", 20.0), ("condenser", 0.6), ("decentre", 0.3), ("medium", 1.345), ("dust", 5),
    ("vibration", 0.5), ("camera", 90), ("mirror", 1), ("mass_death", 0.3), ("unfixed", 0.3),
    ("density", -0.3), ("density", 0.3), ("new_clone", 3.0), ("passage", 30),
]  # fmt: skip


def plate(cache, number, drift=None):
    """(WELLS, SIZE, SIZE) uint16 transmitted-light images of a simulated plate, made once."""
    file = cache / f"plate{number:03d}.npy"
    if not file.exists():
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = simulate_plate(
                Path(folder) / "plate", wells=WELLS, sites=1, size=SIZE, seed=3000 + number, stains=(),
                workers=1, preset="10x", condenser_points=9, clone_offset=6 * number, blanks=0, drift=drift,
            )  # fmt: skip
            images = np.stack([tifffile.imread(one) for one in sorted(made.path.glob("*_w1.tif"))])
        scratch = file.with_suffix(".part.npy")
        np.save(scratch, images)
        scratch.rename(file)
    return np.load(file)


def seen(encoder, images):
    """Stream → (plates, WELLS, d) rows of images (plates, WELLS, H, W)."""
    found = {"encoder": [], "features": []}
    for wells in images:
        found["encoder"].append([embed_field(encoder, image) for image in wells])
        numbers = [acquisition_features(image) for image in wells]
        found["features"].append([[row[name] for name in sorted(row)] for row in numbers])
    return {name: np.array(rows, float) for name, rows in found.items()}


def embedded(cache):
    """Arm → stream → (plates, WELLS, d), standardised by the reference's wells; kept in the cache."""
    file = cache / "rows.npz"
    if not file.exists():
        numbers = iter(range(10_000))
        encoder = trained_encoder(np.stack([plate(cache, next(numbers)) for _ in range(TRAINING)]))
        arms = {"reference": (REFERENCE, None), "clean": (CLEAN, None)}
        arms |= {f"{kind} {size:g}": (DRIFTED, (kind, size)) for kind, size in DRIFTS}
        found = {}
        for arm, (count, drift) in arms.items():
            images = [plate(cache, next(numbers), drift) for _ in range(count)]
            found |= {f"{arm}/{name}": rows for name, rows in seen(encoder, images).items()}
            print(f"  {arm}: {count} plates", flush=True)
        np.savez(file, **found)
    rows = {}
    with np.load(file) as found:
        for name in STREAMS:
            known = found[f"reference/{name}"].reshape(-1, found[f"reference/{name}"].shape[-1])
            centre, spread = np.median(known, axis=0), np.maximum(known.std(axis=0), 1e-9)
            for key in (one for one in found.files if one.endswith(f"/{name}")):
                rows.setdefault(key.rpartition("/")[0], {})[name] = (found[key] - centre) / spread
    return rows


def power(rows):
    run_time = expected_run_time(WELLS, ACCEPTED / len(STREAMS))
    detectors = {name: detector_of(rows["reference"][name], run_time, W) for name in STREAMS}

    def lengths(arm):
        each = {name: run_lengths(detectors[name], rows[arm][name]) for name in STREAMS}
        either = np.minimum(*(each[name][0] for name in STREAMS))  # the same plates in the same order
        return {"either": (either, each["encoder"][1]), **each}

    clean = lengths("clean")
    print(f"{len(clean['either'][0])} streams an arm; clean plates that alarm, accepted {ACCEPTED:.0%}:")
    for name, found in clean.items():
        low, high = by_plate(share(WELLS), found)
        print(f"  {name}: {share(WELLS)(found[0]):.1%} [{low:.1%}, {high:.1%}]")
    print(
        "drift: alarm within 4 / 8 / 24 wells [95 % of the last], median delay; encoder / features within 24"
    )
    for arm in (one for one in rows if one not in ("reference", "clean")):
        found = lengths(arm)
        either = found["either"]
        low, high = by_plate(share(WELLS), either)
        within = " / ".join(f"{share(most)(either[0]):.0%}" for most in (4, 8, WELLS))
        each = " / ".join(f"{share(WELLS)(found[name][0]):.0%}" for name in STREAMS)
        biology = " (biology)" if arm.partition(" ")[0] in BIOLOGY_KINDS else ""
        print(
            f"  {arm}{biology}: {within} [{low:.0%}, {high:.0%}], {np.median(either[0]):.0f} wells; {each}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "drift-power")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    power(embedded(options.cache))


if __name__ == "__main__":
    main()
