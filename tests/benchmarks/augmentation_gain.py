"""What training against corruptions brings: champion and retrained model on corrupted plates (figure 43).

    OMP_NUM_THREADS=1 .venv/bin/python tests/benchmarks/augmentation_gain.py --work FOLDER
        [--organelle nuclei] [--steps 600] [--more-steps 300] [--control] [setting=value …]

Both models learn from the same simulated plates: the champion without corruption, the retrained one from the
champion's weights, as the loop retrains, with corruptions of table 5 of all kinds and severities mixed in,
and with defocus as interference contrast shows it.
Both are judged on plates of clones that neither has seen: clean, under every severity of table 5, and under
faults of the microscope that the simulator makes by its own physics on the phase of light, before the camera:
the same cells imaged again, judged by the stain that they show in focus. Severities that drive more than half
of the pixels to the ends of the range are left out ("information destroyed"). Prints a table with 95 %
intervals (resampled by plate, clone and well), writes it and the figure into the work folder.

`--control` trains two more by the same further steps: one without corruption, what more training alone does,
and one whose defocus is table 5's disk alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from numpy.typing import NDArray

from cellabel.datasets import Dataset, build_dataset, check_split
from cellabel.evaluation import CLEAN
from cellabel.loop.gain import corruption_gain
from cellabel.loop.held_out import HeldOut, LabelledField, evaluate_model, table_conditions
from cellabel.networks import OrganelleModel
from cellabel.organelles import organelle
from cellabel.plates import Plate, import_plate, open_plate
from cellabel.reports import gain_figure
from cellabel.simulation import parameters_hash, simulate_plate
from cellabel.stores import PlateStore
from cellabel.training import CorruptionAugmentation, TrainingConfig, train

CLONES, TRAIN_SEED, TEST_SEED = 4, 100, 9000
FAULTS = {
    "defocus -6.5 µm": ("defocus", -6.5),
    "defocus +6.5 µm": ("defocus", 6.5),
    "lamp × 0.5": ("lamp", -0.5),
    "lamp × 2": ("lamp", 1.0),
}
NETWORK = {"crop_size": 96, "base_channels": 16, "depth": 3, "block": 2}
PROBABILITY, LEARNING_RATE, APERTURE = 0.5, 1e-3, 0.45
SHOWN = ["condition", "metric", "n_wells", "before", "after", "gain", "interval", "pearson", "pearson after"]


def plate(arguments: argparse.Namespace, side: str, number: int, fault: str = "") -> Plate:
    """A plate, simulated once a work folder; one with a fault shows the cells of the one without."""
    store = PlateStore(arguments.work / "plates")
    seed = {"train": TRAIN_SEED, "test": TEST_SEED}[side] + number
    kind, size = FAULTS.get(fault, ("", 0.0))
    wells = arguments.wells if side == "train" else arguments.test_wells
    name = f"{side}-{arguments.organelle}-{wells}x{arguments.size}-{number}"
    name += f"-{kind}{size:g}" if fault else ""
    if store.record(name) is None:
        folder = arguments.work / "acquisitions" / name
        simulate_plate(
            folder, plate_id=name, wells=wells, sites=1, size=arguments.size, seed=seed, preset="10x",
            clones=CLONES, clone_offset=seed * CLONES, parental=0, reference=0, blanks=0,
            stains=() if fault else (arguments.organelle,), drift=(kind, size) if fault else None,
        )  # fmt: skip
        import_plate(folder, store, plate_id=name)
    return open_plate(store, name)


def split(arguments: argparse.Namespace) -> tuple[Dataset, list[Plate]]:
    """Training plates, with the test plates' wells held out; nothing of them is seen."""
    tested = [plate(arguments, "test", number) for number in range(arguments.test_plates)]
    held_out = [(one.plate_id, well) for one in tested for well in one.wells]
    trained = [plate(arguments, "train", number) for number in range(arguments.train_plates)]
    dataset = build_dataset([*trained, *tested], arguments.organelle, held_out=held_out)
    problems = check_split(dataset)
    assert not problems, problems
    return dataset, tested


def judge(arguments: argparse.Namespace, model: OrganelleModel, tested: list[Plate]) -> HeldOut:
    """The model on every field of the test plates, as it is, corrupted, and imaged again with each fault."""
    parts = []
    for number, one in enumerate(tested):
        faulty = {fault: plate(arguments, "test", number, fault) for fault in FAULTS}
        for field in one.fields():
            imaged = {
                fault: partial(_instead, other.wells[field.well].fields[field.site].image("transmitted"))
                for fault, other in faulty.items()
            }
            conditions = {CLEAN: None, **table_conditions(), **imaged}
            labelled = LabelledField.of(one, field.well, field.site)
            parts.append(evaluate_model(model, [labelled], conditions))
    return HeldOut(*(pd.concat([getattr(one, part) for one in parts]) for part in ("measured", "embeddings")))


def _instead(image: NDArray, _: NDArray) -> NDArray:
    return image


def learn(
    arguments: argparse.Namespace, name: str, begin: Callable[[], OrganelleModel]
) -> tuple[OrganelleModel, str]:
    began, core = time.perf_counter(), time.process_time()
    model = begin()
    spent = f"{time.perf_counter() - began:.0f} s ({time.process_time() - core:.0f} s of processor)"
    print(f"{name}: trained in {spent}", flush=True)
    return model, spent


def show(gain: pd.DataFrame) -> str:
    """The table as text."""
    ends = gain["gain_ci_lower"], gain["gain_ci_upper"]
    table = gain.assign(
        interval=[f"{low:+.3f} to {high:+.3f}" for low, high in zip(*ends, strict=True)],
        pearson=gain["pearson_before"],
    ).rename(columns={"pearson_after": "pearson after"})
    return table[SHOWN].to_string(index=False, float_format="%.3f")


def run(arguments: argparse.Namespace, settings: dict[str, object]) -> None:
    dataset, tested = split(arguments)
    first = TrainingConfig(**{**NETWORK, "max_steps": arguments.steps, "num_threads": 1, **settings})
    more = first.model_copy(update={"max_steps": arguments.more_steps, "learning_rate": LEARNING_RATE})
    disk = CorruptionAugmentation(probability=PROBABILITY)
    optics = disk.model_copy(update={"numerical_aperture": APERTURE})
    champion, _ = learn(arguments, "champion", lambda: train(dataset, first).model)
    models = {"retrained": more.model_copy(update={"corruption": optics})}
    if arguments.control:
        models |= {"disk": more.model_copy(update={"corruption": disk}), "control": more}
    before = judge(arguments, champion, tested)
    for name, config in models.items():
        begin = partial(train, dataset, config, initial=champion)
        model, _ = learn(arguments, name, lambda begin=begin: begin().model)
        after = judge(arguments, model, tested)
        gain = corruption_gain(before, after, organelle(arguments.organelle))
        wells, plates = int(gain["n_wells"].max()), int(gain["n_plates"].max())
        print(f"\n{name}: {wells} wells of {plates} unseen plates; before and after are mean |log error|")
        print(show(gain))
        left_out = sorted({*before.destroyed, *after.destroyed})
        print(f"information destroyed, left out: {', '.join(left_out) or 'none'}", flush=True)
        gain.to_csv(arguments.work / f"gain-{name}.csv", index=False)
        title = (
            f"{arguments.organelle}: champion and {name} model, {wells} wells of {plates} unseen plates, 95 %"
        )
        (arguments.work / f"gain-{name}.png").write_bytes(
            gain_figure(gain, title=title, names=("champion", name))
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of plates; kept for the next run")
    parser.add_argument("--organelle", default="nuclei")
    parser.add_argument("--train-plates", type=int, default=4)
    parser.add_argument("--test-plates", type=int, default=4)
    parser.add_argument("--wells", type=int, default=12, help="of a training plate")
    parser.add_argument("--test-wells", type=int, default=6)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--steps", type=int, default=600, help="of the champion")
    parser.add_argument("--more-steps", type=int, default=300, help="of the retraining")
    parser.add_argument("--control", action="store_true", help="also train with the disk alone, and clean")
    parser.add_argument("settings", nargs="*", help="training settings, name=value (JSON)")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    settings = {name: json.loads(text) for name, text in (one.split("=", 1) for one in arguments.settings)}
    print(f"parameters {parameters_hash('a')}, {json.dumps({**vars(arguments), 'work': ''})}", flush=True)
    run(arguments, settings)


if __name__ == "__main__":
    main()
