"""Plates: taken in, listed, released and retired."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellabel.cli._home import settings_of_existing_home
from cellabel.cli._output import Json, counted, json_text, note, say, show, working
from cellabel.errors import InputError

if TYPE_CHECKING:
    from cellabel.plates import Acquisition
    from cellabel.stores import Home

__all__ = ["import_folder", "plates"]

plates = typer.Typer(no_args_is_help=True, help="The stored plates: what is in, and what may be used.")

STATUSES = ("accepted", "quarantined", "retired", "arriving", "damaged")
"""What a plate may be; damaged: its record cannot be read."""

KNOWN = ("n_fields", "n_quarantined", "channels", "pixel_size_um", "acquired_at", "instrument", "source")
"""Fields of a plate's record that are shown."""

PlateId = Annotated[str, typer.Argument(help="A stored plate's id.", show_default=False)]


def import_folder(
    folder: Annotated[Path, typer.Argument(help="The folder that the instrument wrote.", show_default=False)],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is there and what is wrong; write nothing.")
    ] = False,
    layout: Annotated[
        str | None,
        typer.Option(
            help="metaxpress, phenix, cellvoyager, ome_zarr, stack, ics, container, ome_tiff, regex, or a "
            "layout.yaml elsewhere; found by names and contents if not given."
        ),
    ] = None,
    plate_id: Annotated[str | None, typer.Option(help="Another plate id than the acquisition's own.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of a plate that another folder brought.")
    ] = False,
    link: Annotated[
        bool, typer.Option("--link", help="Refer to a plate that is OME-Zarr already instead of copying it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Verify an acquisition folder and store it as a plate; with --dry-run, only say what it holds."""
    from cellabel.plates import open_acquisition
    from cellabel.stores import check_plate_id, open_home

    home = open_home()
    acquisition = open_acquisition(folder, layout, channels=home.settings.inbox.channels)
    name = check_plate_id(acquisition.plate_id if plate_id is None else plate_id)
    if dry_run:
        with working(f"reading {folder}"):
            found = _contents(acquisition, name, home.settings.inbox.max_bad_share)
        json_text(found) if as_json else _show_contents(found)
        return
    owner = (home.plates.record(name) or {}).get("source")
    if owner and not replace and Path(owner) != folder.resolve():
        raise InputError(
            f"Plate {name} has been brought by {owner} already: give another --plate-id, or --replace it."
        )
    from cellabel.cli._intake import take_in_acquisition

    with working(f"importing {folder} as {name}"):
        taken = take_in_acquisition(home, acquisition, name, link=link)
    failed = taken.quality[~taken.quality["passed"]]
    if as_json:
        json_text(
            {**_state(home, name), "failed_quality": failed[["Metadata_Well", "Metadata_Site", "reason"]]}
        )
        return
    plate = taken.plate
    say(
        f"Plate {name} is in: {counted(len(plate.wells), 'well')}, {counted(len(taken.quality), 'field')} of "
        f"{', '.join(plate.channels)}; quarantined: {counted(len(plate.quarantined), 'field')}."
    )
    if len(failed):
        columns = ["Metadata_Well", "Metadata_Site", "reason"]
        show(
            "Fields that fail the quality check",
            ["well", "site", "reason"],
            failed[columns].to_numpy().tolist(),
        )


@plates.command("list")
def list_plates(
    status: Annotated[
        str | None, typer.Option(help="Only these: accepted, quarantined, retired, arriving or damaged.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the plates: state, channels, when imaged, what has been predicted, drift."""
    from cellabel.stores import open_home

    if status not in (None, *STATUSES):
        raise InputError(f"No plate is called {status!r}: give one of {', '.join(STATUSES)}.")
    home = open_home(settings_of_existing_home())
    found = [_state_or_damage(home, name) for name in home.plates.names()]
    found = [state for state in found if status in (None, state["status"])]
    if as_json:
        json_text(found)
        return
    columns = ("plate", "status", "fields", "channels", "acquired", "predicted by", "drift", "reason")
    show(
        f"Plates in {home.plates.root}",
        columns,
        [
            (
                state["plate_id"],
                state["status"],
                state["n_fields"],
                state["channels"],
                (state["acquired_at"] or "")[:16],
                [f"{name} v{version}" for name, version in state["predicted"].items()],
                state["drift"],
                state["reason"],
            )
            for state in found
        ],
    )


@plates.command("show")
def show_plate(plate: PlateId, as_json: Json = False) -> None:
    """Show all that is known of a plate, the fields that failed among it."""
    from cellabel.stores import open_home

    home = open_home()
    _record(home, plate)
    state = _state(home, plate) | {"failed_quality": []}
    if home.tables.has("quality", plate):
        quality = home.tables.read("quality", plate)
        columns = ["Metadata_Well", "Metadata_Site", "reason"]
        state["failed_quality"] = quality.loc[~quality["passed"], columns].to_dict("records")
    if as_json:
        json_text(state)
        return
    show(f"Plate {plate}", ("", ""), _rows(state))
    if state["failed_quality"]:
        failed = [list(row.values()) for row in state["failed_quality"]]
        show("Fields that fail the quality check", ("well", "site", "reason"), failed)


@plates.command()
def release(
    plate: PlateId,
    for_training: Annotated[
        bool, typer.Option("--for-training", help="Let it be trained on although it drifted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let a quarantined or retired plate be used again."""
    from cellabel.stores import open_home

    home = open_home()
    record = _record(home, plate)
    if not record.get("version") or not record.get("n_fields"):
        raise InputError(
            f"Plate {plate} has no usable field in the store "
            f"({record.get('reason') or 'it was never imported'}): import a better export of it."
        )
    changes: dict[str, Any] = {"status": "accepted", "reason": "", "quarantined_by": ""}
    home.plates.update_record(plate, **changes, **({"accepted_for_training": True} if for_training else {}))
    if not home.tables.has("acquisition", plate):
        from cellabel.loop import look_at
        from cellabel.plates import open_plate

        with working(f"looking at the fields of {plate}"):
            look_at(home, open_plate(home.plates, plate))
    if as_json:
        json_text(_state(home, plate))
        return
    say(f"Plate {plate} is accepted" + (", for training too." if for_training else "."))
    note(f"Predict it by: cellabel predict ORGANELLE {plate}")


@plates.command()
def retire(
    plate: PlateId,
    reason: Annotated[str, typer.Option(help="Why; kept with the plate.")] = "retired by a person",
    as_json: Json = False,
) -> None:
    """Keep a plate, but use it no more: neither to predict nor to train."""
    from cellabel.stores import open_home

    home = open_home()
    _record(home, plate)
    home.plates.update_record(plate, status="retired", reason=reason, accepted_for_training=False)
    json_text(_state(home, plate)) if as_json else say(f"Plate {plate} is retired: {reason}.")


def _rows(state: dict[str, Any]) -> list[tuple[str, Any]]:
    """A plate's state for people: whether it may train although it drifted is said where it matters."""
    shown = {
        **{name: value for name, value in state.items() if name != "failed_quality"},
        "predicted": [f"{name} v{version}" for name, version in state["predicted"].items()],
    }
    if shown.pop("accepted_for_training"):
        shown["for_training"] = "released although it drifted"
    return [(name.replace("_", " "), value) for name, value in shown.items()]


def _record(home: Home, plate: str) -> dict[str, Any]:
    """What the store knows of a plate.

    Raises:
        InputError: nothing.
    """
    record = home.plates.record(plate)
    if record is None:
        raise InputError(
            f"There is no plate {plate!r} in {home.plates.root}: list them by cellabel plates list."
        )
    return record


def _state_or_damage(home: Home, plate: str) -> dict[str, Any]:
    """As `_state`; a plate whose records cannot be read does not hide the others."""
    try:
        return _state(home, plate)
    except InputError as error:
        nothing = dict.fromkeys((*KNOWN, "content_hash"))
        return {"plate_id": plate, "status": "damaged", "reason": str(error), **nothing} | {
            "accepted_for_training": False,
            "predicted": {},
            "drift": "",
        }


def _state(home: Home, plate: str) -> dict[str, Any]:
    from cellabel.loop import plate_status

    record, status = home.plates.record(plate) or {}, plate_status(home, plate)
    return {
        "plate_id": plate,
        "status": status.status,
        "reason": status.reason,
        **{name: record.get(name) for name in KNOWN},
        "content_hash": record.get("content_hash"),
        "accepted_for_training": bool(record.get("accepted_for_training")),
        "predicted": status.predicted,
        "drift": status.drift,
    }


def _contents(acquisition: Acquisition, plate_id: str, max_bad_share: float) -> dict[str, Any]:
    """What an acquisition holds and what an import would make of it."""
    bad = acquisition.quarantined
    share = len(bad) / len(acquisition.fields)
    return {
        "plate_id": plate_id,
        "layout": acquisition.layout,
        "explanation": acquisition.explanation,
        "channels": acquisition.channels,
        "pixel_size_um": acquisition.pixel_size_um,
        "acquired_at": acquisition.acquired_at,
        "instrument": acquisition.instrument,
        "planned_wells": 0 if acquisition.plan is None else len(acquisition.plan),
        "n_fields": len(acquisition.fields),
        "n_quarantined": len(bad),
        "would_be": "quarantined" if share == 1 or share > max_bad_share else "accepted",
        "wells": [_well(acquisition, well) for well in acquisition.wells],
        "issues": [
            {"well": i.well, "site": i.site, "channel": i.channel, "reason": i.reason, "effect": i.effect}
            for i in acquisition.issues
        ],
    }


def _well(acquisition: Acquisition, well: str) -> dict[str, Any]:
    sites = [site for name, site in acquisition.fields if name == well]
    shown = [
        role for role in acquisition.channels if any((well, s, role) in acquisition.slots for s in sites)
    ]
    missing = [
        f"site {site}: {acquisition.quarantined[well, site]}"
        for site in sites
        if (well, site) in acquisition.quarantined
    ]
    for site in sites:
        lacking = acquisition.missing.get((well, site), {})
        missing += [f"site {site} {role}: {why}" for role, why in lacking.items()]
    usable = [acquisition.images.get((well, site, role)) for site in sites for role in shown]
    planes = sorted({len(image.planes) for image in usable if image is not None and image.planes})
    return {"well": well, "sites": sites, "channels": shown, "planes": planes, "missing": missing}


def _planned(wells: int) -> str:
    return counted(wells, "well") if wells else "no wells"


def _show_contents(found: dict[str, Any]) -> None:
    say(f"Layout {found['layout']}. {found['explanation']}")
    pixel = f"{found['pixel_size_um']} µm a pixel" if found["pixel_size_um"] else "pixel size unknown"
    say(
        f"Plate {found['plate_id']}: {counted(found['n_fields'], 'field')} of "
        f"{', '.join(found['channels'])}; {pixel}; "
        f"acquired {found['acquired_at'] or 'at an unknown time'} on "
        f"{found['instrument'] or 'an unknown instrument'}; {_planned(found['planned_wells'])} in the "
        "plan."
    )
    columns = ("well", "sites", "channels", "planes", "missing")
    show("Wells", columns, [[well[name] for name in columns] for well in found["wells"]])
    issues = [
        [issue[name] for name in ("well", "site", "channel", "reason", "effect")] for issue in found["issues"]
    ]
    if issues:
        show("Issues", ("well", "site", "channel", "what", "effect"), issues)
    say(
        f"It would be {found['would_be']}: {found['n_quarantined']} of "
        f"{counted(found['n_fields'], 'field')} cannot be used. Nothing was written."
    )
