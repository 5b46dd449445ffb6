"""Nuclei from real bright field: pixel Pearson and count error on positions that were not trained on.

    python tests/benchmarks/real_nuclei.py [--experiment 210930MA20] [--other 181024TK20] [--folds 3]
        [setting=value …]

Folds that leave positions out, then a model that is tested on the other experiment (0 folds: that alone). A
count error is judged against the best constant predictor, which is told the median count of these very
fields; a pixel Pearson against what someone would reach who knows every nucleus' outline, and someone who
knows its mean brightness too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from scipy import ndimage

from cellabel.datasets import build_dataset
from cellabel.networks import OrganelleModel
from cellabel.prediction import predict_image, segment_prediction
from cellabel.preprocessing import prepare_target
from cellabel.segmentation import segment
from cellabel.training import TrainingConfig, train

DATA = Path(os.environ.get("CELLABEL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
PIXEL_SIZE_UM = 0.65
BLURS = (0.7, 1.0, 1.5, 2.0)
ROLES = {"transmitted": "bf", "nuclei": "nuc"}


@dataclass
class RealField:
    """One time point of a position."""

    stem: str
    roles: tuple[str, ...] = tuple(ROLES)

    def image(self, role: str, plane: str = "middle") -> np.ndarray:
        return tifffile.imread(f"{self.stem}_{ROLES[role]}.tif")


@dataclass
class Position:
    """A position stands for a well: its time points are one place."""

    fields: dict[int, RealField] = field(default_factory=dict)


@dataclass
class Experiment:
    """All fields of one experiment, in the form of a plate."""

    plate_id: str
    content_hash: str = "real"
    pixel_size_um: float | None = PIXEL_SIZE_UM
    plan: pd.DataFrame | None = None
    wells: dict[str, Position] = field(default_factory=dict)

    @property
    def quarantined(self) -> pd.DataFrame:
        return pd.DataFrame(columns=["Metadata_Well", "Metadata_Site", "reason"])


def open_experiment(name: str, folder: Path) -> Experiment:
    """The fields `<name>_p<position>_t<time>_z001_bf.tif` with their nuclei."""
    experiment = Experiment(name)
    for path in sorted(folder.glob(f"{name}_p*_bf.tif")):
        found = re.search(r"_p(\d+)_t(\d+)_", path.name)
        position = experiment.wells.setdefault(f"A{int(found[1]):02d}", Position())
        position.fields[int(found[2])] = RealField(str(path).removesuffix("_bf.tif"))
    return experiment


def scored(model: OrganelleModel, field: RealField) -> tuple[float, float, float, int, int]:
    """Pixel Pearson of a field, what two oracles reach, and the nuclei of its stain and of the prediction."""
    stain = field.image("nuclei")
    true = prepare_target(stain, "nuclei", pixel_size_um=PIXEL_SIZE_UM)
    predicted = predict_image(model, field.image("transmitted")) * model.target_scale
    pearson = float(np.corrcoef(predicted.ravel(), true.ravel())[0, 1])
    counted = segment(stain, "nuclei", pixel_size_um=PIXEL_SIZE_UM).max()
    found = segment_prediction(predicted, model, pixel_size_um=PIXEL_SIZE_UM).max()
    return pearson, *oracles(true), int(counted), int(found)


def oracles(stain: np.ndarray) -> tuple[float, float]:
    """Pearson with a stain of its own nuclei, filled alike, and filled each with its mean; the best blur's.

    What they lack is the nuclei's texture, and what is bright without being a nucleus.
    """
    labels = segment(stain, "nuclei", pixel_size_um=PIXEL_SIZE_UM)
    means = np.append(0.0, ndimage.mean(stain, labels, np.arange(1, labels.max() + 1)))
    alike, own = ((labels > 0).astype(float), means[labels])
    alike_r, own_r = (
        max(float(np.corrcoef(ndimage.gaussian_filter(one, s).ravel(), stain.ravel())[0, 1]) for s in BLURS)
        for one in (alike, own)
    )
    return alike_r, own_r


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="210930MA20")
    parser.add_argument("--other", help="the experiment that a model of this one is tested on")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("settings", nargs="*", help="training settings, name=value (JSON)")
    arguments = parser.parse_args()
    folder = DATA / "aisegcell" / "fig10"
    if not folder.is_dir():
        sys.exit(f"The real images are not at {folder}; set CELLABEL_TEST_DATA.")
    settings = dict(pair.split("=", 1) for pair in arguments.settings)
    config = TrainingConfig(modality="other", **{name: _value(text) for name, text in settings.items()})
    experiment = open_experiment(arguments.experiment, folder)
    dataset = build_dataset([experiment], "nuclei", folds=arguments.folds or None)
    start, cpu, rows = time.perf_counter(), time.process_time(), []
    for index in range(arguments.folds):
        fold = dataset.fold(index)
        model = train(fold, config).model
        for sample in fold.test:
            told = scored(model, experiment.wells[sample.well].fields[sample.site])
            rows.append((index, sample.well, sample.site, *told))
        mean = np.mean([row[3] for row in rows if row[0] == index])
        print(f"fold {index + 1}: Pearson {mean:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    if rows:
        report(rows, time.perf_counter() - start, time.process_time() - cpu)
    if arguments.other is None:
        return
    start, cpu = time.perf_counter(), time.process_time()
    model = train(dataset, config).model
    wells = open_experiment(arguments.other, folder).wells
    fields = [(well, site, one) for well, position in wells.items() for site, one in position.fields.items()]
    print(f"trained on {arguments.experiment} without {dataset.held_out}, tested on {arguments.other}:")
    rows = [(0, well, site, *scored(model, one)) for well, site, one in fields]
    report(rows, time.perf_counter() - start, time.process_time() - cpu)


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def report(rows: list[tuple[Any, ...]], seconds: float, cpu_seconds: float) -> None:
    """Prints one row a field and what it comes to."""
    names = ["fold", "position", "time", "pearson", "outlines", "and_means", "count", "predicted_count"]
    table = pd.DataFrame(rows, columns=names)
    print(table.to_string(index=False, float_format="%.3f"))
    errors = (table["predicted_count"] - table["count"]).abs()
    best_constant = (table["count"] - table["count"].median()).abs().mean()
    positions = table.groupby("position")["pearson"].mean()
    print(
        json.dumps(
            {
                "fields": len(table),
                "positions": len(positions),
                "pearson_mean": round(float(table["pearson"].mean()), 4),
                "pearson_range": [
                    round(float(table["pearson"].min()), 4),
                    round(float(table["pearson"].max()), 4),
                ],
                "oracle_of_outlines": round(float(table["outlines"].mean()), 4),
                "oracle_of_outlines_and_means": round(float(table["and_means"].mean()), 4),
                "pearson_position_sd": round(float(positions.std()), 4),
                "count_mean_absolute_error": round(float(errors.mean()), 2),
                "count_error_share": round(float(errors.mean() / table["count"].mean()), 4),
                "best_constant_error": round(float(best_constant), 2),
                "seconds": round(seconds),
                "cpu_seconds": round(cpu_seconds),
            }
        )
    )


if __name__ == "__main__":
    main()
