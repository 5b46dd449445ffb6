"""Simulated plates, on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cellabel.cli._files import read_values, writing
from cellabel.cli._output import Json, counted, json_text, say, working
from cellabel.errors import InputError

__all__ = ["simulate"]


def simulate(
    folder: Annotated[Path, typer.Argument(help="Acquisition folder to make; absent or empty.")],
    plate_id: Annotated[
        str | None, typer.Option(help="Its plate id; made from the seed if not given.")
    ] = None,
    wells: Annotated[str, typer.Option(help="How many wells, or their names: A01,B03.")] = "24",
    sites: Annotated[int, typer.Option(help="Fields a well.")] = 2,
    size: Annotated[int, typer.Option(help="Side of a field, px.")] = 512,
    seed: Annotated[int, typer.Option(help="Of everything but the instrument and the clones.")] = 0,
    stain: Annotated[
        list[str] | None,
        typer.Option(
            help="A stain to image: nuclei, er, golgi or gfp; may be repeated. All four if not given."
        ),
    ] = None,
    unstained: Annotated[bool, typer.Option("--unstained", help="Image transmitted light alone.")] = False,
    drift: Annotated[
        str | None,
        typer.Option(
            help="What goes wrong, its size in --drift-size: defocus (µm), lamp (fraction of the level), "
            "bias (degrees), tilt (µm over the plate), dust (spots), medium (refractive index), vibration "
            "(µm), condenser (factor on its aperture), decentre (fraction of the aperture), camera (90, 180 "
            "or 270 degrees), mirror (1), density (fraction of cells), new_clone (standard deviations), "
            "passage (passages), mass_death (fraction dead), unfixed (µm a minute)."
        ),
    ] = None,
    drift_size: Annotated[float | None, typer.Option(help="Size of the drift, in its kind's unit.")] = None,
    drift_from: Annotated[str | None, typer.Option(help="Well from which on the plate drifts.")] = None,
    drift_shape: Annotated[str, typer.Option(help="step, or ramp up to the last well.")] = "step",
    preset: Annotated[
        str, typer.Option(help="Objective: 10x (0.65 µm/px), 20x (0.325) or 40x (0.1625).")
    ] = "20x",
    instrument: Annotated[
        str, typer.Option(help="Which microscope; decides its optics and camera.")
    ] = "scope-1",
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any other setting of microscope or culture, NAME=VALUE; may be repeated."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a plate of CHO clones as a microscope would export it, with its truth beside the images."""
    if (drift is None) != (drift_size is None):
        raise InputError("A drift needs a kind and a size: give --drift and --drift-size together.")
    if unstained and stain:
        raise InputError("A plate is stained or not: give --stain or --unstained.")
    from cellabel.simulation import STAINS, simulate_plate

    options = _options({"preset": preset, "instrument": instrument} | read_values(setting))
    with working(f"simulating {folder}"), writing(folder):
        plate = simulate_plate(
            folder,
            plate_id=plate_id,
            wells=_wells(wells),
            sites=sites,
            size=size,
            seed=seed,
            stains=() if unstained else tuple(stain or STAINS),
            drift=None if drift is None or drift_size is None else (drift, drift_size),
            drift_from=drift_from,
            drift_shape=drift_shape,
            **options,
        )
    if as_json:
        json_text(
            {
                "plate_id": plate.plate_id,
                "path": plate.path,
                "wells": plate.plan["Metadata_Well"].tolist(),
                "fields": len(plate.fields),
                "cells": len(plate.cells),
                "parameters_hash": plate.parameters["parameters_hash"],
            }
        )
        return
    say(
        f"{plate.path}: plate {plate.plate_id}, {counted(len(plate.plan), 'well')}, "
        f"{counted(len(plate.fields), 'field')}, {counted(len(plate.cells), 'cell')}; "
        f"the truth lies in {plate.path / 'truth'}."
    )


def _wells(text: str) -> int | list[str]:
    """A number of wells, or their names."""
    return int(text) if text.strip().isdecimal() else [name.strip() for name in text.split(",")]


def _options(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of the microscope and the culture, each of a type that its field takes."""
    from dataclasses import fields

    from pydantic import TypeAdapter, ValidationError

    from cellabel.simulation import Culture, Microscope

    known = {field.name: kind for kind in (Microscope, Culture) for field in fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"No setting is called {name!r}; there are {', '.join(sorted(known))}.")
        try:
            TypeAdapter(known[name]).validate_python({name: value})
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ").rstrip(".")
            raise InputError(f"The setting {name} cannot be {value!r}: {reason}.") from error
    return values
