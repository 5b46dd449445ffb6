"""Recall of the true best tenth of clones on simulated plates: by scores, by count alone, by GFP alone.

With --cells the simulator's cells are summed up as they are, with the plates' and wells' stain yields and
densities, and nothing is imaged (--growth=3: clones' growth differs thrice as much); else plates are imaged,
and their stains segmented and measured. Truth is the mean log productivity of a clone over all its wells.
Run: python tests/benchmarks/ranking_recall.py [--cells [--growth=3]] [studies] [clones] [replicates] [plates]
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
from cellabel.simulation import FAMILIES, VARIANCE_COMPONENTS, simulate_plate
from cellabel.simulation import _cells as simulated_cells
from cellabel.simulation._cells import FieldBiology, draw_cells
from cellabel.simulation._clones import draw_clone

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


def drawn_study(seed: int, clones: int, replicates: int, plates: int, growth: float) -> pd.DataFrame:
    """Wells of one study from the cells that the simulator draws, without optics."""
    rng = np.random.default_rng(seed)
    physics, components = FAMILIES["a"], VARIANCE_COMPONENTS
    rows = []
    for plate in range(plates):
        for number in range(clones):
            clone = draw_clone(f"S{seed}-{number}", "sample", "a", physics)
            for _ in range(replicates):
                density = np.exp(components["density"].well * rng.normal() + growth * clone.log_growth)
                biology = FieldBiology(
                    400.0, 0.4 * density, 0.03, 0.07, 0.1, 0.9, 1.2, 0.0, physics.gfp_well_sd * rng.normal()
                )
                cells = draw_cells(rng, clone, biology, physics)
                alive = cells[cells["state"] != "dead"]
                gfp, er = (alive[name].mean() for name in ("gfp", "er"))
                hidden = clone.log_productivity + physics.productivity_noise[1] * rng.normal()
                yields = np.exp(components["stain_yield"].well * rng.normal(size=2) + 0.15 * plate)
                rows.append(
                    {
                        "Metadata_Plate": f"P{plate}",
                        "Metadata_Well": f"W{len(rows)}",
                        "Metadata_Clone": clone.name,
                        "Nuclei_Count": len(cells),
                        "Er_TotalIntensity": yields[0] * (cells["er"] * cells["area_um2"]).sum(),
                        "Gfp_TotalIntensity": yields[1] * (cells["gfp"] * cells["area_um2"]).sum(),
                        "Gfp_TotalArea": cells["area_um2"][cells["gfp"] > 0].sum(),
                        "productivity": np.exp(0.7 * np.log(gfp) + 0.5 * np.log(er) + hidden),
                    }
                )
    return pd.DataFrame(rows)


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


def main(
    studies: int, clones: int, replicates: int, plates: int, *, imaged: bool = True, growth: float = 1.0
) -> None:
    """Print the mean recall over studies of each way to rank."""
    rows = []
    if not imaged:
        # Where the cells lie does not matter here, and takes nearly all of the time.
        simulated_cells._place = lambda rng, radius, biology: (
            np.zeros((len(radius), 2)),
            np.zeros(len(radius)),
        )
        rows = [recall(drawn_study(seed, clones, replicates, plates, growth)) for seed in range(studies)]
        studies = 0
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
    print(f"{len(rows)} studies of {clones} clones, {replicates} replicates on {plates} plates, mean recall:")
    found = pd.DataFrame(rows)
    for name in found:
        error = found[name].std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
        print(f"| {name} | {found[name].mean():.2f} ± {error:.2f} |")


if __name__ == "__main__":
    drawn = "--cells" in sys.argv
    growths = [float(value[9:]) for value in sys.argv if value.startswith("--growth=")]
    given = [int(value) for value in sys.argv[1:] if not value.startswith("--")]
    default = [25, 40, 2, 2] if drawn else [3, 40, 1, 2]
    main(*(given + default[len(given) :]), imaged=not drawn, growth=(growths or [1.0])[0])
