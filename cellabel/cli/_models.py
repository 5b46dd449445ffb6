"""The registry from the command line: which versions there are, and which one predicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellabel.cli._home import settings_of_existing_home
from cellabel.cli._output import Json, json_text, note, say, show, show_frame, working
from cellabel.cli._training import OrganelleName, measured_in_training, require_versions
from cellabel.errors import InputError

if TYPE_CHECKING:
    from cellabel.evaluation import Decision
    from cellabel.organelles import Organelle
    from cellabel.registry import ModelRegistry, ModelVersion

__all__ = ["models"]

models = typer.Typer(no_args_is_help=True, help="Model versions: compared, promoted and rolled back.")

REFUSED = 1
"""Exit code where the gate refuses: nothing was wrong with the input."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")]


@models.command("list")
def list_models(
    organelle: Annotated[
        str | None, typer.Argument(metavar="[ORGANELLE]", help="Only its versions.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List all versions, the newest first, and what was said of each."""
    from cellabel.organelles import organelle as recipe_of

    chosen = None if organelle is None else recipe_of(organelle).name
    settings = settings_of_existing_home()
    names = settings.organelles if chosen is None else (chosen,)
    with working("asking the registry"):
        from cellabel.registry import ModelRegistry

        registry = ModelRegistry()
        versions = [version for name in names for version in registry.versions(name)]
        missing = list(filter(None, map(registry.missing_champion, names)))
    if as_json:
        json_text([_described(version) for version in versions])
        return
    show(
        "Model versions",
        ("organelle", "version", "aliases", "registered", "pixel Pearson", "why", "gate"),
        [
            (
                version.organelle,
                version.version,
                version.aliases,
                f"{version.created_at:%Y-%m-%d %H:%M}",
                version.metrics.get("pixel_pearson"),
                version.tags.get("rollback_reason")
                or version.tags.get("promotion_reason")
                or version.tags.get("reason"),
                version.tags.get("gate_reason"),
            )
            for version in versions
        ],
    )
    for sentence in missing:
        note(sentence)


@models.command()
def compare(
    organelle: OrganelleName,
    versions: Annotated[
        list[str] | None, typer.Argument(help="Numbers or aliases; all versions if none is given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the metrics of versions side by side."""
    from cellabel.organelles import organelle as recipe_of

    name = recipe_of(organelle).name
    with working("asking the registry"):
        from cellabel.registry import ModelRegistry

        registry = ModelRegistry()
        require_versions(registry, name)
        table = registry.compare(name, *(versions or ()))
    if as_json:
        json_text({"organelle": name, "metrics": {str(v): table[v].to_dict() for v in table.columns}})
        return
    show_frame(f"{name}: metrics by version", table.rename(columns=lambda v: f"version {v}").reset_index())


@models.command()
def promote(
    organelle: OrganelleName,
    version: Annotated[
        str | None, typer.Option(help="A person's choice, past the gate: a number or challenger.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, where a person chooses; kept with the version.")] = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put the challenger before the gate, or make a version the champion by a person's choice.

    The drift streams follow a new champion. Exit code 1: the gate refuses the challenger.
    """
    from cellabel.organelles import organelle as recipe_of

    recipe = recipe_of(organelle)
    if (version is None) != (not reason.strip()):
        raise InputError(
            "A person's choice needs a version and a reason: give --version and --reason together."
        )
    with working(f"judging {recipe.name}"):
        from cellabel.registry import ModelRegistry

        registry = ModelRegistry()
        if version is None:
            outcome = _by_gate(registry, recipe, dry_run)
        else:
            outcome = _by_hand(registry, recipe, version, reason.strip(), dry_run)
        if outcome["promoted"] and not dry_run:
            outcome["drift_streams"] = _follow(registry, recipe)
    _tell(recipe.name, outcome, dry_run, as_json)
    if not outcome["promoted"]:
        raise typer.Exit(REFUSED)


@models.command()
def rollback(
    organelle: OrganelleName,
    reason: Annotated[
        str, typer.Option(help="Why; kept with the version that steps back.")
    ] = "asked for by a person",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Return to the previous champion; the drift streams follow it."""
    from cellabel.organelles import organelle as recipe_of

    recipe = recipe_of(organelle)
    with working(f"rolling {recipe.name} back"):
        from cellabel.registry import ModelRegistry

        registry = ModelRegistry()
        require_versions(registry, recipe.name)
        back = registry.previous_champion(recipe.name)
        if back is not None:
            measured_in_training(registry, recipe.name, back.version)
        if not dry_run or back is None:
            back = registry.rollback(recipe.name, reason=reason)
        outcome: dict[str, Any] = {"promoted": True, "version": back.version, "reason": reason}
        if not dry_run:
            outcome["drift_streams"] = _follow(registry, recipe)
    _tell(recipe.name, outcome, dry_run, as_json)


@models.command()
def card(
    organelle: OrganelleName,
    version: Annotated[str, typer.Argument(help="A number or an alias.")] = "champion",
    as_json: Json = False,
) -> None:
    """Print the model card of a version, Markdown."""
    from cellabel.organelles import organelle as recipe_of

    name = recipe_of(organelle).name
    with working("asking the registry"):
        from cellabel.registry import ModelRegistry

        text = ModelRegistry().card(name, version)
    if as_json:
        json_text({"organelle": name, "version": version, "card": text})
        return
    typer.echo(text)


@models.command()
def export(
    organelle: OrganelleName,
    out: Annotated[
        Path, typer.Argument(help="The .zip to write, replaced if it exists.", show_default=False)
    ],
    version: Annotated[str, typer.Option(help="A number or an alias.")] = "champion",
    author: Annotated[
        list[str] | None, typer.Option(help="Who answers for the model; may be repeated.")
    ] = None,
    licence: Annotated[
        str, typer.Option("--license", help="Of the weights, an SPDX identifier.")
    ] = "Apache-2.0",
    as_json: Json = False,
) -> None:
    """Write a version as a package of the BioImage Model Zoo, which other software opens."""
    from cellabel.organelles import organelle as recipe_of

    name = recipe_of(organelle).name
    with working(f"packing {name}"):
        from cellabel.registry import ModelRegistry

        registry = ModelRegistry()
        chosen = registry.version(name, version)
        authors = tuple(author or ("cellabel",))
        registry.export(name, chosen.version, out, authors=authors, licence=licence)
    if as_json:
        json_text({"organelle": name, "version": chosen.version, "path": out})
        return
    say(f"{out}: {name} version {chosen.version}.")


def _by_gate(registry: ModelRegistry, recipe: Organelle, dry_run: bool) -> dict[str, Any]:
    from cellabel.alerts import AlertLedger
    from cellabel.loop import judge_challenger
    from cellabel.registry import Standing
    from cellabel.stores import open_home

    home, challenger = open_home(), registry.challenger(recipe.name)
    if challenger is None:
        raise InputError(f"{recipe.name} has no challenger: train one by cellabel train {recipe.name}.")
    if challenger.standing is Standing.CHAMPION:
        if not dry_run:
            registry.adopt_champion(recipe.name)
        return {"promoted": True, "version": challenger.version, "reason": "it already is the champion"}
    if not challenger.standing.may_be_judged:
        said = "rollback_reason" if challenger.standing is Standing.ROLLED_BACK else "gate_reason"
        raise InputError(
            f"Version {challenger.version} of {recipe.name} was {challenger.standing} already "
            f"({challenger.tags[said]}): train another, or promote it with --version and --reason."
        )
    measured_in_training(registry, recipe.name, challenger.version)
    ledger = AlertLedger(str(home.alerts))
    if dry_run:
        from cellabel.cli._rehearsal import SilentLedger, rehearsal_of

        registry, ledger = rehearsal_of(registry), SilentLedger(str(home.alerts))
    decision = judge_challenger(home, registry, ledger, recipe)
    if decision is None:
        raise InputError(f"{recipe.name} has no challenger any more: another process has judged it just now.")
    return _outcome(challenger, decision)


def _outcome(challenger: ModelVersion, decision: Decision) -> dict[str, Any]:
    return {
        "promoted": decision.promote,
        "version": challenger.version,
        "reason": decision.reason,
        "comparison": decision.table,
        "warnings": list(decision.warnings),
    }


def _by_hand(
    registry: ModelRegistry, recipe: Organelle, version: str, reason: str, dry_run: bool
) -> dict[str, Any]:
    chosen = registry.version(recipe.name, version)
    measured_in_training(registry, recipe.name, chosen.version)
    if not dry_run:
        registry.promote(recipe.name, chosen.version, reason=reason)
        registry.refresh_card(recipe.name, chosen.version)
    return {"promoted": True, "version": chosen.version, "reason": reason}


def _follow(registry: ModelRegistry, recipe: Organelle) -> Any:
    """A new epoch of the drift streams, where they follow another champion by now."""
    from cellabel.loop import follow_champion
    from cellabel.stores import open_home

    return follow_champion(open_home(), registry, recipe)


def _tell(organelle: str, outcome: dict[str, Any], dry_run: bool, as_json: bool) -> None:
    if as_json:
        json_text({"organelle": organelle, "dry_run": dry_run, **outcome})
        return
    if "comparison" in outcome:
        from cellabel.evaluation.gate import COMPARISON

        comparison = outcome["comparison"][list(COMPARISON)]
        show_frame("Comparison on held-out wells: mean |log error|", comparison)
    if len(outcome.get("drift_streams", ())):
        show_frame("Drift streams", outcome["drift_streams"])
    is_champion = "would be the champion" if dry_run else "is the champion"
    refused = "would be refused" if dry_run else "was refused"
    verb = is_champion if outcome["promoted"] else refused
    say(f"{organelle} version {outcome['version']} {verb}: {outcome['reason']}")
    for warning in outcome.get("warnings", ()):
        note(warning)


def _described(version: ModelVersion) -> dict[str, Any]:
    return {
        "organelle": version.organelle,
        "version": version.version,
        "aliases": version.aliases,
        "created_at": version.created_at,
        "metrics": version.metrics,
        "tags": version.tags,
    }
