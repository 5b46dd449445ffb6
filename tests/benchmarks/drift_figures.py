"""The figures that the online drift detector has to hold, measured.

    OMP_NUM_THREADS=1 .venv/bin/python tests/benchmarks/drift_figures.py [section …]

Prints a table: figure, required, measured. All sections take some minutes of one core. Data are standard
normal, N = 1000, d = 32, W = 10, expected run time 128, unless the row says otherwise.
"""

import argparse
import sys
import time
import tracemalloc
from datetime import UTC, datetime, timedelta

import numpy as np

from cellabel.drift import (
    InstrumentWatch,
    OnlineMMD,
    PlateObservation,
    StreamBank,
    expected_run_time,
    leave_plate_out_margin,
)

ERT, N, D, W = 128, 1000, 32, 10
FAILED = []


def row(figure, required, measured, held):
    print(f"{'  ' if held else '! '}{figure:66s} {required:>16s}   {measured}", flush=True)
    if not held:
        FAILED.append(figure)


def normal(rng, n, d=D):
    return rng.normal(size=(n, d))


def first_alarm(detector, sampler, rng, limit, block=128):
    """Ticks to the first alarm on what `sampler` gives, `limit` + 1 where there is none."""
    start = detector.time
    while detector.time - start < limit:
        for step in detector.update_many(sampler(rng, min(block, limit - (detector.time - start)))):
            if step.drift:
                return step.time - start
    return limit + 1


def run_lengths(detector, sampler, rng, n, limit=100 * ERT):
    lengths = []
    for _ in range(n):
        detector.reset()
        lengths.append(first_alarm(detector, sampler, rng, limit))
    return np.array(lengths)


def fitted(seed, **options):
    rng = np.random.default_rng(10_000 + seed)
    detector = OnlineMMD(options.pop("ert", ERT), options.pop("window", W), seed=seed, **options)
    detector.fit(normal(rng, N))
    return detector, rng


def promise():
    """Run length over 20 references, each with 100 runs, and hazard by age over 10,000 runs and more."""
    lengths = np.array([run_lengths(*_swap(fitted(seed)), n=500) for seed in range(20)])
    few = lengths[:, :100]
    mean = few.mean()
    row("mean run length, 20 references × 100 runs", "113 … 143", f"{mean:.1f}", 113 <= mean <= 143)
    spread = np.sqrt(max(0.0, lengths.mean(axis=1).var(ddof=1) - (lengths.var(axis=1, ddof=1) / 500).mean()))
    row("between-detector standard deviation (500 runs each)", "≤ 10", f"{spread:.1f}", spread <= 10)
    cv = lengths.std() / lengths.mean()
    row("coefficient of variation", "0.92 … 1.08", f"{cv:.3f}", 0.92 <= cv <= 1.08)
    hazards = []
    for low in range(0, 4 * ERT, 32):
        alarms = ((lengths > low) & (lengths <= low + 32)).sum()
        hazards.append(alarms / np.clip(lengths - low, 0, 32).sum() * ERT)
    text = f"{min(hazards):.2f} … {max(hazards):.2f} ({lengths.size} runs, ages 0 … {4 * ERT})"
    row(
        "hazard × ERT in bins of 32 ticks", "0.78 … 1.22", text, min(hazards) >= 0.78 and max(hazards) <= 1.22
    )
    early = (lengths <= W).mean()
    row("alarm within the first W ticks, after reset", "5.5 … 9.5 %", f"{early:.1%}", 0.055 <= early <= 0.095)


def _swap(pair):
    detector, rng = pair
    return detector, normal, rng


def delays(change, clean, runs=60, references=8, limit=400, **options):
    """Mean ticks from the change to the first alarm, runs that alarmed before it left out."""
    found = []
    for seed in range(references):
        detector, rng = fitted(seed, **options)
        while len(found) < (seed + 1) * runs:
            detector.reset()
            if any(step.drift for step in detector.update_many(normal(rng, clean))):
                continue
            found.append(first_alarm(detector, lambda g, n: change(normal(g, n)), rng, limit, block=16))
    return float(np.mean(found))


def shift(size):
    direction = np.ones(D) / np.sqrt(D)
    return lambda rows: rows + size * direction


def power():
    for size, most in [(1, 27.5), (2, 8.3), (3, 6.0), (4, 4.9)]:
        mean = delays(shift(size), 32)
        row(f"delay, mean shift of norm {size} at t = 32", f"≤ {most}", f"{mean:.2f}", mean <= most)
    for size, most in [(3, 4.5), (4, 3.5), (6, 2.6)]:
        mean = delays(shift(size), 0)
        row(f"delay, mean shift of norm {size} from the first tick", f"≤ {most}", f"{mean:.2f}", mean <= most)
    mean = delays(lambda rows: 0.7 * rows, 32)
    row("delay, collapse to × 0.7 at t = 32", "≤ 13", f"{mean:.2f}", mean <= 13)


def windows():
    """Several windows jointly are within a quarter of the best single one, everywhere."""
    several = (2, 3, 5, 10, 20, 40)
    for name, change in [("norm 1", shift(1)), ("norm 2", shift(2)), ("norm 4", shift(4))]:
        single = {w: delays(change, 60, runs=25, references=4, window=w) for w in (5, 10, 20)}
        joint = delays(change, 60, runs=25, references=4, window=several)
        best = min(single, key=single.get)
        text = f"{joint:.2f} against {single[best]:.2f} (W = {best})"
        row(f"windows {several}, {name}: delay", "≤ 1.25 × best", text, joint <= 1.25 * single[best])


def dated():
    """Change times within 3 ticks of the truth at the first alarm."""
    for size, least in [(2, 0.75), (3, 0.94)]:
        near = []
        for seed in range(8):
            detector, rng = fitted(seed)
            for _ in range(50):
                detector.reset()
                if any(step.drift for step in detector.update_many(normal(rng, 32))):
                    continue
                steps = detector.update_many(shift(size)(normal(rng, 200)))
                near.append(abs(next(s.change_time for s in steps if s.drift) - 33) <= 3)
        share = np.mean(near)
        row(
            f"change time within ± 3 ticks, shift {size}",
            f"about {least:.0%}",
            f"{share:.0%}",
            share >= least - 0.06,
        )


def groups():
    """Tiles of wells, 9 a well, 111 wells: the real run length with the wells as groups."""
    for correlation in (0.1, 0.3, 0.6):

        def tiles(rng, n, rho=correlation):
            offsets = np.repeat(normal(rng, -(-n // 9)), 9, axis=0)[:n]
            return np.sqrt(rho) * offsets + np.sqrt(1 - rho) * normal(rng, n)

        lengths = []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            detector = OnlineMMD(ERT, W, seed=seed)
            detector.fit(tiles(rng, 999), groups=np.repeat(np.arange(111), 9))
            lengths.append(run_lengths(detector, lambda g, n: tiles(g, 9 * (n // 9 + 1))[:n], rng, 40).mean())
        mean = np.mean(lengths)
        text = f"{mean:.0f} (references {min(lengths):.0f} … {max(lengths):.0f})"
        row(f"correlated tiles, ρ = {correlation}: run length", "80 … 260", text, 80 <= mean <= 260)


def plates():
    """Share of clean plates that alarm at an accepted 5 % a plate, plates as groups of the calibration."""
    clean_plates([(20, 20, 1)])


def plate_family():
    """As `plates`, for the five streams of an instrument, which share the accepted 5 %."""
    clean_plates([(20, 20, 5)])


def few_plates():
    """As `plates`, where the margin from leaving each of a few reference plates out widens the thresholds."""
    clean_plates([(3, 5, 1), (5, 5, 1), (10, 5, 1)])


def clean_plates(cases, wells=24, d=16):
    """By the functions that the loop calls; the upper bound is clustered by reference."""
    for n_reference, references, n_streams in cases:
        for icc in (0.0, 0.02, 0.05):
            shares = np.array(
                [clean_share(seed, n_reference, icc, n_streams, wells, d) for seed in range(references)]
            )
            upper = shares.mean() + student(references) * shares.std(ddof=1) / np.sqrt(references)
            promised = n_reference >= 19
            case = f"G = {n_reference}, ICC {icc}, {n_streams} stream(s), {references} × 100"
            row(
                f"clean plates alarming, {case}",
                "bound ≤ 8 %" if promised else "reported",
                f"{shares.mean():.1%}, upper bound {upper:.1%}",
                upper <= 0.08 or not promised,
            )


def student(n):
    """Upper 5 % point of Student's t of n − 1 degrees of freedom."""
    from scipy.stats import t

    return t.ppf(0.95, n - 1)


def clean_share(seed, n_reference, icc, n_streams, wells, d, n_plates=100):
    """Share of clean plates on which any of the streams of one instrument alarms."""
    rng = np.random.default_rng(seed)
    run_time = n_streams * expected_run_time(wells)

    def plate():
        return np.sqrt(1 - icc) * rng.normal(size=(wells, d)) + np.sqrt(icc) * rng.normal(size=d)

    names = np.repeat([f"R{number}" for number in range(n_reference)], wells)
    watch = InstrumentWatch("scope")
    for stream in range(n_streams):
        rows = np.concatenate([plate() for _ in range(n_reference)])
        detector, margin = OnlineMMD(run_time, W, seed=seed), 1.0
        if n_reference >= 19:
            detector.fit(rows, groups=names)
        else:
            detector.fit(rows)
            margin = leave_plate_out_margin(rows, names, expected_run_time=run_time, seed=seed)
        watch.start_epoch(f"stream {stream}", detector, "figures", "1", margin=margin)
    labels = [f"A{number:02d}" for number in range(1, wells + 1)]
    alarms = 0
    for number in range(n_plates):
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)
        rows = {f"stream {stream}": (labels, plate()) for stream in range(n_streams)}
        alarms += watch.tick(PlateObservation(f"P{number}", moment, moment, rows)).drift
    return alarms / n_plates


def family(n_streams=4, references=5, runs=200):
    """A bank keeps one promise for all of its streams, independent or alike."""
    for correlation in (0.0, 0.8):
        lengths = []
        for seed in range(references):
            rng = np.random.default_rng(seed)
            bank = StreamBank([f"s{stream}" for stream in range(n_streams)], ERT, W, seed=seed)

            def rows(n, rng=rng, bank=bank, correlation=correlation):
                common = normal(rng, n)
                return {
                    name: np.sqrt(correlation) * common + np.sqrt(1 - correlation) * normal(rng, n)
                    for name in bank
                }

            bank.fit(rows(N))
            for _ in range(runs):
                bank.reset()
                lengths.append(first_of_family(bank, rows))
        mean, error = np.mean(lengths), np.std(lengths) / np.sqrt(len(lengths))
        required, held = ("113 … 143", 113 <= mean <= 143) if correlation == 0.0 else ("≥ 113", mean >= 113)
        text = f"{mean:.1f} ± {error:.1f} ({len(lengths)} runs)"
        row(f"family of {n_streams} streams, correlation {correlation}: run length", required, text, held)


def first_of_family(bank, rows, block=64):
    while True:
        steps = bank.update_many(rows(block)).values()
        alarms = [step.time for stream in steps for step in stream if step.drift]
        if alarms:
            return min(alarms)


def intervals(references=50, runs=20):
    """The reported interval of the run length covers the true one."""
    for n, run_time, d in [(48, 1870, 32), (96, 1870, 32), (100, 128, 4)]:
        covered, true = 0, []
        for seed in range(references):
            rng = np.random.default_rng(seed)
            detector = OnlineMMD(run_time, W, seed=seed)
            low, high = detector.fit(normal(rng, n, d)).run_length.ci
            lengths = run_lengths(
                detector, lambda g, k, d=d: normal(g, k, d), rng, runs, limit=int(20 * run_time)
            )
            true.append(lengths.mean())
            covered += low <= true[-1] <= high
        text = f"{covered / references:.0%} (true run lengths {min(true):.0f} … {max(true):.0f})"
        row(f"interval covers, N = {n}, ERT {run_time}, d = {d}", "≥ 90 %", text, covered / references >= 0.9)


def cost():
    rng = np.random.default_rng(0)
    for n in (1000, 2000):
        reference = normal(rng, n)
        detector = OnlineMMD(ERT, W)
        tracemalloc.start()
        started = time.process_time()
        detector.fit(reference)
        seconds = time.process_time() - started
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        most = 12 * n**2 + 100e6
        row(
            f"memory of fit, N = {n} (12 N² + 100 MB)",
            f"≤ {most / 1e6:.0f} MB",
            f"{peak / 1e6:.0f} MB",
            peak <= most,
        )
        row(f"seconds of one core for fit, N = {n} (traced)", "≤ 2", f"{seconds:.2f}", seconds <= 2)
    detector, rng = fitted(0)
    rows = normal(rng, 1000)
    for i in range(2000):
        detector.update(rows[i % 1000], id=f"warm/{i}")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    times = np.empty(100_000)
    for i in range(len(times)):
        started = time.process_time_ns()
        detector.update(rows[i % 1000], id=f"P/{i}")
        times[i] = time.process_time_ns() - started
    growth = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    first, last = np.median(times[:10_000]) / 1e3, np.median(times[-10_000:]) / 1e3
    row("growth over 100,000 updates with ids", "≤ 5 MB", f"{growth / 1e6:.2f} MB", growth <= 5e6)
    row(
        "latency, first and last tenth of 100,000 (traced)",
        "flat",
        f"{first:.0f} and {last:.0f} µs",
        last <= 1.25 * first,
    )


def refusals():
    from cellabel.errors import InputError

    detector, rng = fitted(0)
    state = detector.state_dict()["checksum"]
    good = normal(rng, N)
    hole = good.copy()
    hole[500, 3] = np.nan
    slowest = 0.0
    for bad in (hole, np.ones((N, D)), good[:18], good[:, 0], hole * np.inf):
        started = time.process_time()
        try:
            detector.fit(bad)
            FAILED.append("refusal")
        except InputError:
            slowest = max(slowest, time.process_time() - started)
    held = detector.state_dict()["checksum"] == state
    row(
        "slowest refusal, state unchanged",
        "< 2 s",
        f"{slowest:.3f} s, unchanged: {held}",
        slowest < 2 and held,
    )


SECTIONS = {
    f.__name__: f
    for f in (
        promise,
        power,
        dated,
        windows,
        groups,
        family,
        plates,
        plate_family,
        few_plates,
        intervals,
        cost,
        refusals,
    )
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="section", help=f"some of {', '.join(SECTIONS)}")
    chosen = parser.parse_args().sections or list(SECTIONS)
    for name in chosen:
        started = time.process_time()
        SECTIONS[name]()
        print(f"  ({name}: {time.process_time() - started:.0f} s of one core)", flush=True)
    sys.exit(1 if FAILED else 0)


if __name__ == "__main__":
    main()
