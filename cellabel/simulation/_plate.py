"""A whole plate: plan, fields, truth, and the folder that a microscope's export would be."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

from cellabel.errors import InputError
from cellabel.simulation._cells import FieldBiology, draw_cells
from cellabel.simulation._clones import Clone, draw_clone
from cellabel.simulation._conditions import Instrument, draw_conditions, draw_instrument
from cellabel.simulation._drifts import Drift, read_drifts
from cellabel.simulation._imaging import Station, expose_field, make_station
from cellabel.simulation._keywords import Culture, Microscope, read_keywords
from cellabel.simulation._physics import STAINS, VARIANCE_COMPONENTS, Physics, family_of, parameters_hash
from cellabel.simulation._plan import draw_plan, well_names
from cellabel.simulation._randomness import stream
from cellabel.simulation._scene import render_scene
from cellabel.simulation._truth import FieldTruth, field_truth, records, well_truth

__all__ = ["SimulatedPlate", "simulate_plate"]

_PLATE_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
_FIRST_DAY = datetime(2025, 1, 6, 8, tzinfo=UTC)


@dataclass(frozen=True)
class SimulatedPlate:
    """A simulated acquisition on disk and everything that is true of it.

    Attributes:
        plate_id: its name.
        path: the acquisition folder; the truth lies in `path / "truth"`.
        plan: one row a well, as in plate_plan.csv.
        cells: one row a cell with pixels in a field: `label` of the label images, areas, stain totals
            (electrons), DNA (2–4), state and flags.
        wells: one row a well: counts, mean stains, productivity (pg a cell and day, relative).
        fields: one row a field: the conditions it was imaged under.
        parameters: every setting, the instrument, the variance components and `parameters_hash`.
    """

    plate_id: str
    path: Path
    plan: pd.DataFrame
    cells: pd.DataFrame
    wells: pd.DataFrame
    fields: pd.DataFrame
    parameters: dict[str, Any]


@dataclass(frozen=True)
class _Run:
    """The checked arguments of one simulation."""

    plate_id: str
    wells: list[str]
    sites: int
    size: int
    seed: int
    stains: tuple[str, ...]
    drifts: tuple[Drift, ...]
    microscope: Microscope
    culture: Culture
    physics: Physics


def simulate_plate(
    path: str | os.PathLike[str],
    *,
    plate_id: str | None = None,
    wells: int | Sequence[str] = 24,
    sites: int = 2,
    size: int = 512,
    seed: int = 0,
    stains: Sequence[str] = STAINS,
    drift: tuple[str, float] | Sequence[tuple[str, float]] | None = None,
    drift_from: str | None = None,
    drift_shape: str = "step",
    workers: int | None = None,
    **microscope: Any,
) -> SimulatedPlate:
    """Write a plate of CHO clones as a microscope would export it, with its truth beside the images.

    The folder appears whole: it is written beside its place and renamed, `acquisition.json` last. The same
    arguments give the same bytes. A drift leaves the cells and their truth as they were, unless it is one of
    the biology, and the turned camera, which turns the label images as well.

    Args:
        path: acquisition folder to make; absent or empty.
        plate_id: None is made from the seed.
        wells: number of wells (the first of the smallest common plate) or their names.
        sites: fields a well.
        size: side of a field in pixels.
        seed: of everything but the instrument and the clones, which their names decide.
        stains: channels w2, w3, … in this order.
        drift: (kind, size in its unit) of `DRIFT_KINDS`, or several of them.
        drift_from: well from which on, in plate order, the plate drifts; None is all of it.
        drift_shape: "step", or "ramp" from the onset to the last well.
        workers: threads; None is one a core, at most 4. The result does not depend on it.
        microscope: fields of `Microscope` and of `Culture`.

    Raises:
        InputError: an argument out of range, an unknown keyword, or a folder that is not empty.
    """
    run = _checked(plate_id, wells, sites, size, seed, stains, drift, drift_from, drift_shape, microscope)
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already; give a folder that is absent or empty.")
    scratch = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    (scratch / "truth").mkdir(parents=True)
    try:
        plate = _write(run, scratch, target, workers or min(4, os.cpu_count() or 1))
        if target.exists():
            target.rmdir()
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return plate


def _checked(
    plate_id: str | None,
    wells: int | Sequence[str],
    sites: int,
    size: int,
    seed: int,
    stains: Sequence[str],
    drift: tuple[str, float] | Sequence[tuple[str, float]] | None,
    drift_from: str | None,
    drift_shape: str,
    keywords: Mapping[str, Any],
) -> _Run:
    microscope, culture = read_keywords(keywords)
    names = well_names(wells)
    for what, value, lower, upper in (
        ("sites", sites, 1, 100),
        ("size", size, 32, 4096),
        ("seed", seed, 0, 2**63),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not lower <= value <= upper:
            raise InputError(f"{what} is {value!r}; give a whole number from {lower} to {upper}.")
    plate_id = f"SIM{seed:05d}" if plate_id is None else plate_id
    if not isinstance(plate_id, str) or not _PLATE_ID.fullmatch(plate_id):
        raise InputError(
            f"{plate_id!r} is no plate id; use up to 100 letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit."
        )
    listed = isinstance(stains, Sequence) and not isinstance(stains, str)
    if not listed or any(stain not in STAINS for stain in stains) or len(set(stains)) < len(stains):
        raise InputError(f"stains is {stains!r}; give each of {', '.join(STAINS)} at most once, in a tuple.")
    drifts = read_drifts(drift, drift_from, drift_shape, names)
    physics = family_of(microscope.family)
    return _Run(
        plate_id, names, int(sites), int(size), int(seed), tuple(stains), drifts, microscope, culture, physics
    )


def _write(run: _Run, scratch: Path, target: Path, workers: int) -> SimulatedPlate:
    plan = draw_plan(run.wells, run.culture, run.seed)
    instrument = draw_instrument(run.microscope, run.physics)
    fields = draw_conditions(plan, run.sites, run.microscope, run.culture, run.drifts, run.seed)
    novel = fields.groupby("Metadata_Well")["new_clone"].max()
    replaced = (plan["role"] == "sample") & (plan["Metadata_Well"].map(novel) > 0)
    plan.loc[replaced, "clone"] += "-NEW"
    station = make_station(run.microscope, run.physics, instrument, run.size, run.seed)
    by_well = {row["Metadata_Well"]: row for row in records(plan)}
    jobs = [{**row, **by_well[row["Metadata_Well"]]} for row in records(fields)]
    with ThreadPoolExecutor(workers) as pool:
        truths = list(pool.map(lambda job: _field(run, station, job, scratch), jobs))
    fields.insert(0, "Metadata_Plate", run.plate_id)
    cells = pd.concat([truth.cells for truth in truths], ignore_index=True)
    wells = well_truth(plan, cells, truths, run.plate_id, run.seed, lambda row: _clone(run, row), run.physics)
    parameters = _parameters(run, instrument)
    plan.to_csv(scratch / "plate_plan.csv", index=False)
    for name, table in (("cells", cells), ("wells", wells), ("fields", fields)):
        table.to_csv(scratch / "truth" / f"{name}.csv", index=False, float_format="%.6g")
    _write_json(scratch / "truth" / "parameters.json", parameters)
    _write_json(scratch / "acquisition.json", _acquisition(run))
    return SimulatedPlate(run.plate_id, target, plan, cells, wells, fields, parameters)


def _parameters(run: _Run, instrument: Instrument) -> dict[str, Any]:
    """Everything that decided the plate, as plain data."""
    return {
        "plate_id": run.plate_id,
        "parameters_hash": parameters_hash(run.microscope.family),
        "seed": run.seed,
        "size": run.size,
        "sites": run.sites,
        "stains": list(run.stains),
        "drifts": [asdict(drift) for drift in run.drifts],
        "microscope": {k: v for k, v in asdict(run.microscope).items() if k != "acquired_at"},
        "culture": asdict(run.culture),
        "instrument": asdict(instrument),
        "physics": asdict(run.physics),
        "variance_components": {name: asdict(component) for name, component in VARIANCE_COMPONENTS.items()},
    }


def _acquisition(run: _Run) -> dict[str, Any]:
    """What the microscope would say of the acquisition; later seeds were acquired later."""
    after = timedelta(days=run.seed % 3650, minutes=7 * (run.seed % 60))
    acquired_at = run.microscope.acquired_at or _FIRST_DAY + after
    channels = {f"w{i}": role for i, role in enumerate(("transmitted", *run.stains), start=1)}
    return {
        "plate_id": run.plate_id,
        "acquired_at": (acquired_at if acquired_at.tzinfo else acquired_at.replace(tzinfo=UTC)).isoformat(),
        "instrument": run.microscope.instrument,
        "pixel_size_um": run.microscope.pixel_um,
        "objective": f"{run.microscope.preset}/{run.microscope.aperture:g}",
        "channels": channels,
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _clone(run: _Run, job: Mapping[str, Any]) -> Clone:
    """The clone of a well; the parental line and the reference clone are never new."""
    sample = job["role"] == "sample"
    return draw_clone(
        str(job["clone"]).removesuffix("-NEW"),
        str(job["role"]),
        run.microscope.family,
        run.physics,
        novelty=float(job.get("new_clone", 0.0)) if sample else 0.0,
        passages=run.culture.passage - 10 + float(job.get("passages", 0.0)),
    )


def _biology(run: _Run, job: Mapping[str, Any], clone: Clone, station: Station) -> FieldBiology:
    rng = stream("biology", run.seed)
    physics = run.physics
    rounded, dead, doublets, area, index = (
        float(rng.uniform(*ends))
        for ends in (physics.rounded, physics.dead, physics.doublets, physics.fixed_area, physics.fixed_index)
    )
    living = bool(job["unfixed"])
    dead = dead if run.culture.dead is None else run.culture.dead
    growth = float(np.exp(clone.log_growth)) * (0.0 if job["role"] == "blank" else 1.0)
    return FieldBiology(
        extent_um=station.grid.n * station.grid.fine_um,
        confluence=run.culture.confluence * float(job["density"]) * growth,
        dead=max(dead, float(job["dead"])),
        rounded=rounded + physics.living_rounded * living,
        doublets=doublets,
        area_factor=1.0 if living else area,
        index_factor=1.0 if living else index,
        motion_um_min=float(job["motion_um_min"]) if living else 0.0,
        well_log_gfp=physics.gfp_well_sd
        * float(stream("gfp", run.seed, job["Metadata_Well"]).standard_normal()),
    )


def _field(run: _Run, station: Station, job: Mapping[str, Any], scratch: Path) -> FieldTruth:
    """Draw, render, image and write one field."""
    well, site = job["Metadata_Well"], job["Metadata_Site"]
    clone = _clone(run, job)
    cells = draw_cells(
        stream("cells", run.seed, well, site), clone, _biology(run, job, clone, station), run.physics
    )
    scene = render_scene(
        stream("scene", run.seed, well, site), cells, station.grid.n, station.grid.fine_um, run.physics
    )
    noise_seed = run.seed if run.microscope.noise_seed is None else f"noise {run.microscope.noise_seed}"
    images = expose_field(station, scene, job, run.stains, stream("camera", noise_seed, well, site))
    stem = f"{run.plate_id}_{well}_s{site}"
    for i, image in enumerate(images, start=1):
        _write_image(scratch / f"{stem}_w{i}.tif", image)
    truth = field_truth(station, scene, cells, job, run.plate_id)
    for name, labels in truth.labels.items():
        tifffile.imwrite(scratch / "truth" / f"{stem}_{name}.tif", labels, compression="zlib", metadata=None)
    return truth


def _write_image(path: Path, image: NDArray[np.uint16]) -> None:
    tifffile.imwrite(path, image, photometric="minisblack", metadata=None, software="cellabel simulation")
