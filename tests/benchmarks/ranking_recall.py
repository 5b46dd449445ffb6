"""Recall of the true best tenth of clones on simulated plates: by scores, by count alone, by GFP alone.

Plates are simulated and imaged, their stains segmented and measured; truth is the mean log productivity of a
clone over all its wells.
Run: python tests/benchmarks/ranking_recall.py [studies] [clones] [replicates] [plates]
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from cellabel.measurement import Layer, join_cells, measure_field, measure_well
from cellabel.organelles import organelle
from cellabel.preprocessing import subtract_background
from cellabel.segmentation import segment
from cellabel.selection import rank_clones, score_wells
from cellabel.simulation import simulate_plate

STAINS = ("nuclei", "er", "gfp")
PIXEL_UM = 0.65
SCORES: dict[str, str | dict[str, float]] = {
    "GFP a cell, pooled": "gfp_per_cell",
    "GFP per ER mass, pooled": "gfp_per_er",
    "GFP a cell and half ER a cell, pooled": {"gfp_per_cell": 1.0, "er_per_cell": 0.5},
    "GFP area a cell, pooled": "gfp_area_per_cell",
}
ALONE = {"count alone": "Nuclei_Count", "total GFP alone": "Gfp_TotalIntensity"}


def measured_plate(folder: Path, plate: str, seed: int, clones: int, wells: int) -> pd.DataFrame:
    """Wells of a simulated plate: what is measured on its stains, with clone and true productivity."""
    simulate_plate(
        folder, plate_id=plate, wells=wells, sites=1, size=256, seed=seed, stains=STAINS, preset="10x",
        clones=clones, parental=0, reference=0, blanks=0, workers=1,
    )  # fmt: skip
    truth = pd.read_csv(folder / "truth" / "wells.csv")
    rows = []
    for well in truth["Metadata_Well"]:
        layers = {}
        for number, stain in enumerate(STAINS, start=2):
            image = tifffile.imread(folder / f"{plate}_{well}_s1_w{number}.tif")
            radius = float(organelle(stain).preprocessing[0].parameters["radius_um"]) / PIXEL_UM
            layers[stain] = Layer(subtract_background(image, radius), segment(image, stain))
        cells = join_cells(layers)
        parts = [measure_field(part.labels, part.image, organelle=name) for name, part in layers.items()]
        row = pd.concat(parts, axis=1).assign(Metadata_Plate=plate, Metadata_Well=well)
        for stain in ("Er", "Gfp"):  # of all cells, whatever was segmented as an object of the stain
            row[f"{stain}_TotalIntensity"] = cells.table[f"Cells_Intensity_IntegratedIntensity_{stain}"].sum()
        rows.append(row)
    table = measure_well(pd.concat(rows, ignore_index=True))
    return table.merge(truth[["Metadata_Well", "clone", "productivity"]]).rename(
        columns={"clone": "Metadata_Clone"}
    )


def recall(table: pd.DataFrame) -> dict[str, float]:
    """Share of the true best tenth among as many best ones by each score."""
    truth = np.log(table["productivity"].clip(lower=1e-9)).groupby(table["Metadata_Clone"]).mean()
    k = max(1, round(0.1 * len(truth)))
    best = set(truth.nlargest(k).index)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, score in SCORES.items():
            ranked = rank_clones(table, score=score, draws=500)
            found[name] = len(best & set(ranked["Metadata_Clone"].head(k))) / k
    for name, column in ALONE.items():
        means = score_wells(table, column).groupby(table["Metadata_Clone"]).mean()
        found[name] = len(best & set(means.nlargest(k).index)) / k
    return found


def main(studies: int, clones: int, replicates: int, plates: int) -> None:
    """Print the mean recall over studies of each way to rank."""
    rows = []
    for study in range(studies):
        with tempfile.TemporaryDirectory() as scratch:
            parts = [
                measured_plate(
                    Path(scratch) / f"P{n}", f"P{n}", 1000 * study + n, clones, clones * replicates
                )
                for n in range(plates)
            ]
        rows.append(recall(pd.concat(parts, ignore_index=True)))
        print(f"study {study + 1}: " + ", ".join(f"{name} {value:.2f}" for name, value in rows[-1].items()))
    print(f"{studies} studies of {clones} clones, {replicates} replicates on {plates} plates, mean recall:")
    for name, value in pd.DataFrame(rows).mean().items():
        print(f"| {name} | {value:.2f} |")


if __name__ == "__main__":
    given = [int(value) for value in sys.argv[1:]]
    main(*(given + [3, 40, 1, 2][len(given) :]))
