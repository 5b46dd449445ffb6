"""Drift on real bright field: what stands out against aiSEGcell, what does not, and what it costs.

Starts from a home that `make demo DATA=…/aisegcell/fig10` left: its nuclei champion and its frozen encoder
look at real fields, all of them brought to 0.65 µm a pixel. The unit is the position. Printed are, stream by
stream,

1. the distance of every group's positions to the nearest reference field (aiSEGcell's own positions with
   their own fields left out), and an exact permutation p: of ranks for a single position, of MMD with
   positions kept together where there are several;
2. the MMD of the tiles of every plane of a focus series to those of its focus: it should rise with |defocus|;
3. Kendall's τ of the estimated harm against the true loss where a nuclear stain exists, with an interval.

Run: CELLABEL_TEST_DATA=… python tests/benchmarks/drift_on_real.py HOME
"""

from __future__ import annotations

import argparse
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from scipy.stats import kendalltau
from skimage.io import imread

from cellabel.corruptions import corrupt
from cellabel.datasets import resample
from cellabel.drift import HarmModel, mmd_permutation_test
from cellabel.loop import open_encoder
from cellabel.loop.diagnosis import _embed, _features
from cellabel.loop.encoder import embed_field
from cellabel.loop.held_out import HARM, full_scale
from cellabel.measurement import measure_field
from cellabel.networks import OrganelleModel
from cellabel.plates._ics import open_ics
from cellabel.prediction import predict_image, segment_prediction
from cellabel.registry import ModelRegistry
from cellabel.segmentation import segment
from cellabel.settings import load_settings
from cellabel.stores import open_home

DATA = Path(os.environ.get("CELLABEL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
PIXEL_UM = 0.65
PIXELS_UM = {"celldetective": 0.3112, "phenix": 0.598, "isl": 0.65, "sephace": 0.32}
"""As the files tell (celldetective), as the objective suggests (20× and 40×), or unknown and left (isl)."""
SEPHACE = DATA / "sephace" / "Set 1"
FOCUS = {"sephace": 1351.6, "isl": 6.0}
TILE_PX = 170
LOSSES = ("Nuclei_Count", "Nuclei_TotalArea")
RESAMPLES = 1000

Eye = Callable[[NDArray], NDArray]


@dataclass(frozen=True)
class RealField:
    """A field: the group and position that it belongs to, its image and its nuclear stain."""

    group: str
    position: str
    image: NDArray
    stain: NDArray


def at_one_size(image: NDArray, pixel_um: float) -> NDArray:
    """The image at 0.65 µm a pixel, in its own type."""
    shape = tuple(round(length * pixel_um / PIXEL_UM) for length in image.shape)
    if shape == image.shape:
        return image
    return np.rint(resample(image, (shape[0], shape[1]))).astype(image.dtype)


def reference_fields() -> Iterator[RealField]:
    for path in sorted((DATA / "aisegcell" / "fig10").glob("*_bf.tif")):
        experiment, position = path.name.split("_")[:2]
        stain = tifffile.imread(path.with_name(path.name.replace("_bf", "_nuc")))
        yield RealField("aisegcell", f"{experiment} {position}", tifffile.imread(path), stain)


def foreign_fields() -> Iterator[RealField]:
    """Fields of other cells, other microscopes, other laboratories."""
    for path in sorted((DATA / "celldetective_mcf7").glob("*_labelled.tif")):
        stack = tifffile.imread(path.with_name(path.name.replace("_labelled", "")))
        beside = path.with_name(path.name.replace("_labelled.tif", ".json"))
        channels = json.loads(beside.read_text())["channels"]
        if "live_nuclei_channel" not in channels:
            continue
        planes = [channels.index(name) for name in ("brightfield_channel", "live_nuclei_channel")]
        experiment = re.split(r"_(?:snap|MMStack)", path.name)[0]
        light, stain = (at_one_size(stack[plane], PIXELS_UM["celldetective"]) for plane in planes)
        yield RealField("celldetective", experiment, light, stain)
    orig = DATA / "phenix_pediatric" / "orig"
    light, stain = (
        at_one_size(tifffile.imread(next(orig.glob(f"*-ch{channel}sk1*"))), PIXELS_UM["phenix"])
        for channel in (1, 5)
    )
    yield RealField("phenix", "r03c03", light, stain)
    stain = grey(next((DATA / "isl_condition_blue").glob("*DAPI*")))
    yield RealField("isl", "A4", isl_series()[FOCUS["isl"]], stain)
    stain = at_one_size(open_ics(SEPHACE / "fl.ics").plane(0), PIXELS_UM["sephace"])
    yield RealField("sephace", "Set 1", sephace_series()[FOCUS["sephace"]], stain)


def sephace_series() -> dict[float, NDArray]:
    """Height of the objective (µm) → bright field."""
    heights = {float(path.stem.split("-Z")[1]): path for path in SEPHACE.glob("*-Z*.ics")}
    return {
        height: at_one_size(open_ics(path).plane(0), PIXELS_UM["sephace"])
        for height, path in sorted(heights.items())
    }


def isl_series() -> dict[float, NDArray]:
    """Number of the plane → transmitted light."""
    paths = (DATA / "isl_condition_blue").glob("*z_depth*")
    planes = {float(re.findall(r"z_depth-(\d+)", path.name)[0]): path for path in paths}
    return {number: grey(path) for number, path in sorted(planes.items())}


def grey(path: Path) -> NDArray:
    """An image that may be kept as three equal colours."""
    image = imread(path)
    return image[..., 0] if image.ndim == 3 else image


@dataclass(frozen=True)
class Stream:
    """What an eye makes of the reference: standardised by its mean and spread."""

    see: Eye
    centre: NDArray
    spread: NDArray

    @classmethod
    def of(cls, see: Eye, images: list[NDArray]) -> Stream:
        """Standardise by these images."""
        rows = np.stack([see(image) for image in images]).astype(float)
        return cls(
            see, rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6 + 0.01 * np.abs(rows).mean(axis=0))
        )

    def rows(self, images: list[NDArray]) -> NDArray:
        """(n, d) standardised; large deviations count by their logarithm."""
        seen = np.stack([self.see(image) for image in images]).astype(float)
        return np.arcsinh((seen - self.centre) / self.spread)


def nearest(row: NDArray, others: NDArray) -> float:
    """Root mean square distance over the columns to the nearest of the others."""
    return float(np.sqrt(((others - row) ** 2).mean(axis=1)).min())


def distances(name: str, stream: Stream, reference: list[RealField], foreign: list[RealField]) -> None:
    """How far each group's positions lie from the reference."""
    known = stream.rows([one.image for one in reference])
    places = np.array([one.position for one in reference])
    rows = [
        {"group": "aisegcell", "position": place, "distance": nearest(row, known[places != place])}
        for row, place in zip(known, places, strict=True)
    ]
    seen = stream.rows([one.image for one in foreign])
    rows += [
        {"group": one.group, "position": one.position, "distance": nearest(row, known)}
        for one, row in zip(foreign, seen, strict=True)
    ]
    table = pd.DataFrame(rows).groupby(["group", "position"], sort=False)["distance"].mean().reset_index()
    own = table.loc[table["group"] == "aisegcell", "distance"].to_numpy()
    print(f"\n{name}: own positions {own.mean():.2f} (at most {own.max():.2f}), n = {len(own)}")
    for group, found in table[table["group"] != "aisegcell"].groupby("group", sort=False):
        chosen = [index for index, one in enumerate(foreign) if one.group == group]
        if len(found) > 1:
            kept_together = [*places, *(foreign[index].position for index in chosen)]
            p = mmd_permutation_test(known, seen[chosen], groups=kept_together).p_value
        else:
            p = (1 + (own >= found["distance"].iloc[0]).sum()) / (1 + len(own))
        beyond = (found["distance"] > own.max()).mean()
        print(
            f"  {group}: {found['distance'].mean():.2f} ({found['distance'].min():.2f} to "
            f"{found['distance'].max():.2f}), n = {len(found)} positions, {beyond:.0%} beyond every own one, "
            f"p = {p:.3f}"
        )


def focus_series(name: str, stream: Stream, planes: dict[float, NDArray], focus: float) -> None:
    """MMD² of the tiles of every plane to those of the plane in focus."""

    def tiles(image: NDArray) -> NDArray:
        rows, columns = (range(0, length - TILE_PX + 1, TILE_PX) for length in image.shape)
        return stream.rows([image[r : r + TILE_PX, c : c + TILE_PX] for r in rows for c in columns])

    known = tiles(planes[focus])
    found = {
        plane: mmd_permutation_test(known, tiles(image), n_permutations=199).statistic
        for plane, image in planes.items()
        if plane != focus
    }
    away = np.abs(np.array(list(found)) - focus)
    tau = kendalltau(away, list(found.values())).statistic
    told = ", ".join(f"{plane - focus:+.4g}: {value:.3f}" for plane, value in found.items())
    print(f"  {name}: {told}; Kendall's τ with |defocus| {tau:.2f}, n = {len(found)}")


def losses(
    model: OrganelleModel, fields: list[RealField], change: Callable[[NDArray], NDArray] | None
) -> NDArray:
    """Mean |log error| of count and area against the stain, one a field."""
    found = []
    for one in fields:
        image = one.image if change is None else change(one.image)
        predicted = predict_image(model, image) * model.target_scale
        labels = segment_prediction(predicted, model, pixel_size_um=PIXEL_UM)
        sides = [
            measure_field(drawn, pixels, pixel_size_um=PIXEL_UM)[list(LOSSES)].iloc[0].to_numpy(float)
            for drawn, pixels in (
                (segment(one.stain, pixel_size_um=PIXEL_UM), one.stain),
                (labels, predicted),
            )
        ]
        true, ours = (np.maximum(side, 0.5) for side in sides)
        found.append(float(np.abs(np.log(ours / true)).mean()))
    return np.array(found)


def harm_against_loss(
    model: OrganelleModel, stream: Stream, reference: list[RealField], foreign: list[RealField]
) -> None:
    """Estimated harm, learnt from corrupted reference fields, against the true loss of foreign positions."""
    clean = stream.rows([one.image for one in reference])
    rows, costs = [clean], [losses(model, reference, None)]
    for kind, severities in HARM.items():
        for severity in severities:

            def change(image: NDArray, kind: str = kind, severity: int = severity) -> NDArray:
                return corrupt(image, kind, severity, full_scale=full_scale(image))

            rows.append(stream.rows([change(one.image) for one in reference]))
            costs.append(losses(model, reference, change))
    harm = HarmModel.fit(clean, np.concatenate(rows), np.concatenate(costs))
    true = losses(model, foreign, None)
    seen = stream.rows([one.image for one in foreign])
    table = pd.DataFrame(
        {"group": [one.group for one in foreign], "position": [one.position for one in foreign]}
    )
    table["true"] = true
    table["estimated"] = [harm.estimate(row).expected_loss for row in seen]
    table["distance"] = harm.distance(seen)
    table["verdict"] = [harm.estimate(row).verdict for row in seen]
    own = pd.DataFrame({"group": "aisegcell", "position": [one.position for one in reference]})
    own = own.assign(true=costs[0], estimated=[harm.estimate(row).expected_loss for row in clean])
    own["distance"], own["verdict"] = harm.distance(clean), [harm.estimate(row).verdict for row in clean]
    every = pd.concat([own, table])
    means = every.groupby(["group", "position"], sort=False)[["true", "estimated", "distance"]].mean()
    print("\nHarm, by position:")
    print(means.groupby("group", sort=False).agg(["mean", "count"]).round(3).to_string())
    print("verdicts:", every.groupby(["group", "verdict"], sort=False).size().to_dict())
    rng = np.random.default_rng(0)
    for column in ("estimated", "distance"):
        pairs = means[[column, "true"]].to_numpy()
        resampled = [
            kendalltau(*pairs[rng.integers(0, len(pairs), len(pairs))].T).statistic for _ in range(RESAMPLES)
        ]
        low, high = np.nanpercentile(resampled, [2.5, 97.5])
        told = f"{kendalltau(*pairs.T).statistic:.2f} ({low:.2f} to {high:.2f})"
        print(f"Kendall's τ of {column} with the true loss: {told}, n = {len(pairs)}")


def main() -> None:
    """All three parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("home", type=Path)
    home = open_home(load_settings(home=parser.parse_args().home))
    registry = ModelRegistry(home.settings.mlflow_tracking_uri)
    champion, encoder = registry.champion("nuclei"), open_encoder(home)
    if champion is None or encoder is None:
        raise SystemExit(f"{home.settings.home} has no champion or no encoder: run the demo first.")
    model = registry.load("nuclei", champion.version)

    eyes: dict[str, Eye] = {
        "champion's bottleneck": partial(_embed, model),
        "frozen encoder": lambda image: embed_field(encoder.network, image),
        "acquisition features": _features,
    }
    reference, foreign = list(reference_fields()), list(foreign_fields())
    streams = {name: Stream.of(see, [one.image for one in reference]) for name, see in eyes.items()}
    for name, stream in streams.items():
        distances(name, stream, reference, foreign)
    for name, stream in streams.items():
        print(f"\nFocus series, {name}:")
        focus_series("sephace, µm", stream, sephace_series(), FOCUS["sephace"])
        focus_series("isl, planes", stream, isl_series(), FOCUS["isl"])
    harm_against_loss(model, streams["champion's bottleneck"], reference, foreign)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
