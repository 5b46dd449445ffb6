"""A new organelle is one entry: the loop's steps take it from an export to its tables."""

import json

import numpy as np
import tifffile

from cellabel.loop import build_current_dataset, measure_prediction, store_prediction, take_in
from cellabel.networks import load_model
from cellabel.organelles import ORGANELLES, Organelle, Step
from cellabel.plates import open_plate
from cellabel.training import TrainingConfig, train

WELLS = tuple(f"{row}0{column}" for row in "AB" for column in (1, 2))
SIZE = 64
MITOCHONDRIA = Organelle(
    name="mitochondria",
    prefix="Mitochondria",
    description="Mitochondria: where the cell's energy is made.",
    stains=("mitochondria", "MitoTracker"),
    target="continuous",
    preprocessing=(Step("subtract_background", {"radius_um": 20.0}),),
    losses={"mse": 1.0},
    segmentation=(
        Step("normalise", {"smoothing_um": 0.65}),
        Step("global_threshold", {"method": "otsu"}),
        Step("separate", {"min_area_um2": 1.0}),
    ),
    primary_metrics=("Mitochondria_Count", "Mitochondria_TotalArea"),
    plausible={"Mitochondria_Count": (0, 1000)},
)


def export(folder, plate, seed):
    """Four wells of transmitted light in which bright threads are mitochondria."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[:SIZE, :SIZE]
    for number, well in enumerate(WELLS):
        random = np.random.default_rng(100 * seed + number)
        threads = sum(
            np.exp(-((y - cy) ** 2) / 8 - (x - cx) ** 2 / 60) for cy, cx in random.uniform(10, 54, (5, 2))
        )
        light = 20_000 + 6000 * threads + random.normal(0, 50, threads.shape)
        stain = 300 + 2000 * threads + random.normal(0, 5, threads.shape)
        for channel, pixels in enumerate((light, stain), 1):
            tifffile.imwrite(folder / f"{plate}_{well}_s1_w{channel}.tif", pixels.astype(np.uint16))
    channels = {"1": "transmitted", "2": "MitoTracker"}
    record = {"plate_id": plate, "acquired_at": "2025-03-03T08:00:00+00:00", "pixel_size_um": 0.65}
    (folder / "acquisition.json").write_text(json.dumps(record | {"channels": channels}))
    return folder


def test_mitochondria_as_one_entry_are_trained_predicted_and_measured(tmp_path, make_lab, monkeypatch):
    monkeypatch.setitem(ORGANELLES, MITOCHONDRIA.name, MITOCHONDRIA)
    home = make_lab(organelles=(MITOCHONDRIA.name,)).home
    for seed, plate in enumerate(("P1", "P2"), 1):
        take_in(home, plate, export(tmp_path / plate, plate, seed))
    dataset = build_current_dataset(home, MITOCHONDRIA)
    assert dataset.organelle == "mitochondria" and len(dataset.train) >= 2
    config = TrainingConfig(
        max_steps=60, batch_size=4, crop_size=32, base_channels=4, depth=2, precision="fp32", num_threads=1
    )
    model = load_model(train(dataset, config).folder)
    store_prediction(home, open_plate(home.plates, "P1"), model, 1)
    measured = measure_prediction(home, "P1", MITOCHONDRIA)
    assert sorted(measured.wells["Metadata_Well"]) == list(WELLS)
    assert {"Mitochondria_Count", "Mitochondria_TotalArea"} <= set(measured.wells)
    assert set(measured.cells["Metadata_Organelle"]) == {"mitochondria"}
    assert measured.wells["Mitochondria_Count"].between(1, 30).all()
