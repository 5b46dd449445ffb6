"""What a model measures on wells, clones and plates that it has not seen: the quality benchmark.

    python tests/benchmarks/quality.py --work FOLDER [--organelles nuclei er golgi gfp] [--family a]
        [--train-plates 6] [--test-plates 4] [--wells 24] [--size 512] [--seconds 1200] [--again]
        [--intensity] [setting=value …]

Plates are simulated from frozen parameters (their hash is printed): every plate has six clones of its own in
four replicates, so four test plates are 96 wells of 24 clones on plates that nothing was trained on. Each
agreement is printed with two ceilings: the same segmentation on a second draw of the camera's noise, and an
oracle that knows all that transmitted light can show (`oracle_wells`). Intensities come with the line that
leads from true to predicted. A smaller run is a run of fewer plates, wells or
seconds; it says so.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch

from cellabel.datasets import Dataset, build_dataset, check_split
from cellabel.evaluation import downstream_metrics
from cellabel.loop.held_out import LabelledField, evaluate_model
from cellabel.loop.stains import stained
from cellabel.measurement import measure_field, measure_well
from cellabel.networks import OrganelleModel, load_model
from cellabel.organelles import Organelle, organelle
from cellabel.plates import Field, Plate, import_plate, open_plate
from cellabel.prediction import predict_image, segment_prediction
from cellabel.preprocessing import prepare_target
from cellabel.segmentation import segment
from cellabel.simulation import parameters_hash, simulate_plate
from cellabel.stores import PlateStore
from cellabel.training import TrainingConfig, train

CLONES = 6
TEST_SEED, TRAIN_SEED, SECOND_DRAW = 9000, 100, 77
INTENSITY = {"mse": 1.0, "batch_pcc": 0.1}
WELL = ["Metadata_Plate", "Metadata_Well", "Metadata_Clone"]


def plates(arguments: argparse.Namespace, side: str, noise_seed: int | None = None) -> list[Plate]:
    """The plates of one side, simulated once a work folder."""
    first, count = (
        (TEST_SEED, arguments.test_plates) if side == "test" else (TRAIN_SEED, arguments.train_plates)
    )
    store = PlateStore(arguments.work / "plates")
    made = []
    for number in range(count):
        name = f"{side}-{arguments.family}-{arguments.wells}x{arguments.size}-{number}"
        name += "" if noise_seed is None else f"-draw{noise_seed}"
        if store.record(name) is None:
            folder = arguments.work / "acquisitions" / name
            simulate_plate(
                folder,
                plate_id=name,
                wells=arguments.wells,
                sites=1,
                size=arguments.size,
                seed=first + number,
                preset=arguments.preset,
                family=arguments.family,
                clones=CLONES,
                clone_offset=first + CLONES * number,
                parental=0,
                reference=0,
                blanks=0,
                noise_seed=noise_seed,
                workers=arguments.threads,
            )
            import_plate(folder, store, plate_id=name)
        made.append(open_plate(store, name))
    return made


def measured_wells(
    tested: list[Plate],
    name: str,
    image_of: Callable[[Plate, Field], np.ndarray],
    of: list[Plate] | None = None,
) -> pd.DataFrame:
    """What the recipe measures on the prepared image of every field, the plates named as those in `of`."""
    recipe, rows = organelle(name), []
    for plate, known_as in zip(tested, of or tested, strict=True):
        for field in plate.fields():
            image = image_of(plate, field)
            labels = segment(image, recipe, pixel_size_um=plate.pixel_size_um)
            row = measure_field(labels, image, organelle=recipe, pixel_size_um=plate.pixel_size_um)
            keys = (known_as.plate_id, field.well, str(plate.plan.loc[field.well, "clone"]))
            rows.append(row.assign(**dict(zip(WELL, keys, strict=True)), Metadata_Site=field.site))
    return measure_well(pd.concat(rows, ignore_index=True), by=WELL)


def stained_wells(tested: list[Plate], name: str, of: list[Plate] | None = None) -> pd.DataFrame:
    """What the recipe measures on the stained images of some plates, named as the plates `of`."""
    recipe = organelle(name)

    def target(plate: Plate, field: Field) -> np.ndarray:
        stain = next(role for role in recipe.stains if role in field.roles)
        return prepare_target(field.image(stain), recipe, pixel_size_um=plate.pixel_size_um)

    return measured_wells(tested, name, target, of)


def oracle_wells(arguments: argparse.Namespace, tested: list[Plate], name: str) -> pd.DataFrame:
    """What someone would measure who sees all that transmitted light can show, and nothing else.

    Intensities are those of the stain without its yield (of instrument, plate, well and site) and, for the
    ER, without what a clone has of it: light shows neither. Numbers and areas are left out. The reporter
    shows by the cells' morphology alone: the living cells of most of it are marked, as many as make the
    product on the training plates.
    """
    if organelle(name).target == "binary":
        return measured_wells(tested, name, _marks(arguments, tested))
    measured = stained_wells(tested, name)
    hidden = _yields(arguments, tested, name)
    if name == "er":
        cells = pd.concat([_truth(arguments, plate, "cells") for plate in tested])
        content = cells[~cells["dead"]].groupby(WELL[:2], as_index=False)["er"].mean()
        hidden = hidden.merge(content, on=WELL[:2])
        hidden["yield"] *= hidden["er"]
    factor = measured[WELL[:2]].merge(hidden, on=WELL[:2])["yield"]
    intensities = [column for column in measured if column.endswith("Intensity")]
    seen = measured[intensities].div(factor.to_numpy(), axis=0)
    return measured[WELL].join(seen)


def _marks(arguments: argparse.Namespace, tested: list[Plate]) -> Callable[[Plate, Field], np.ndarray]:
    """The cells of a field that most likely make the product, by their visible morphology."""
    known = pd.concat([_truth(arguments, plate, "cells") for plate in plates(arguments, "train")])
    living = known[~known["dead"]]
    least = living["visible_morphology"].quantile(1 - living["gfp_positive"].mean())
    cells = pd.concat([_truth(arguments, plate, "cells") for plate in tested])
    marked = cells[~cells["dead"] & (cells["visible_morphology"] >= least)]
    by_field = marked.groupby([*WELL[:2], "Metadata_Site"])["label"].agg(list)

    def marks(plate: Plate, field: Field) -> np.ndarray:
        name = f"{plate.plate_id}_{field.well}_s{field.site}_cells.tif"
        labels = tifffile.imread(_truth_folder(arguments, plate) / name)
        return np.isin(labels, by_field.get((plate.plate_id, field.well, field.site), [])).astype(np.float32)

    return marks


def _yields(arguments: argparse.Namespace, imaged: list[Plate], name: str) -> pd.DataFrame:
    """How strongly each well was stained, 1 by the book."""
    fields = pd.concat([_truth(arguments, plate, "fields") for plate in imaged])
    return fields.rename(columns={f"yield_{name}": "yield"}).groupby(WELL[:2], as_index=False)["yield"].mean()


def _truth_folder(arguments: argparse.Namespace, plate: Plate) -> Path:
    return arguments.work / "acquisitions" / plate.plate_id / "truth"


def _truth(arguments: argparse.Namespace, plate: Plate, table: str) -> pd.DataFrame:
    return pd.read_csv(_truth_folder(arguments, plate) / f"{table}.csv").assign(Metadata_Plate=plate.plate_id)


def metrics_of(name: str) -> tuple[str, ...]:
    """What is judged of an organelle, and its number and area in any case."""
    recipe = organelle(name)
    always = (f"{recipe.prefix}_Count", f"{recipe.prefix}_TotalArea")
    return tuple(dict.fromkeys((*recipe.primary_metrics, *always)))


def line(true: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Slope, and intercept as a share of the true mean, of predicted on true."""
    slope, intercept = np.polyfit(true, predicted, 1)
    return float(slope), float(intercept / true.mean())


def within_plates(pairs: pd.DataFrame, metric: str) -> float:
    """Pearson of true and predicted wells about their plate's means: what is left where plates are alike."""
    sides = pairs[[metric, f"{metric}_p"]]
    centred = (sides - sides.groupby(pairs["Metadata_Plate"]).transform("mean")).dropna()
    return float(centred.corr().iloc[0, 1])


def predicted(model: OrganelleModel, plate: Plate, field: Field) -> np.ndarray:
    """The stain that a model predicts of a field, in the stain's units."""
    return predict_image(model, field.image("transmitted")) * model.target_scale


def agreement(
    model: OrganelleModel,
    tested: Iterable[Plate],
    metrics: Iterable[str],
    predict: Callable[[OrganelleModel, Plate, Field], np.ndarray] = predicted,
) -> tuple[pd.DataFrame, float]:
    """Agreement of wells by metric, and the median field's pixel Pearson, of any network."""
    recipe, correlations = organelle(model.organelle), []
    sides: dict[str, list[pd.DataFrame]] = {"true": [], "predicted": []}
    for plate in tested:
        size = plate.pixel_size_um
        for field in plate.fields():
            truth = stained(field, plate, recipe)
            assert truth is not None
            image = predict(model, plate, field)
            labels = segment_prediction(image, model, pixel_size_um=size)
            correlations.append(np.corrcoef(truth.target.ravel(), image.ravel())[0, 1])
            for side, found, pixels in (
                ("true", truth.labels, truth.target),
                ("predicted", labels, image),
            ):
                row = measure_field(found, pixels, organelle=recipe, pixel_size_um=size)
                sides[side].append(row.assign(Metadata_Plate=plate.plate_id, Metadata_Well=field.well))
    keep = [*WELL[:2], *metrics]
    tables = (pd.concat(rows, ignore_index=True)[keep] for rows in sides.values())
    return downstream_metrics(*tables, n_bootstrap=0).set_index("feature"), float(np.median(correlations))


def report(
    true: pd.DataFrame,
    found: pd.DataFrame,
    again: pd.DataFrame,
    oracle: pd.DataFrame,
    metrics: tuple[str, ...],
) -> None:
    """One row a metric; limits and bias as shares of the true mean."""
    keep = [*WELL, *metrics]
    agreed = downstream_metrics(true[keep], found[keep]).set_index("feature")
    ceiling = downstream_metrics(true[keep], again[keep], n_bootstrap=0).set_index("feature")
    shown = [*WELL, *(metric for metric in metrics if metric in oracle)]
    seen = downstream_metrics(true[shown], oracle[shown], n_bootstrap=0).set_index("feature")["pearson"]
    both = true.merge(found, on=WELL, suffixes=("", "_p"))
    rows = []
    for metric in metrics:
        row, mean = agreed.loc[metric], float(true[metric].mean())
        known = both[[metric, f"{metric}_p"]].dropna().to_numpy(float)
        slope, intercept = line(*known.T) if len(known) > 2 else (np.nan, np.nan)
        rows.append(
            {
                "metric": metric,
                "n": int(row["n"]),
                "pearson": row["pearson"],
                "interval": f"{row['pearson_ci_lower']:.3f} to {row['pearson_ci_upper']:.3f}",
                "within": within_plates(both, metric),
                "spearman": row["spearman"],
                "concordance": row["concordance"],
                "ceiling": ceiling.loc[metric, "pearson"],
                "oracle": seen.get(metric, np.nan),
                "bias": row["bias"] / mean,
                "limits": f"{row['loa_lower'] / mean:+.2f} to {row['loa_upper'] / mean:+.2f}",
                "slope": slope,
                "intercept": intercept,
            }
        )
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.3f"), flush=True)


def split(arguments: argparse.Namespace, name: str | Organelle) -> tuple[Dataset, list[Plate]]:
    """Training plates, with the test plates' wells held out; nothing of them is seen."""
    tested = plates(arguments, "test")
    held_out = [(plate.plate_id, well) for plate in tested for well in plate.wells]
    dataset = build_dataset([*plates(arguments, "train"), *tested], name, held_out=held_out)
    problems = check_split(dataset)
    assert not problems, problems
    return dataset, tested


def learn(
    arguments: argparse.Namespace, dataset: Dataset, config: TrainingConfig, folder: Path
) -> tuple[OrganelleModel, str]:
    """The model, and what its training took."""
    if arguments.again:
        return load_model(folder), "trained before"
    began, cpu = time.perf_counter(), time.process_time()
    trained = train(
        dataset, config, folder=folder, progress=lambda sentence: print(f"  {sentence}", flush=True)
    )
    return trained.model, (
        f"{trained.metrics['steps']} steps, {trained.metrics['parameters']} parameters, trained in "
        f"{time.perf_counter() - began:.0f} s ({time.process_time() - cpu:.0f} s of processor, "
        f"{arguments.threads} threads)"
    )


def run(arguments: argparse.Namespace, name: str, config: TrainingConfig) -> None:
    dataset, tested = split(arguments, name)
    model, told = learn(arguments, dataset, config, arguments.work / "models" / f"{name}-{arguments.family}")
    fields = [LabelledField.of(plate, f.well, f.site) for plate in tested for f in plate.fields()]
    held_out = evaluate_model(model, fields, {"clean": None})
    clones = len({str(field.clone) for field in fields})
    print(
        f"\n{name}, family {arguments.family}: {len(fields)} wells of {clones} clones on {len(tested)} "
        f"unseen plates; {told}; pixel Pearson {held_out.pixel_pearson():.3f}; {dataset.split_description}",
        flush=True,
    )
    trained_on, seen = (
        _yields(arguments, side, name)["yield"].mean() for side in (plates(arguments, "train"), tested)
    )
    print(f"stained by the book × {trained_on:.2f} on the training plates, × {seen:.2f} on these", flush=True)
    again = stained_wells(plates(arguments, "test", SECOND_DRAW), name, tested)
    oracle = oracle_wells(arguments, tested, name)
    report(held_out.wells("true"), held_out.wells("predicted"), again, oracle, metrics_of(name))


def run_intensity(arguments: argparse.Namespace, name: str, config: TrainingConfig) -> None:
    """A binary stain learnt as an intensity, marked on the prediction as on a stained image."""
    recipe = organelle(name)
    intensity = replace(recipe, target="continuous", preprocessing=recipe.preprocessing[:1], losses=INTENSITY)
    dataset, tested = split(arguments, intensity)
    folder = arguments.work / "models" / f"{name}-intensity-{arguments.family}"
    model, told = learn(arguments, dataset, config, folder)

    def marked(plate: Plate, field: Field) -> np.ndarray:
        stain = predicted(model, plate, field)
        return prepare_target(stain, recipe, pixel_size_um=plate.pixel_size_um)

    print(f"\n{name} as an intensity, family {arguments.family}: {told}", flush=True)
    again = stained_wells(plates(arguments, "test", SECOND_DRAW), name, tested)
    true, oracle = stained_wells(tested, name), oracle_wells(arguments, tested, name)
    report(true, measured_wells(tested, name, marked), again, oracle, metrics_of(name))


def options(description: str | None, seconds: float) -> argparse.ArgumentParser:
    """What every benchmark on these plates can be told."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of plates; kept for the next run")
    parser.add_argument("--family", default="a")
    parser.add_argument("--preset", default="10x")
    parser.add_argument("--train-plates", type=int, default=6)
    parser.add_argument("--test-plates", type=int, default=4)
    parser.add_argument("--wells", type=int, default=24)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=seconds, help="of training a network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("settings", nargs="*", help="training settings, name=value (JSON)")
    return parser


def settings_of(arguments: argparse.Namespace) -> dict[str, object]:
    """The training's settings: as long as the seconds allow, and what was given by name."""
    torch.set_num_threads(arguments.threads)
    known = {"max_steps": 100_000, "time_limit_s": arguments.seconds, "num_threads": arguments.threads}
    return known | {name: _value(text) for name, text in (one.split("=", 1) for one in arguments.settings)}


def main() -> None:
    parser = options(__doc__, 1200)
    parser.add_argument("--organelles", nargs="+", default=["nuclei", "er", "golgi", "gfp"])
    parser.add_argument("--intensity", action="store_true", help="learn binary stains as intensities too")
    parser.add_argument("--again", action="store_true", help="score the models in the folder; train none")
    arguments = parser.parse_intermixed_args()
    settings = settings_of(arguments)
    print(f"parameters {parameters_hash(arguments.family)}, {json.dumps(settings)}", flush=True)
    for name in arguments.organelles:
        run(arguments, name, TrainingConfig(**settings))
        if arguments.intensity and organelle(name).target == "binary":
            run_intensity(arguments, name, TrainingConfig(**settings))


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
