"""Single images and stored plates: predicted, measured, made worse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellabel.cli._files import IMAGE_SUFFIXES, check_table_name, read_image, write_image, write_table
from cellabel.cli._output import Json, counted, json_text, note, say, show, show_frame, working
from cellabel.cli._training import OrganelleName, require_versions
from cellabel.errors import InputError

if TYPE_CHECKING:
    from cellabel.organelles import Organelle
    from cellabel.stores import Home

__all__ = ["corrupt", "measure", "predict"]

WELL_COLUMNS = 12
"""Columns of a table of wells that fit on a line."""


def predict(
    organelle: OrganelleName,
    target: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE|PLATE_ID",
            help="A transmitted-light image (.tif, .png), or a stored plate.",
            show_default=False,
        ),
    ],
    version: Annotated[str, typer.Option(help="A number, champion or challenger.")] = "champion",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Image: the .tif to write, float32 in the stain's units (a probability for gfp); "
            "IMAGE_ORGANELLE.tif in the current folder if not given. Plate: a .csv or .parquet for the table "
            "of its wells."
        ),
    ] = None,
    pixel_size_um: Annotated[
        float | None,
        typer.Option(help="Image: side of its pixels, µm; the model's if not given. A plate knows its own."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict a stain: of one image into a file, or of a stored plate into the store, measured."""
    from cellabel.organelles import organelle as recipe_of
    from cellabel.stores import open_home

    recipe, path, home = recipe_of(organelle), Path(target), open_home()
    if path.is_file() or path.suffix.lower() in IMAGE_SUFFIXES:
        out = out or Path(f"{path.stem}_{recipe.name}.tif")
        _predict_image(recipe, path, version, out, pixel_size_um, as_json)
    elif target in home.plates.names():
        _predict_plate(home, recipe, target, version, out, as_json)
    elif path.is_dir():
        raise InputError(f"{path} is a folder: import it by cellabel import {path}, then predict the plate.")
    else:
        raise InputError(
            f"There is neither an image nor a stored plate {target!r}: see cellabel plates list."
        )


def _predict_image(
    recipe: Organelle, path: Path, version: str, out: Path, pixel_size_um: float | None, as_json: bool
) -> None:
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"{out} cannot hold a predicted stain: name a file that ends in .tif.")
    image = read_image(path)
    with working(f"predicting {recipe.name} in {path.name}"):
        from cellabel.prediction import predict_stain
        from cellabel.registry import ModelRegistry

        registry = ModelRegistry()
        require_versions(registry, recipe.name)
        model = registry.load(recipe.name, version)
        size = model.pixel_size_um if pixel_size_um is None else pixel_size_um
        predicted = predict_stain(model, image, pixel_size_um=size).image
    units = "probability" if model.binary else str(model.config["intensity_units"])
    told = {
        "organelle": recipe.name,
        "model": model.name,
        "version": int(model.version),
        "units": units,
        "pixel_size_um": size,
    }
    write_image(out, predicted.astype("float32"), source=path, description=told)
    if as_json:
        spread = {"min": predicted.min(), "mean": predicted.mean(), "max": predicted.max()}
        json_text({**told, "path": out, "shape": predicted.shape, **spread})
        return
    say(
        f"{out}: {recipe.name} by {model.name} version {model.version}, {predicted.shape[0]} × "
        f"{predicted.shape[1]} px, {predicted.min():.4g} to {predicted.max():.4g} ({units}); "
        f"{_pixel(size, pixel_size_um)}."
    )


def _pixel(size: float, given: float | None) -> str:
    """The size of a pixel that was gone by, and whether it is a guess."""
    return f"{size:g} µm a pixel" + (" assumed" if given is None else "")


def _predict_plate(
    home: Home, recipe: Organelle, plate_id: str, version: str, out: Path | None, as_json: bool
) -> None:
    if out is not None:
        check_table_name(out)
    with working(f"predicting {recipe.name} in plate {plate_id}") as tell:
        from cellabel.alerts import AlertLedger
        from cellabel.loop import measure_prediction, store_prediction, watch_new_champion
        from cellabel.plates import open_plate
        from cellabel.registry import ModelRegistry

        registry, plate = ModelRegistry(), open_plate(home.plates, plate_id)
        require_versions(registry, recipe.name)
        number = registry.version(recipe.name, version).version
        record = store_prediction(home, plate, registry.load(recipe.name, number), number)
        tell(f"{counted(record['n_fields'], 'field')} predicted, measuring")
        measured = measure_prediction(home, plate_id, recipe, registry)
        trial = watch_new_champion(home, registry, AlertLedger(str(home.alerts)), recipe)
    if out is not None:
        write_table(out, measured.wells)
    place = home.predictions.path(f"{plate_id}/{recipe.name}")
    if as_json:
        told = {"plate_id": plate_id, "organelle": recipe.name, "version": number, "path": place}
        json_text({**told, "wells": measured.wells, "agreement": measured.agreement})
        return
    wells = measured.wells
    shown = ["Metadata_Well", *(name for name in map(str, wells) if name.startswith(recipe.prefix))][
        :WELL_COLUMNS
    ]
    short = wells[shown].rename(columns=lambda name: str(name).split("_", 1)[1])
    show_frame(f"{recipe.name} in {plate_id}, by well", short)
    if measured.agreement is not None:
        columns = ["feature", "pearson", "concordance", "bias", "n"]
        show_frame("Against the plate's own stain", measured.agreement[columns])
    say(f"{place}: {counted(record['n_fields'], 'field')} by version {number}.")
    if trial.champion:
        note(f"{recipe.name}: {trial.sentence}.")


def measure(
    organelle: OrganelleName,
    image: Annotated[
        Path, typer.Argument(help="A stained or predicted image (.tif, .png).", show_default=False)
    ],
    pixel_size_um: Annotated[
        float | None, typer.Option(help="Side of a pixel, µm; 0.65 if not given.")
    ] = None,
    prepared: Annotated[
        bool | None,
        typer.Option(
            "--prepared/--raw",
            help="Whether the background is off already (a predicted image), or is taken off first (a raw "
            "stain). By default floats are prepared and whole numbers raw.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A .csv or .parquet for one row an object.")] = None,
    as_json: Json = False,
) -> None:
    """Segment one image by the organelle's recipe and measure its objects."""
    from cellabel.organelles import REFERENCE_PIXEL_SIZE_UM
    from cellabel.organelles import organelle as recipe_of

    recipe, pixels = recipe_of(organelle), read_image(image)
    if out is not None:
        check_table_name(out)
    is_prepared = pixels.dtype.kind == "f" if prepared is None else prepared
    with working(f"measuring {recipe.name} in {image.name}"):
        from cellabel.measurement import measure_field, measure_objects
        from cellabel.preprocessing import prepare_target
        from cellabel.segmentation import segment

        stain = pixels if is_prepared else prepare_target(pixels, recipe, pixel_size_um=pixel_size_um)
        labels = segment(stain, recipe, pixel_size_um=pixel_size_um)
        field = measure_field(labels, stain, organelle=recipe, pixel_size_um=pixel_size_um)
        objects = measure_objects(labels, stain, organelle=recipe, pixel_size_um=pixel_size_um)
    if out is not None:
        write_table(out, objects)
    values: dict[Any, Any] = field.iloc[0].to_dict()
    if as_json:
        json_text({"image": image, "prepared": is_prepared, "field": values, "objects": objects})
        return
    show(f"{recipe.name} in {image}", ("feature", "value"), list(values.items()))
    size = REFERENCE_PIXEL_SIZE_UM if pixel_size_um is None else pixel_size_um
    say(
        f"{counted(len(objects), 'object')}; {_pixel(size, pixel_size_um)}"
        + (f"; one row each in {out}." if out else ".")
    )
    note(
        "Taken as prepared: no background was subtracted."
        if is_prepared
        else "Its background was subtracted first."
    )


def corrupt(
    image: Annotated[Path, typer.Argument(help="A raw image (.tif, .png).", show_default=False)],
    kind: Annotated[str, typer.Argument(help="defocus, contrast or brightness.", show_default=False)],
    severity: Annotated[
        int,
        typer.Argument(help="0…5 for defocus, −5…5 for the others; 0 changes nothing.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Argument(help="The file to write, of the same pixel type.", show_default=False)
    ],
    full_scale: Annotated[
        float | None,
        typer.Option(
            help="The camera's range, e.g. 4095 for 12 bits; 255 or 65535 by the pixel type if not given."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an image worse as a badly set microscope would: one case of the table of corruptions."""
    from cellabel.corruptions import DESTROYED_SHARE, clipped_share
    from cellabel.corruptions import corrupt as corrupted_by

    pixels = read_image(image)
    corrupted = corrupted_by(pixels, kind, severity, full_scale=full_scale)
    clipped = clipped_share(pixels, kind, severity, full_scale=full_scale)
    write_image(out, corrupted, source=image)
    if as_json:
        json_text({"path": out, "kind": kind, "severity": severity, "clipped_share": clipped})
        return
    say(f"{out}: {kind} {severity:+d}, {clipped:.1%} of the pixels clipped.")
    if clipped > DESTROYED_SHARE:
        note("More than half of the pixels are clipped: too little is left to judge by.")
