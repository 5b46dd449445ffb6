"""Models made and judged: trained on the stored plates, evaluated on the wells held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellabel.cli._files import read_values
from cellabel.cli._output import Json, json_text, note, say, show_frame, working
from cellabel.errors import InputError

if TYPE_CHECKING:
    from cellabel.loop.held_out import HeldOut
    from cellabel.settings import Settings

__all__ = ["OrganelleName", "evaluate", "require_versions", "train"]

OrganelleName = Annotated[
    str,
    typer.Argument(
        metavar="ORGANELLE", help="nuclei, er, golgi, gfp, actin or nucleoli.", show_default=False
    ),
]


def train(
    organelle: OrganelleName,
    max_steps: Annotated[
        int | None,
        typer.Option(help="Optimiser steps; the settings' number if not given.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of splits, crops and initial weights.", show_default=False)
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting of the training, NAME=VALUE; may be repeated."),
    ] = None,
    corruption: Annotated[
        str,
        typer.Option(help="Corruption to withstand: defocus, contrast or brightness.", show_default=False),
    ] = "",
    severity: Annotated[
        list[int] | None,
        typer.Option(
            help="Severities of that corruption: 1…5 for defocus, −5…5 for the others; may be repeated."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model on all accepted stained plates and register it as the challenger."""
    if bool(corruption) != bool(severity):
        raise InputError("A corruption needs its severities: give --corruption and --severity together.")
    from cellabel.organelles import organelle as recipe_of
    from cellabel.settings import load_settings
    from cellabel.severities import amount_of

    for one in severity or ():
        amount_of(corruption, one)
    recipe = recipe_of(organelle)
    settings = _changed(load_settings(), max_steps, seed, read_values(setting))
    with working(f"training {recipe.name}") as tell:
        from cellabel.loop import build_current_dataset, train_challenger
        from cellabel.loop.training import training_config
        from cellabel.registry import ModelRegistry
        from cellabel.stores import open_home

        home, against = open_home(settings), (corruption, tuple(severity or ()))
        training_config(settings, against)
        dataset = build_current_dataset(home, recipe)
        tell(f"{len(dataset.train)} fields to learn from, {len(dataset.test)} held out")
        challenger = train_challenger(
            home,
            dataset,
            ModelRegistry(),
            corruption=against,
            tags={"reason": "asked for by a person"},
            progress=tell,
        )
    version = challenger.version
    if as_json:
        json_text(
            {
                "organelle": recipe.name,
                "version": version.version,
                "aliases": version.aliases,
                "dataset": dataset.version,
                "seconds": challenger.seconds,
                "pixel_pearson": challenger.pixel_pearson,
                "metrics": version.metrics,
                "agreement": challenger.agreement,
            }
        )
        return
    show_frame("Measured on held-out wells: stained against predicted", _short(challenger.agreement))
    say(
        f"{recipe.name} version {version.version} ({', '.join(version.aliases) or 'no alias'}) after "
        f"{challenger.seconds:g} s; pixel Pearson {challenger.pixel_pearson:.3f} on held-out fields."
    )
    note(f"Put it before the gate by: cellabel models promote {recipe.name}")


def evaluate(
    organelle: OrganelleName,
    version: Annotated[
        str | None,
        typer.Option(help="A number, champion or challenger; the champion if not given, else the newest."),
    ] = None,
    anew: Annotated[
        bool,
        typer.Option(
            "--anew", help="Predict the present held-out wells again, instead of what training measured."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how well a version measures wells that it has not seen, clean and corrupted."""
    from cellabel.organelles import organelle as recipe_of

    recipe = recipe_of(organelle)
    with working(f"evaluating {recipe.name}"):
        from cellabel.loop import robustness_table
        from cellabel.registry import ModelRegistry

        registry = ModelRegistry()
        require_versions(registry, recipe.name)
        chosen = registry.version(recipe.name, _which(registry, recipe.name) if version is None else version)
        held_out = (_judged_anew if anew else measured_in_training)(registry, recipe.name, chosen.version)
        agreement, robustness = held_out.agreement(), robustness_table(held_out, recipe)
    if as_json:
        json_text(
            {
                "organelle": recipe.name,
                "version": chosen.version,
                "aliases": chosen.aliases,
                "pixel_pearson": held_out.pixel_pearson(),
                "agreement": agreement,
                "robustness": robustness,
            }
        )
        return
    show_frame(
        f"{recipe.name} version {chosen.version} on held-out wells: stained against predicted",
        _short(agreement),
    )
    show_frame("Under corruptions: mean |log error| of what is measured", robustness)
    say(f"Pixel Pearson {held_out.pixel_pearson():.3f}, mean over clean held-out fields.")


def measured_in_training(registry: Any, organelle: str, version: int) -> HeldOut:
    """What was measured on the held-out wells when a version was trained.

    Raises:
        InputError: the version was registered without it.
    """
    from cellabel.loop.held_out import read_held_out

    try:
        return read_held_out(registry.folder(organelle, version))
    except FileNotFoundError as error:
        raise InputError(
            f"Version {version} of {organelle} was registered without measurements on held-out wells: train "
            "one by cellabel train, or evaluate it with --anew."
        ) from error


def _judged_anew(registry: Any, organelle: str, version: int) -> HeldOut:
    from cellabel.loop import current_dataset
    from cellabel.loop.training import judge
    from cellabel.organelles import organelle as recipe_of
    from cellabel.stores import open_home

    home = open_home()
    dataset = current_dataset(home, recipe_of(organelle))
    return judge(home, registry.load(organelle, version), dataset, test_only=True)


def require_versions(registry: Any, organelle: str) -> None:
    """Check that there is a model at all.

    Raises:
        InputError: no version of the organelle is registered.
    """
    if not registry.versions(organelle):
        raise InputError(f"There is no version of {organelle} yet: train one by cellabel train {organelle}.")


def _which(registry: Any, organelle: str) -> str | int:
    """The champion, else the newest version, else the champion's own complaint."""
    versions = registry.versions(organelle)
    return "champion" if not versions or registry.champion(organelle) else versions[0].version


def _changed(settings: Settings, max_steps: int | None, seed: int | None, others: dict[str, Any]) -> Settings:
    """The settings with another training."""
    training = {**settings.models.training, **others}
    if max_steps is not None:
        training = {**training, "max_steps": max_steps, "epochs": None}
    if seed is not None and seed < 0:
        raise InputError(f"The seed is {seed}: give a whole number from 0.")
    changes: dict[str, Any] = {"training": training} | ({} if seed is None else {"seed": seed})
    return settings.model_copy(update={"models": settings.models.model_copy(update=changes)})


def _short(agreement: Any) -> Any:
    """The columns that fit on a line."""
    columns = (
        "feature",
        "pearson",
        "spearman",
        "concordance",
        "bias",
        "loa_lower",
        "loa_upper",
        "n",
        "reason",
    )
    return agreement[[name for name in columns if name in agreement]]
