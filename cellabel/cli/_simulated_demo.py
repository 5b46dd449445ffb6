"""The demo on simulated plates: four organelles, a clean plate, a defocused plate, and what follows."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from cellabel.alerts import AlertLedger
from cellabel.cli._demo import Demo, running_demo
from cellabel.drift import decide
from cellabel.evaluation import well_errors
from cellabel.loop import incidents, measure_stain, plate_status, policy_of, read_champions
from cellabel.measurement import measure_well
from cellabel.organelles import organelle as organelle_of
from cellabel.plates import import_plate
from cellabel.stores import Home

__all__ = ["simulated_demo"]

STAINS = ("nuclei", "er", "golgi", "gfp")
LABELLED = ("CHO-01", "CHO-02", "CHO-03", "CHO-04")
CLEAN, DEFOCUSED = "CHO-05", "CHO-06"
DEFOCUS_UM = 6.5
FIELD: dict[str, Any] = {"wells": 12, "sites": 1, "size": 384, "preset": "10x", "instrument": "scope-1"}
FIRST_DAY = datetime(2026, 3, 2, 9, tzinfo=UTC)

SETTINGS: dict[str, Any] = {
    "sensor_seconds": 5,
    "inbox": {"settle_seconds": 2},
    "models": {
        "min_labelled_plates": len(LABELLED),
        "report_fields": 0,
        "predict_again": "unlabelled",
        "training": {
            "max_steps": 200,
            "crop_size": 96,
            "base_channels": 16,
            "depth": 3,
            "block": 2,
            "num_threads": 1,
        },
    },
    "promotion": {
        "min_plates": 1,
        "min_wells": 8,
        "first_max_error": 1.6,
        "max_delta_shape": 0.05,
        "defocus_um": [4.0, DEFOCUS_UM],
    },
    "drift": {"diagnosis_fields": 8, "evidently": False},
    "retraining": {
        "at_once": True,
        "on_provisional": True,
        "training": {"learning_rate": 1e-3, "max_steps": 150, "keep_initial": 0.7, "num_threads": 2},
    },
}


@dataclass(frozen=True)
class Scenario:
    """A plate of the demo.

    Attributes:
        plate_id: its id.
        stains: those that were imaged too.
        drift: kind and size of what went wrong at the microscope, or None.
    """

    plate_id: str
    stains: tuple[str, ...]
    drift: tuple[str, float] | None = None


PLATES = (
    *(Scenario(plate_id, STAINS) for plate_id in LABELLED),
    Scenario(CLEAN, ()),
    Scenario(DEFOCUSED, (), ("defocus", DEFOCUS_UM)),
)


def simulated_demo(console: Console, *, fresh: bool = False) -> None:
    """Run the whole loop on simulated plates and print what happened."""
    with running_demo("simulated plates", SETTINGS, fresh=fresh, console=console) as demo:
        _story(demo)
        demo.wait_for_runs()
        demo.wait_for_alerts()
        console.print()
        console.print(_summary(demo.home))
        console.print(_counts(demo.home))
        for name in _retrained(demo.home):
            console.print(_recovery(demo.home, name))
        _tell_incidents(demo)


def _story(demo: Demo) -> None:
    home = demo.home
    demo.tell(f"Dagster is starting over {home.settings.home}; its log: {demo.log}")
    microscope = _Microscope(demo)
    microscope.start()
    for plate in LABELLED:
        demo.wait(f"plate {plate}", partial(_accepted, demo, microscope, plate))
        demo.tell(f"{plate} is in, with all four stains")
    demo.tell(f"training the first models of {', '.join(STAINS)} …")
    told: set[str] = set()
    demo.wait("the champions", lambda: _all_champions(demo, told))
    demo.tell("the plates are predicted by the champions while new ones land …")
    microscope.release(CLEAN)
    _follow_new_plate(demo, microscope, CLEAN)
    before = read_champions(home)
    microscope.release(DEFOCUSED)
    _follow_new_plate(demo, microscope, DEFOCUSED)
    _follow_incident(demo, before)
    demo.wait_for_predictions([CLEAN, DEFOCUSED], read_champions(home))


def _follow_incident(demo: Demo, before: dict[str, int]) -> None:
    home = demo.home
    if not plate_status(home, DEFOCUSED).verdict["drift"]:  # type: ignore[index]
        demo.tell("the defocus was not noticed; nothing is retrained")
        return
    heard: set[str] = set()
    demo.wait("the end of the incident's work", lambda: _incident_settled(demo, heard))
    if any(one.outcome == "promoted" for one in incidents(home)[-1].retrainings):
        after = demo.wait("the new champion's drift streams", lambda: _changed(home, before))
        changed = ", ".join(name for name in after if after[name] != before.get(name))
        demo.tell(f"predicting the unstained plates again by the new champion of {changed} …")


def _changed(home: Home, before: dict[str, int]) -> dict[str, int]:
    """The champions, once they are others than before."""
    champions = read_champions(home)
    return champions if champions != before else {}


def _image(
    folder: Path, scenario: Scenario, stains: tuple[str, ...], drift: tuple[str, float] | None
) -> None:
    """Image a plate; the same cells whatever the stains and the drift."""
    from cellabel.simulation import simulate_plate

    day = PLATES.index(scenario)
    simulate_plate(
        folder,
        plate_id=scenario.plate_id,
        seed=day + 1,
        stains=stains,
        drift=drift,
        clone_offset=6 * day,
        acquired_at=FIRST_DAY + timedelta(days=day),
        **FIELD,
    )


class _Microscope(threading.Thread):
    """Images the plates one after the other; the unstained ones wait until they are released."""

    def __init__(self, demo: Demo) -> None:
        super().__init__(daemon=True)
        self.demo = demo
        self.error: Exception | None = None
        self._released = {scenario.plate_id: threading.Event() for scenario in PLATES}
        for plate in LABELLED:
            self._released[plate].set()

    def release(self, plate: str) -> None:
        """The plate may land."""
        self._released[plate].set()

    def check(self) -> None:
        """Raise what went wrong while imaging."""
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        """Simulate and land each plate."""
        scratch = self.demo.home.settings.home / "microscope"
        try:
            for scenario in PLATES:
                if self.demo.has_landed(scenario.plate_id):
                    continue
                scratch.mkdir(parents=True, exist_ok=True)
                folder = scratch / scenario.plate_id
                if not folder.exists():
                    _image(folder, scenario, scenario.stains, scenario.drift)
                self._released[scenario.plate_id].wait()
                self.demo.land(folder)
        except (OSError, ValueError, RuntimeError) as error:
            self.error = error


def _accepted(demo: Demo, microscope: _Microscope, plate: str) -> bool:
    microscope.check()
    return plate_status(demo.home, plate).status == "accepted"


def _all_champions(demo: Demo, told: set[str]) -> bool:
    champions = read_champions(demo.home)
    for name in champions:
        if name not in told:
            told.add(name)
            demo.tell(f"{name} has its first champion")
    refused = [
        alert
        for alert in AlertLedger(str(demo.home.alerts)).alerts("promotion")
        if not alert.data["promoted"]
    ]
    for alert in refused:
        if alert.id not in told:
            told.add(alert.id)
            demo.tell(f"{alert.title}: {alert.body}")
    return set(champions) | {str(alert.organelle) for alert in refused} >= set(demo.home.settings.organelles)


def _follow_new_plate(demo: Demo, microscope: _Microscope, plate: str) -> None:
    demo.tell(f"{plate} lands in the inbox, unstained")
    demo.wait(f"plate {plate}", lambda: _accepted(demo, microscope, plate))
    demo.wait(f"the drift verdict on {plate}", lambda: plate_status(demo.home, plate).drift)
    status = plate_status(demo.home, plate)
    demo.tell(f"{plate}: drift {status.drift} ({_streams(status.verdict or {})})")


def _streams(verdict: dict[str, Any]) -> str:
    words = {"drift": "yes", "no": "no", "not_calibrated": "not calibrated"}
    return ", ".join(f"{name} {words[found['status']]}" for name, found in sorted(verdict["streams"].items()))


def _incident_settled(demo: Demo, heard: set[str]) -> bool:
    for alert in AlertLedger(str(demo.home.alerts)).alerts():
        if alert.id not in heard and alert.data.get("incident"):
            heard.add(alert.id)
            demo.tell(f"[bold]{alert.title}[/bold] {alert.body}")
    latest = incidents(demo.home)[-1]
    if latest.status == "retraining" and latest.id not in heard:
        heard.add(latest.id)
        demo.tell(f"retraining {latest.most_harmed} with corruption augmentations …")
    if latest.status == "told" and latest.diagnosis is not None:
        action = decide(latest, policy_of(demo.home.settings), latest.retrainings, datetime.now(UTC))
        if action.kind in ("none", "wait"):
            demo.tell(f"nothing more is done: {action.reason}")
            return True
    return latest.status in ("person_needed", "closed")


def _summary(home: Home) -> Table:
    table = Table(title="What is in", title_justify="left")
    for name in ("plate", "status", "drift", "predicted by"):
        table.add_column(name)
    for scenario in PLATES:
        status = plate_status(home, scenario.plate_id)
        models = ", ".join(f"{name} v{version}" for name, version in status.predicted.items())
        verdict = "reference" if scenario.plate_id in LABELLED else status.drift
        table.add_row(scenario.plate_id, status.status, verdict, models)
    return table


def _counts(home: Home) -> Table:
    """Counts of the unstained plates against the simulator's truth, by every version that predicted them."""
    table = Table(title="Nuclei counted on unstained plates, against the truth", title_justify="left")
    for name in ("plate", "model version", "mean |error| of a well's count", "wells"):
        table.add_column(name)
    for plate in (CLEAN, DEFOCUSED):
        truth = _true_counts(home.settings.inbox_folder / plate)
        for version, wells in _versions(home, "nuclei", plate):
            counts = wells.set_index("Metadata_Well")["Nuclei_Count"]
            both = truth.to_frame("true").join(counts.rename("counted"), how="inner")
            error = (both["counted"] - both["true"]).abs() / both["true"].clip(lower=1)
            table.add_row(plate, version, f"{error.mean():.1%}", str(len(both)))
    return table


def _true_counts(folder: Path) -> pd.Series:
    """Cells by well, from the simulator's truth."""
    wells = pd.read_csv(folder / "truth" / "wells.csv")
    return wells.set_index("Metadata_Well")["n_cells"]


def _versions(home: Home, organelle: str, plate: str) -> list[tuple[str, pd.DataFrame]]:
    """The wells of a plate by every version of a model that has predicted it."""
    names = [f"v{version}" for version in range(1, 1 + read_champions(home).get(organelle, 0))]
    known = [name for name in names if home.tables.has("versions", organelle, name, plate)]
    return [(name, home.tables.read("versions", organelle, name, plate)) for name in known]


def _retrained(home: Home) -> list[str]:
    """The organelles whose champion came from a retraining."""
    return [name for name, version in read_champions(home).items() if version > 1]


def _recovery(home: Home, organelle: str) -> Table:
    """The defocused plate by every version, against the stain that its cells would have shown in focus."""
    recipe = organelle_of(organelle)
    scenario = next(one for one in PLATES if one.plate_id == DEFOCUSED)
    with tempfile.TemporaryDirectory() as scratch:
        _image(Path(scratch) / DEFOCUSED, scenario, (organelle,), None)
        stained = measure_stain(import_plate(Path(scratch) / DEFOCUSED, Path(scratch) / "plates"), recipe)
    title = f"{organelle} of {DEFOCUSED}, against the stain that its cells would have shown in focus"
    table = Table(title=title, title_justify="left")
    for name in ("model version", "metric", "mean |log error| of a well", "wells"):
        table.add_column(name)
    if stained is None:
        return table
    for version, wells in _versions(home, organelle, DEFOCUSED):
        errors = well_errors(measure_well(stained), wells, recipe.primary_metrics)
        for metric, found in errors.groupby("metric", sort=False)["log_error"]:
            table.add_row(version, str(metric), f"{found.abs().mean():.2f}", str(len(found)))
    return table


def _tell_incidents(demo: Demo) -> None:
    home = demo.home
    for incident in incidents(home):
        demo.console.print(
            f"\nIncident {incident.id}: {incident.status}, harm {incident.harm}, most harmed "
            f"{incident.most_harmed}.",
            highlight=False,
        )
        for retraining in incident.retrainings:
            demo.console.print(
                f"Retraining against {retraining.cause}: {retraining.outcome}"
                + (f", version {retraining.version}." if retraining.version else "."),
                highlight=False,
            )
    for alert in AlertLedger(str(home.alerts)).alerts("promotion"):
        demo.console.print(f"{alert.title}: {alert.body}", highlight=False)
    demo.console.print("\nOpen it: [bold]make up[/bold] serves the Dagster UI and MLflow.", highlight=False)
