"""Speed and memory of OnlineMMD beside alibi-detect 0.13, both in one process.

alibi-detect pins old versions, so it lives in an environment of its own. From the project's root:

    uv venv /tmp/alibi
    uv pip install --python /tmp/alibi/bin/python --no-deps alibi-detect==0.13.0
    uv pip install --python /tmp/alibi/bin/python scipy scikit-learn pandas tqdm dill toml catalogue \
        pydantic requests matplotlib Pillow numba opencv-python-headless scikit-image "transformers<5" torch
    PYTHONPATH=. OMP_NUM_THREADS=1 /tmp/alibi/bin/python tests/benchmarks/drift_against_alibi.py

Prints a table: what, alibi-detect, cellabel, ratio, required.
"""

import argparse
import sys
import time
import warnings

import numpy as np

from cellabel.drift import OnlineMMD

WINDOW = 10
ERT = 128


def seconds(function, repeats):
    """Processor seconds of the fastest of `repeats` calls (a busy machine does not count); first result."""
    times, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        value = function()
        times.append(time.process_time() - start)
        result = value if result is None else result
    return min(times), result


def alibi(reference):
    warnings.simplefilter("ignore")
    from alibi_detect.cd import MMDDriftOnline

    return MMDDriftOnline(
        reference, ERT, WINDOW, backend="pytorch", n_bootstraps=1000, device="cpu", verbose=False
    )


def ours(reference):
    detector = OnlineMMD(ERT, WINDOW)
    detector.fit(reference)
    return detector


def compare(n, d, updates):
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(n, d)).astype(np.float32)
    stream = rng.normal(size=(updates, d)).astype(np.float32)
    ours(reference[: 4 * WINDOW])
    ours_fit, detector = seconds(lambda: ours(reference), 3)
    alibi_fit, peer = seconds(lambda: alibi(reference), 1)
    ours_update, _ = seconds(lambda: [detector.update(row) for row in stream[:2000]], 3)
    alibi_update, _ = seconds(lambda: [peer.predict(row) for row in stream[:2000]], 2)
    ours_block, _ = seconds(lambda: detector.update_many(stream), 3)
    rows = [
        ("calibration, s", alibi_fit, ours_fit, 50),
        ("one update, µs", alibi_update / 2000 * 1e6, ours_update / 2000 * 1e6, 4),
        ("an update in a block, µs", alibi_update / 2000 * 1e6, ours_block / updates * 1e6, 60),
    ]
    print(f"N = {n}, d = {d}, W = {WINDOW}, ERT = {ERT}")
    for what, theirs, own, required in rows:
        figures = f"alibi-detect {theirs:10.2f}   cellabel {own:8.3f}   ratio {theirs / own:7.1f}"
        print(f"  {what:28s} {figures}   ≥ {required}")
    return all(theirs / own >= required for _, theirs, own, required in rows)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[32])
    options = parser.parse_args()
    held = [compare(n, d, options.updates) for n in options.sizes for d in options.dimensions]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
