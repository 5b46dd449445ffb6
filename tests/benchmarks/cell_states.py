"""Cell flags against the simulator's truth: fits the weights of the state models, and judges them.

Fitted on stained plates of family a, judged on plates of family b (other optics, yields and plates).
Run: python tests/benchmarks/cell_states.py [--fit]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from cellabel.measurement import Layer, join_cells, state_features, state_probabilities
from cellabel.measurement._states import BODILESS, BODILY
from cellabel.organelles import organelle
from cellabel.preprocessing import prepare_target
from cellabel.segmentation import segment
from cellabel.simulation import simulate_plate

STAINS = ("nuclei", "er")
PIXEL_UM = 0.65


def plate_cells(family: str, seed: int, dead: float, wells: int = 5, size: int = 320) -> pd.DataFrame:
    """Joined cells of a stained plate, with the true state of the cells that each holds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "plate"
        simulate_plate(
            folder, plate_id="S", wells=wells, sites=1, size=size, seed=seed, stains=STAINS, preset="10x",
            family=family, dead=dead, confluence=0.35 + 0.05 * (seed % 5), clone_offset=10 * seed, workers=1,
        )  # fmt: skip
        truth = pd.read_csv(folder / "truth" / "cells.csv")
        parts = []
        for well, here in truth.groupby("Metadata_Well"):
            stem = f"S_{well}_s1"
            layers = {}
            for number, stain in enumerate(STAINS, start=2):
                image = tifffile.imread(folder / f"{stem}_w{number}.tif")
                target = prepare_target(image, organelle(stain), pixel_size_um=PIXEL_UM)
                layers[stain] = Layer(target, segment(image, stain, pixel_size_um=PIXEL_UM))
            table = join_cells(layers, pixel_size_um=PIXEL_UM).table
            nuclei = tifffile.imread(folder / "truth" / f"{stem}_nuclei.tif")
            parts.append(_with_truth(table, layers["nuclei"].labels, nuclei, here).assign(well=well))
        return pd.concat(parts, ignore_index=True).assign(plate=f"{family}{seed}")


def _with_truth(
    table: pd.DataFrame, found: np.ndarray, true: np.ndarray, cells: pd.DataFrame
) -> pd.DataFrame:
    """The state of the true nucleus that covers most of each object; doublet also where it covers two."""
    n, m = int(found.max()), int(true.max())
    joint = np.bincount(found.ravel().astype(np.int64) * (m + 1) + true.ravel(), minlength=(n + 1) * (m + 1))
    joint = joint.reshape(n + 1, m + 1)[1:, 1:]
    best = joint.argmax(axis=1)
    known = cells.set_index("label").reindex(best + 1).reset_index(drop=True)
    halves = (joint > 0.3 * joint.sum(axis=1, keepdims=True)).sum(axis=1) > 1
    true_state = np.where(known["dead"], "dead", np.where(known["mitotic"], "mitotic", "live"))
    table = table.assign(state=true_state, doublet=known["doublet"].fillna(False).to_numpy(bool) | halves)
    return table[joint.max(axis=1) > 0]


def fit(cells: pd.DataFrame, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Weights for features, squares and 1."""
    features = pd.concat([state_features(part) for _, part in cells.groupby("plate")])
    values = features.loc[cells.index, list(names)].to_numpy()
    design = np.hstack([values, values**2])
    states = LogisticRegression(C=0.3, max_iter=5000).fit(design, cells["state"])
    rows = {
        name: np.append(weights, offset)
        for name, weights, offset in zip(states.classes_, states.coef_, states.intercept_, strict=True)
    }
    pairs = LogisticRegression(C=0.3, max_iter=5000).fit(design, cells["doublet"])
    return {
        "dead": rows["dead"] - rows["live"],
        "mitotic": rows["mitotic"] - rows["live"],
        "doublet": np.append(pairs.coef_[0], pairs.intercept_[0]),
    }


def show_fit() -> None:
    """Print the weights."""
    shares = (0.04, 0.08, 0.12, 0.16, 0.2)
    plates = [plate_cells("a", seed, dead) for seed, dead in enumerate(shares, 1)]
    cells = pd.concat(plates, ignore_index=True)
    print(f"# {len(cells)} cells on {len(plates)} plates: {cells['state'].value_counts().to_dict()}")
    for name, features in (("bodily", BODILY), ("bodiless", BODILESS)):
        table = cells
        print(f'    "{name}": StateModel(\n        features={name.upper()},')
        for key, row in fit(table, features).items():
            print(f"        {key}=({', '.join(f'{value:.3f}' for value in row)}),")
        print("    ),")


def judge() -> None:
    """Print how well the probabilities of the installed weights tell the states on family b."""
    for family, seeds in (("a", (21, 22)), ("b", (31, 32))):
        parts = [
            plate_cells(family, seed, dead) for seed, dead in zip(seeds, (0.05, 0.12, 0.02), strict=False)
        ]
        for bodily in (True, False):
            told = []
            for part in parts:
                drop = [] if bodily else [c for c in part if c.endswith("_Er")]
                told.append(state_probabilities(part.drop(columns=drop)).add_prefix("p_"))
            found = pd.concat(told, ignore_index=True)
            true = pd.concat(parts, ignore_index=True)
            words = []
            for state in ("dead", "mitotic", "doublet"):
                is_one = true["doublet"] if state == "doublet" else true["state"] == state
                auc = roc_auc_score(is_one, found[f"p_{state}"])
                brier = brier_score_loss(is_one, found[f"p_{state}"])
                words.append(
                    f"{state}: AUC {auc:.3f}, Brier {brier:.3f} (share {is_one.mean():.3f}, "
                    f"told {found[f'p_{state}'].mean():.3f})"
                )
            stains = "nuclei + er" if bodily else "nuclei"
            print(f"family {family}, {stains}, n = {len(true)}: {'; '.join(words)}")
            print(
                "   calibration of dead:",
                np.round(_calibration(found["p_dead"], true["state"] == "dead"), 3).tolist(),
            )


def _calibration(told: pd.Series, true: pd.Series) -> np.ndarray:
    """Mean probability and share in four bins of probability."""
    bins = pd.cut(told, [0, 0.1, 0.5, 0.9, 1.0], include_lowest=True)
    table = pd.DataFrame({"told": told, "true": true.to_numpy()}).groupby(bins, observed=True).mean()
    return table.to_numpy(float)


if __name__ == "__main__":
    show_fit() if "--fit" in sys.argv else judge()
