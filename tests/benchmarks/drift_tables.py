"""Separability of corrupted from clean plates, online and offline, on simulated plates and a frozen encoder.

    OMP_NUM_THREADS=1 .venv/bin/python tests/benchmarks/drift_tables.py --cache /tmp/drift-tables

Tables 6, 7 and 8 of the method (AUC of the run length by window, by expected run time, by severity; the
study's figures stand beside ours), then what they do not say: alarms on clean plates, P(alarm within k wells)
and the median delay, with intervals bootstrapped by plate; then the false negative rate of the offline test
by corruption and severity. Wells are single fields of 160 × 160 px at 0.65 µm (one condenser point), 8 a
plate, every plate with clones of its own; the encoder is an autoencoder trained on other, clean plates.
Reference, clean arm and drifted arm share no plate. Plates are made once (two minutes of one core) and kept
in the cache.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch

from cellabel.corruptions import SEVERITIES, corrupt
from cellabel.drift import OnlineMMD, expected_run_time, mmd_permutation_test
from cellabel.networks import ConvAutoencoder
from cellabel.prediction import embed_image
from cellabel.preprocessing import prepare_input
from cellabel.simulation import simulate_plate

WELLS, SIZE = 8, 160
ARMS = {"training": 4, "reference": 40, "clean": 14, "drifted": 10, "unfixed": 8}
STREAMS, LONGEST = 210, 8
RUN_TIME, W, SEVERITY = 128, 10, 4
DETECTORS = {}
STUDY = {
    "window": {2: 0.85, 5: 0.92, 10: 0.98, 15: 0.90, 20: 0.88},
    "run time": {32: 0.90, 64: 0.95, 128: 0.98, 256: 0.98},
    "severity": {2: 0.84, 3: 0.92, 4: 0.98},
    "unfixed": 0.91,
}


def plate_images(number, fixed):
    """(WELLS, SIZE, SIZE) uint16 transmitted-light images of a simulated plate."""
    with tempfile.TemporaryDirectory() as folder:
        plate = simulate_plate(
            Path(folder) / "plate",
            wells=WELLS,
            sites=1,
            size=SIZE,
            seed=1000 + number,
            stains=(),
            workers=1,
            preset="10x",
            condenser_points=1,
            clone_offset=6 * number,
            blanks=0,
            fixed=fixed,
        )
        return np.stack([tifffile.imread(file) for file in sorted(plate.path.glob("*_w1.tif"))])


def simulated(cache):
    """Arm → (plates, WELLS, SIZE, SIZE)."""
    arms, number = {}, 0
    for arm, n_plates in ARMS.items():
        images = []
        for _ in range(n_plates):
            file = cache / f"plate{number:03d}.npy"
            if not file.exists():
                scratch = file.with_suffix(".part.npy")
                np.save(scratch, plate_images(number, fixed=arm != "unfixed"))
                scratch.rename(file)
            images.append(np.load(file))
            number += 1
        arms[arm] = np.stack(images)
    return arms


def trained_encoder(images, steps=150, crop=128, batch=8):
    """An autoencoder of the clean training images."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    prepared = np.stack([prepare_input(image) for plate in images for image in plate])
    encoder = ConvAutoencoder(base_channels=8, depth=4, code_channels=32).train()
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=2e-3)
    for _ in range(steps):
        rows = []
        for place in rng.integers(0, len(prepared), batch):
            y, x = rng.integers(0, SIZE - crop + 1, 2)
            rows.append(prepared[place, y : y + crop, x : x + crop])
        crops = torch.from_numpy(np.stack(rows))[:, None]
        loss = torch.nn.functional.mse_loss(encoder(crops), crops)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return encoder.eval()


def conditions():
    return [
        (kind, severity) for kind, severities in SEVERITIES.items() for severity in severities if severity
    ]


def embedded(cache):
    """Condition → (plates, WELLS, d), standardised by the reference; kept in the cache."""
    file = cache / "embeddings.npz"
    if not file.exists():
        arms = simulated(cache)
        encoder = trained_encoder(arms.pop("training"))

        def embed(plates, change=None):
            return np.array(
                [[embed_image(encoder, change(x) if change else x) for x in plate] for plate in plates]
            )

        found = {arm: embed(plates) for arm, plates in arms.items()}
        for kind, severity in conditions():
            found[f"{kind} {severity}"] = embed(
                arms["drifted"], lambda x, k=kind, s=severity: corrupt(x, k, s, full_scale=65535)
            )
        np.savez(file, **found)
    with np.load(file) as found:
        rows = {name: found[name].astype(float) for name in found.files}
    known = rows["reference"].reshape(-1, rows["reference"].shape[-1])
    centre, spread = np.median(known, axis=0), known.std(axis=0)
    return {name: (values - centre) / spread for name, values in rows.items()}


def detector_of(rows, run_time, window):
    """A detector with the reference's plates as groups; made once."""
    key = (rows.tobytes(), run_time, window)
    if key not in DETECTORS:
        detector = DETECTORS[key] = OnlineMMD(run_time, window)
        detector.fit(rows.reshape(-1, rows.shape[-1]), groups=np.repeat(np.arange(len(rows)), rows.shape[1]))
    return DETECTORS[key]


def run_lengths(detector, plates, seed=0):
    """Wells to the first alarm of STREAMS streams, and each one's first plate.

    A stream takes LONGEST plates of the arm in random order, wells in random order; without an alarm its
    length is one more than their wells.
    """
    rng, wells = np.random.default_rng(seed), plates.shape[1]
    lengths, first = [], []
    for stream in range(STREAMS):
        rest = rng.permutation(len(plates))
        order = [stream % len(plates), *[place for place in rest if place != stream % len(plates)]]
        rows = np.concatenate([plates[place][rng.permutation(wells)] for place in order[:LONGEST]])
        detector.reset()
        alarm = len(rows) + 1
        for start in range(0, len(rows), 2 * wells):
            steps = detector.update_many(rows[start : start + 2 * wells])
            alarm = next((step.time for step in steps if step.drift), alarm)
            if alarm <= len(rows):
                break
        lengths.append(alarm)
        first.append(order[0])
    return np.array(lengths), np.array(first)


def auc(clean, drifted):
    """P(the drifted stream alarms before the clean one), ties half."""
    a, b = clean[:, None], drifted[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def by_plate(statistic, *samples, draws=500):
    """95 % interval of `statistic` over resampled plates; a sample is (values, plate of each)."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        picked = []
        for values, plates in samples:
            names = np.unique(plates)
            chosen = rng.choice(names, len(names))
            picked.append(np.concatenate([values[plates == name] for name in chosen]))
        found.append(statistic(*picked))
    return np.quantile(found, [0.025, 0.975])


def show_auc(what, rows, drifted, run_time, window, study):
    detector = detector_of(rows["reference"], run_time, window)
    clean, changed = run_lengths(detector, rows["clean"]), run_lengths(detector, rows[drifted])
    low, high = by_plate(auc, clean, changed)
    told = f"{study:.2f}" if study else "–"
    value, medians = auc(clean[0], changed[0]), [np.median(lengths) for lengths, _ in (changed, clean)]
    print(
        f"  {what:18s} AUC {value:.3f} [{low:.3f}, {high:.3f}]   study {told}   "
        f"median run length {medians[0]:.0f} (clean {medians[1]:.0f})",
        flush=True,
    )


def tables(rows):
    worst = f"defocus {SEVERITY}"
    print(f"Table 6: window; ERT {RUN_TIME}, {worst}")
    for window, study in STUDY["window"].items():
        show_auc(f"W = {window}", rows, worst, RUN_TIME, window, study)
    print(f"Table 7: expected run time; W = {W}, {worst}")
    for run_time, study in STUDY["run time"].items():
        show_auc(f"ERT = {run_time}", rows, worst, run_time, W, study)
    print(f"Table 8: severity; W = {W}, ERT {RUN_TIME}")
    for severity in (1, 2, 3, 4, 5):
        show_auc(
            f"defocus {severity}",
            rows,
            f"defocus {severity}",
            RUN_TIME,
            W,
            STUDY["severity"].get(severity),
        )
    show_auc("cells not fixed", rows, "unfixed", RUN_TIME, W, STUDY["unfixed"])


def share(most):
    return lambda lengths: float((lengths <= most).mean())


def power(rows):
    run_time = expected_run_time(WELLS)
    print(
        f"Power at an accepted 5 % a plate of {WELLS} wells (ERT {run_time:.0f}); {STREAMS} streams an arm, "
        "interval by plate"
    )
    shown = [f"defocus {severity}" for severity in (1, 2, 3, 4, 5)]
    shown += ["contrast 4", "contrast -4", "brightness 4", "brightness -4", "unfixed"]
    for window in (10, (2, 5, 10, 20)):
        detector = detector_of(rows["reference"], run_time, window)
        clean = run_lengths(detector, rows["clean"])
        low, high = by_plate(share(WELLS), clean)
        print(f"  W = {window}: clean plates alarming {share(WELLS)(clean[0]):.1%} [{low:.1%}, {high:.1%}]")
        for name in shown:
            found = run_lengths(detector, rows[name])
            low, high = by_plate(share(WELLS), found)
            within = ", ".join(f"{most} wells {share(most)(found[0]):.0%}" for most in (2, 4, WELLS))
            print(
                f"    {name:14s} alarm within {within} [{low:.0%}, {high:.0%}]; median delay "
                f"{np.median(found[0]):.0f} wells",
                flush=True,
            )


def offline(rows, repeats=20, n_x=20, n_y=4):
    """False negatives of the permutation test: n_y plates against n_x, whole plates permuted, at 5 %."""
    print(f"Offline: share not found at p ≤ 0.05, {n_y} plates against {n_x}, {repeats} repeats")
    for name in (one for one in rows if one not in ("reference", "drifted")):
        missed = {}
        for bandwidth in ("median", "aggregated"):
            rng = np.random.default_rng(1)
            values = []
            for repeat in range(repeats):
                x = rows["reference"][rng.permutation(len(rows["reference"]))[:n_x]]
                y = rows[name][rng.permutation(len(rows[name]))[:n_y]]
                groups = np.repeat(np.arange(n_x + n_y), WELLS)
                flat = [part.reshape(-1, part.shape[-1]) for part in (x, y)]
                test = mmd_permutation_test(
                    *flat, groups=groups, n_permutations=199, bandwidth=bandwidth, seed=repeat
                )
                values.append(test.p_value > 0.05)
            missed[bandwidth] = np.mean(values)
        text = ", ".join(f"{bandwidth} {value:.0%}" for bandwidth, value in missed.items())
        print(f"  {name:16s} {text}", flush=True)


SECTIONS = {f.__name__: f for f in (tables, power, offline)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="section", help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "drift-tables")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    rows = embedded(options.cache)
    for name in options.sections or SECTIONS:
        started = time.process_time()
        SECTIONS[name](rows)
        print(f"  ({name}: {time.process_time() - started:.0f} s of one core)", flush=True)


if __name__ == "__main__":
    main()
