"""How often a drift's cause is named rightly, and how often nobody names one where none of table 5 fits.

Starts from a home with champions and frozen streams, such as `make demo` leaves: it is copied, and every
plate meets it as it was when its streams had just been calibrated. Drifts are the simulator's physics on the
phase of light; diagnoses try table 5 and a blur by the pupil of images. A third of the plates and more drift
by what neither knows; the right answer is then none.

Run: CELLABEL_THREADS=1 python tests/benchmarks/diagnosis.py HOME [--plates 2] [--fields 24]
    [--organelles nuclei er] [--drifts defocus lamp]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from cellabel.alerts import AlertLedger
from cellabel.cli._simulated_demo import CLEAN, DEFOCUSED, FIELD, FIRST_DAY
from cellabel.corruptions import SEVERITIES, equivalent_radius_px, severity_of_radius
from cellabel.loop import (
    diagnose_incident,
    embed_plate,
    incidents,
    look_at,
    open_encoder,
    store_prediction,
    tick_drift,
)
from cellabel.plates import import_plate
from cellabel.registry import ModelRegistry
from cellabel.settings import load_settings
from cellabel.simulation import simulate_plate
from cellabel.stores import Home, open_home

KNOWN = {"defocus": (-7.0, -4.5, 4.5, 6.0, 7.0), "lamp": (-0.6, -0.4, 0.4, 0.7)}
UNKNOWN = {
    "bias": (-30.0,),
    "condenser": (0.6,),
    "dust": (80,),
    "vibration": (1.5,),
    "mass_death": (0.4,),
    "mirror": (1,),
    "decentre": (0.4,),
    "medium": (1.355,),
}
"""None of these sizes was looked at when the limits of the diagnosis were chosen."""

CAUSE = {"defocus": "defocus", "lamp": "exposure"}
MEMORY = ("watch", "verdicts", "incidents", "pending", "outcomes", "diagnoses")
"""Of what has happened since the streams were calibrated, by folder."""


def copied(source: Path, target: Path, fields: int) -> Home:
    """The home as it was when its streams had just been calibrated; diagnoses corrupt so many fields."""
    left_out = shutil.ignore_patterns("dagster", "microscope", "inbox", "training", "predictions", "*.lock")
    shutil.copytree(source, target, ignore=left_out)
    known = load_settings(home=target)
    drift = known.drift.model_copy(update={"diagnosis_fields": fields})
    home = open_home(known.model_copy(update={"drift": drift}))
    for plate in (CLEAN, DEFOCUSED):
        forget(target, plate)
    return home


def forget(folder: Path, plate: str) -> None:
    """Neither the plate, nor its tables, nor anything that was made of it."""
    for name in MEMORY:
        shutil.rmtree(folder / "detectors" / name, ignore_errors=True)
    for path in [folder / "plates" / plate, *(folder / "tables").rglob(f"{plate}*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def severity_by_physics(home: Home, kind: str, size: float, corruption: str | None) -> float:
    """Where the drift lies on table 5's scale; NaN where the table has no scale for it."""
    if kind == "defocus":
        aperture = home.settings.promotion.numerical_aperture
        return severity_of_radius(
            equivalent_radius_px(abs(size), pixel_size_um=0.65, numerical_aperture=aperture)
        )
    if kind == "lamp" and corruption == "contrast":
        gains = sorted((gain, severity) for severity, gain in SEVERITIES["contrast"].items())
        return float(np.interp(1 + size, *zip(*gains, strict=True)))
    return float("nan")


def one_plate(home: Home, number: int, kind: str, size: float, organelles: list[str]) -> dict[str, object]:
    """A drifted plate of clones that nobody has seen, through the watch and the diagnosis."""
    folder, plate_id = home.settings.home, f"D-{number:03d}"
    acquired = FIRST_DAY + timedelta(days=30)
    drift = (kind, size) if kind else None
    simulate_plate(
        folder / plate_id, plate_id=plate_id, seed=5000 + number, stains=(), drift=drift,
        clone_offset=600 + 6 * number, acquired_at=acquired, **FIELD,
    )  # fmt: skip
    plate = import_plate(folder / plate_id, home.plates, plate_id=plate_id)
    shutil.rmtree(folder / plate_id)
    home.plates.update_record(plate_id, first_seen=acquired.isoformat())
    look_at(home, plate)
    registry = ModelRegistry(home.settings.mlflow_tracking_uri)
    for name in organelles:
        if (champion := registry.champion(name)) is not None:
            store_prediction(home, plate, registry.load(name, champion.version), champion.version)
    if (encoder := open_encoder(home)) is not None:
        embed_plate(home, plate, encoder)
    ledger = AlertLedger(home.alerts)
    tick_drift(home, ledger, now=datetime.now(UTC))
    row: dict[str, object] = {"kind": kind or "clean", "size": size, "truth": CAUSE.get(kind)}
    found = incidents(home)
    row["alarm"] = bool(found)
    if found:
        answer = diagnose_incident(home, registry, ledger, found[-1].id)
        known = answer.diagnosis.kind is not None
        sure = known and answer.diagnosis.confidence >= home.settings.drift.min_confidence
        row |= {"named": answer.diagnosis.kind if sure else None, "confidence": answer.diagnosis.confidence}
        row |= {"by": answer.organelle, "sentence": answer.diagnosis.sentence}
        if sure:
            true = severity_by_physics(home, kind, size, answer.diagnosis.corruption)
            row["severity_error"] = float(answer.diagnosis.severity or 0) - true
    forget(folder, plate_id)
    print({name: value for name, value in row.items() if name != "truth"}, flush=True)
    return row


def summary(rows: pd.DataFrame) -> str:
    """Accuracy where a cause is known, abstention where none is, with 95 % intervals by Wilson."""
    alarmed = rows[rows["alarm"]]
    known, unknown = alarmed[alarmed["truth"].notna()], alarmed[alarmed["truth"].isna()]
    named = known[known["named"].notna()]
    rightly = named[(named["named"] == named["truth"]) & named["severity_error"].notna()]
    shares = {
        "drifts that alarmed": (rows.loc[rows["kind"] != "clean", "alarm"]),
        "known causes: named rightly": known["named"] == known["truth"],
        "known causes: named at all": known["named"].notna(),
        "named known causes: rightly": named["named"] == named["truth"],
        "unknown causes: none named": unknown["named"].isna(),
        "named rightly: severity within ±1": rightly["severity_error"].abs() <= 1,
    }
    lines = [f"{len(rows)} plates, {rows['truth'].isna().mean():.0%} without a known cause"]
    for name, right in shares.items():
        if not len(right):
            continue
        low, high = proportion_confint(right.sum(), len(right), method="wilson")
        lines.append(f"{name}: {right.sum()} of {len(right)} = {right.mean():.0%} ({low:.0%} to {high:.0%})")
    return "\n".join(lines)


def main() -> None:
    """Every drift a few times; prints each plate, then the rates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("home", type=Path)
    parser.add_argument("--plates", type=int, default=2, help="of each drift")
    parser.add_argument("--fields", type=int, default=24, help="reference fields that a diagnosis corrupts")
    parser.add_argument("--organelles", nargs="+", default=["nuclei", "er"])
    parser.add_argument("--drifts", nargs="+", default=[*KNOWN, *UNKNOWN], help="kinds of drift; all of them")
    chosen = parser.parse_args()
    drifts = [(kind, size) for kinds in (KNOWN, UNKNOWN) for kind, sizes in kinds.items() for size in sizes]
    with tempfile.TemporaryDirectory() as scratch:
        home = copied(chosen.home, Path(scratch) / "home", chosen.fields)
        cases = [case for case in enumerate(drifts * chosen.plates) if case[1][0] in chosen.drifts]
        rows = [one_plate(home, n, kind, size, chosen.organelles) for n, (kind, size) in cases]
    print(summary(pd.DataFrame(rows)))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
