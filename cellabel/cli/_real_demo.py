"""The demo on real images: one experiment trains, held-out positions are scored, the others follow."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from cellabel.cli._demo import Demo, running_demo
from cellabel.errors import InputError
from cellabel.evaluation import downstream_metrics
from cellabel.loop import plate_status, read_champions
from cellabel.settings import load_settings
from cellabel.stores import Home

__all__ = ["real_demo"]

PATTERN = r"^(?P<plate>[A-Za-z0-9]+)_(?P<position>p\d+)_t(?P<time>\d+)_z\d+_(?P<channel>bf|nuc)\.tif$"
NAME = re.compile(PATTERN)
PIXEL_SIZE_UM = 0.65
FIELD = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
METRICS = ("Nuclei_Count", "Nuclei_TotalArea", "Nuclei_TotalIntensity", "Nuclei_MeanIntensity")

SETTINGS: dict[str, Any] = {
    "organelles": ["nuclei"],
    "sensor_seconds": 5,
    "inbox": {"settle_seconds": 2},
    "models": {
        "min_labelled_plates": 1,
        "folds": 3,
        "report_fields": 0,
        "training": {
            "modality": "other",
            "max_steps": 550,
            "crop_size": 96,
            "foreground_share": 0.9,
            "losses": {"mse": 0.5, "batch_pcc": 1.0},
            "base_channels": 16,
            "depth": 3,
            "block": 2,
            "num_threads": 2,
        },
    },
    "promotion": {"min_plates": 1, "min_wells": 2},
}


def real_demo(console: Console, data: Path, *, fresh: bool = False) -> None:
    """Train nuclei on one experiment of a folder, score held-out positions, and predict the others.

    Raises:
        InputError: the folder holds no pairs of bright field and nuclei that are named as expected.
    """
    experiments = _experiments(data)
    home = load_settings().home.resolve() / data.resolve().name
    with running_demo(
        f"real images of {data.resolve()}", SETTINGS, fresh=fresh, console=console, home=home
    ) as demo:
        training, *others = [name for name, _ in experiments.most_common()]
        _story(demo, data, training, others)
        demo.wait_for_runs()
        demo.wait_for_alerts()
        console.print()
        _tell_scores(demo.home, console, training, others)
        console.print(
            f"\nOpen it: [bold]make up CELLABEL_HOME={home}[/bold] serves the Dagster UI and MLflow.",
            highlight=False,
        )


def _experiments(data: Path) -> Counter[str]:
    """Experiment → number of positions."""
    if not data.is_dir():
        raise InputError(f"There is no folder {data}: give the folder with the real images.")
    found = [match for path in sorted(data.iterdir()) if (match := NAME.match(path.name))]
    if not found:
        raise InputError(
            f"{data} holds no images named <experiment>_p<position>_t<time>_z<plane>_bf.tif with …_nuc.tif "
            f"beside "
            "them: name such a folder, or import yours with `cellabel import` and a layout.yaml."
        )
    return Counter(plate for plate, _ in {(match["plate"], match["position"]) for match in found})


def _story(demo: Demo, data: Path, training: str, others: list[str]) -> None:
    home = demo.home
    demo.tell(f"Dagster is starting over {home.settings.home}; its log: {demo.log}")
    _land(demo, data, training)
    demo.wait(f"plate {training}", partial(_accepted, home, training))
    demo.tell(f"{training} is in; training with positions left out, three folds and the model to keep …")
    demo.wait("the first champion", lambda: read_champions(home))
    demo.tell("nuclei has its first champion")
    demo.wait_for_predictions([training], read_champions(home))
    for name in others:
        _land(demo, data, name)
        demo.tell(f"{name} lands in the inbox as a new plate")
        demo.wait(f"plate {name}", partial(_accepted, home, name))
        demo.wait_for_predictions([name], read_champions(home))
        demo.wait(f"the drift verdict on {name}", partial(_verdict, home, name))
        status = plate_status(home, name)
        reasons = {found["reason"] for found in (status.verdict or {})["streams"].values() if found["reason"]}
        demo.tell(f"{name}: drift {status.drift}{': ' if reasons else ''}{'; '.join(sorted(reasons))}")


def _accepted(home: Home, plate: str) -> bool:
    return plate_status(home, plate).status == "accepted"


def _verdict(home: Home, plate: str) -> str:
    return plate_status(home, plate).drift


def _land(demo: Demo, data: Path, experiment: str) -> None:
    """Copy one experiment into the inbox, with the layout that says how its names are read."""
    if demo.has_landed(experiment):
        return
    scratch = demo.home.settings.home / "microscope" / experiment
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for path in sorted(data.iterdir()):
        match = NAME.match(path.name)
        if match and match["plate"] == experiment:
            shutil.copyfile(path, scratch / path.name)
    layout = {
        "pattern": PATTERN,
        "channels": {"bf": "transmitted", "nuc": "nuclei"},
        "plate_id": experiment,
        "instrument": data.resolve().parent.name,
        "pixel_size_um": PIXEL_SIZE_UM,
    }
    (scratch / "layout.yaml").write_text(yaml.safe_dump(layout))
    demo.land(scratch)


def _tell_scores(home: Home, console: Console, training: str, others: list[str]) -> None:
    from cellabel.loop import read_cross_validated
    from cellabel.organelles import organelle
    from cellabel.registry import ModelRegistry

    measured = read_cross_validated(ModelRegistry(home.settings.mlflow_tracking_uri), organelle("nuclei"))
    true, predicted = (measured[measured["side"] == side] for side in ("true", "predicted"))
    console.print(_scores(f"{training}, positions that were not trained on", true, predicted))
    pearson = predicted["pixel_pearson"]
    console.print(
        f"pixel Pearson {pearson.mean():.3f} ({pearson.min():.3f} to {pearson.max():.3f}), n = "
        f"{len(pearson)} fields "
        f"of {predicted['Metadata_Well'].nunique()} positions",
        highlight=False,
    )
    console.print(_count_error(true, predicted), highlight=False)
    for name in others:
        stained = home.tables.read("stained_fields", "nuclei", name)
        fields = home.tables.read("fields", "nuclei", name)
        console.print()
        console.print(_scores(f"{name}, another experiment, by the champion", stained, fields))
        console.print(_count_error(stained, fields), highlight=False)


def _scores(title: str, true: pd.DataFrame, predicted: pd.DataFrame) -> Table:
    agreement = downstream_metrics(true[[*FIELD, *METRICS]], predicted[[*FIELD, *METRICS]], by=FIELD)
    table = Table(title=f"{title}: predicted against stained, across fields", title_justify="left")
    for name in ("metric", "n", "Pearson", "95 % interval", "Spearman", "bias"):
        table.add_column(name)
    for row in agreement.itertuples():
        table.add_row(
            str(row.feature),
            str(row.n),
            f"{row.pearson:.3f}",
            f"{row.pearson_ci_lower:.2f} to {row.pearson_ci_upper:.2f}",
            f"{row.spearman:.3f}",
            f"{row.bias:.4g}",
        )
    return table


def _count_error(true: pd.DataFrame, predicted: pd.DataFrame) -> str:
    """Mean absolute error of the count, beside that of the best constant."""
    both = true[[*FIELD, "Nuclei_Count"]].merge(predicted[[*FIELD, "Nuclei_Count"]], on=FIELD)
    counts = both["Nuclei_Count_x"]
    error = (both["Nuclei_Count_y"] - counts).abs().mean() / counts.mean()
    constant = (counts - counts.median()).abs().mean() / counts.mean()
    return f"count: mean absolute error {error:.1%} of the mean count; the best constant's is {constant:.1%}"
