"""How long the sensors' ticks take when thousands of plates have gone by.

    OMP_NUM_THREADS=1 .venv/bin/python tests/benchmarks/long_history.py [--plates 100 1000 10000]
        [--work FOLDER]

Each home is built by the stores' own code: records, tables and acquisition folders of every plate; verdicts,
incidents and the streams' state by ticking them; alerts told and delivered. To build it in minutes, images
are empty files, embeddings are small and come from a pool of random plates, tables are parsed once, the disk
is not waited for, and of Dagster's own state (runs, partitions, materialisations on SQLite) one plate's is
written by Dagster and copied for the others. One instrument has all the plates, which is the worst case.
Golgi has never been stained, so that the sensor on first models goes on looking for stained plates.

Measured in a process of its own, as the code server is one: the first tick after a start (that of the sensor
on champions without its cursor, so that it looks through all predictions), later ones with nothing new, and
ticks with one new plate; seconds by the clock, and of one core.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from cellabel.alerts import Alert, AlertLedger, alert_id
from cellabel.drift import OnlineMMD, expected_run_time
from cellabel.loop import advance_incidents, close_incident, forget_pending, incidents, pending_verdicts
from cellabel.loop.inbox import arrived_plates, remember_done
from cellabel.loop.predictions import prediction_version
from cellabel.loop.streams import ACQUISITION, ENCODER, Epoch, encoder_store, save_epoch
from cellabel.loop.watch import tick_drift
from cellabel.registry import ModelRegistry
from cellabel.settings import load_settings
from cellabel.stores import Home, TableStore, open_home, replace_bytes, write_json

LIMIT_S = 2.0
STAINED = ("nuclei", "er", "gfp")
STREAMS = (*STAINED, ENCODER, ACQUISITION)
WELLS = [f"{row}{column:02d}" for row in "ABCD" for column in range(1, 7)]
FEATURES = 12
REFERENCE_PLATES = 20
DRIFTED, QUARANTINED, LABELLED = 0.02, 0.03, 40
"""Shares of the plates; and how many of the first ones are stained."""

POOL = 40
CHUNK = 50
"""Plates that land before the streams tick; then a person closes what they opened."""

FILES = 24
START = datetime(2024, 1, 1, tzinfo=UTC)
CONTENT = "c" * 40
RUNS, EVENTS = "history/runs.db", "history/runs/index.db"


def plate_name(number: int) -> str:
    return f"P{number:05d}"


def moment(number: int) -> str:
    return (START + timedelta(hours=number)).isoformat()


def rows(number: int, width: int, shift: float = 0.0) -> pd.DataFrame:
    """One row a well."""
    values = np.random.default_rng(number).normal(size=(len(WELLS), width)) + shift
    table = pd.DataFrame(values, columns=[f"e{place:03d}" for place in range(width)])
    table.insert(0, "Metadata_Plate", plate_name(number))
    table.insert(1, "Metadata_Well", WELLS)
    return table


def width_of(stream: str, numbers: int) -> int:
    return FEATURES if stream == ACQUISITION else numbers


@contextmanager
def hurried() -> Iterator[None]:
    """Building waits for no disk and parses a table of the pool once: neither is what is measured."""
    parsed: dict[bytes, pd.DataFrame] = {}

    def read(store: TableStore, *parts: str) -> pd.DataFrame:
        data = store.path(*parts).read_bytes()
        if data not in parsed:
            parsed[data] = pd.read_parquet(io.BytesIO(data))
        return parsed[data].copy()

    with mock.patch("os.fsync", lambda _: None), mock.patch.object(TableStore, "read", read):
        yield


@cache
def pooled(seed: int, width: int, shift: float) -> bytes:
    """A table of the pool as it lies on disk."""
    buffer = io.BytesIO()
    rows(seed, width, shift).to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def keep(home: Home, number: int, width: int, shift: float, *parts: str) -> None:
    """A plate's table, in the place where the loop keeps it."""
    data = pooled(number % POOL, width, shift)
    replace_bytes(home.tables.path(*parts, plate_name(number)), data)


def begin(folder: Path, numbers: int) -> Home:
    """Champions in the registry, a frozen encoder, and calibrated streams that follow them."""
    home = open_home(load_settings(home=folder))
    registry = ModelRegistry(home.settings.mlflow_tracking_uri)
    for name in STAINED:
        for version in (1, 2):
            registry.register(training(folder / "training" / name / str(version), name, version), name)
        registry.promote(name, 1, reason="first")
        write_json(home.detectors / "followed" / f"{name}.json", {"version": 1, "turn": 1})
        home.datasets.update_record(name, version="d1", held_out=[])
    encoder_store(home).update_record(ENCODER, version="v1-e", plates=[])
    reference = tuple(f"R{number:02d}" for number in range(REFERENCE_PLATES))
    groups = np.repeat(reference, len(WELLS)).tolist()
    run_time = (len(STREAMS) + 1) * expected_run_time(len(WELLS), home.settings.drift.false_alarms_per_plate)
    for place, stream in enumerate(STREAMS):
        width = width_of(stream, numbers)
        detector = OnlineMMD(run_time, window_size=home.settings.drift.window, seed=place)
        detector.fit(np.random.default_rng(place).normal(size=(len(groups), width)), groups=groups)
        model = {ENCODER: 1, ACQUISITION: 0}.get(stream, 1)
        scale = np.zeros(width), np.ones(width)
        epoch = Epoch(stream, f"{stream}-1", detector, "", False, model, reference, *scale, None)
        save_epoch(home, "scope", epoch)
    return home


def training(folder: Path, organelle: str, version: int) -> Path:
    """What a training leaves, as far as the registry looks."""
    folder.mkdir(parents=True)
    save_file({"weight": np.full((2, 2), version, np.float32)}, folder / "weights.safetensors")
    config = {"organelle": organelle, "network": {}, "target": "continuous", "dataset": "d1", "training": {}}
    (folder / "config.json").write_text(json.dumps(config | {"code_version": "0"}))
    (folder / "metrics.json").write_text("{}")
    (folder / "history.csv").write_text("epoch,loss\n0,1\n")
    return folder


def land(home: Home, number: int, numbers: int, *, shift: float = 0.0, status: str = "accepted") -> None:
    """A plate as import, quality control, prediction and embedding leave it."""
    plate = plate_name(number)
    folder = home.settings.inbox_folder / plate
    acquisition(folder, plate)
    stains = STAINED if number < LABELLED else ()
    home.plates.update_record(
        plate, status=status, content_hash=CONTENT, acquired_at=moment(number), first_seen=moment(number),
        instrument="scope", channels=["transmitted", *stains], source=str(folder.resolve()), version=CONTENT,
        pixel_size_um=0.65, n_fields=len(WELLS), n_quarantined=0, reason="",
    )  # fmt: skip
    if status != "accepted":
        return
    keep(home, number, FEATURES, shift, ACQUISITION)
    keep(home, number, numbers, shift, "embeddings", ENCODER, "v1")
    for name in STAINED:
        predict(home, name, number, numbers, 1, shift)


def predict(home: Home, name: str, number: int, numbers: int, version: int, shift: float = 0.0) -> None:
    plate = plate_name(number)
    record = {
        "version": prediction_version(version, CONTENT),
        "model_version": version,
        "n_fields": len(WELLS),
    }
    home.predictions.update_record(f"{plate}/{name}", **record, plate_content=CONTENT, seconds=1.0)
    keep(home, number, numbers, shift, "embeddings", name, f"v{version}")


def acquisition(folder: Path, plate: str) -> None:
    """An acquisition folder, complete, of empty images."""
    folder.mkdir(parents=True, exist_ok=True)
    for well in WELLS[:FILES]:
        (folder / f"{plate}_{well}_s1_w1.tif").touch()
    record = {"plate_id": plate, "pixel_size_um": 0.65, "channels": {"1": "transmitted"}}
    (folder / "acquisition.json").write_text(json.dumps(record))
    (folder / "transfer.complete").touch()


def live(home: Home, plates: int, numbers: int) -> None:
    """Everything that happened until now."""
    ledger, chance = AlertLedger(home.alerts), np.random.default_rng(0)
    for first in range(0, plates, CHUNK):
        for number in range(first, min(first + CHUNK, plates)):
            draw = chance.random()
            status = "quarantined" if draw > 1 - QUARANTINED else "accepted"
            land(home, number, numbers, shift=3.0 * (draw < DRIFTED and number > LABELLED), status=status)
            if status == "quarantined":
                name = plate_name(number)
                ledger.write(
                    Alert(id=alert_id("quarantine", name), kind="quarantine", title=name, plate=name)
                )
        now = datetime.fromisoformat(moment(first + CHUNK))
        tick_drift(home, ledger, now=now)
        for incident in (one for one in incidents(home) if one.is_open):
            close_incident(home, incident.id, "ada", "mended")
        advance_incidents(home, ledger, now=now)
        ledger.deliver_pending()
        print(f"\r  {min(first + CHUNK, plates)} plates", end="", file=sys.stderr, flush=True)
    remember_done(home, *arrived_plates(home))
    print(file=sys.stderr)


def report(home: Home, folder: Path) -> None:
    """What Dagster keeps of plates: the partition, the run that took it in, and its verdict's events."""
    import dagster as dg

    from orchestration.sensors.drift import _events

    first, *others = pending_verdicts(home)
    folder.mkdir(parents=True)
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        instance.add_dynamic_partitions("plates", [one.plate for one in (first, *others)])
        tags = {"dagster/run_key": f"ingest:{first.plate}:x", "dagster/partition": first.plate}
        run = instance.add_run(dg.DagsterRun("ingest", tags=tags, status=dg.DagsterRunStatus.SUCCESS))
        for event in _events(first):
            instance.report_runless_asset_event(event)
    plates = [(one.plate, one.event_id) for one in others]
    known = (first.plate, first.event_id, run.run_id)
    for database, tables in (
        (RUNS, ("runs", "run_tags")),
        (EVENTS, ("event_logs", "asset_check_executions")),
    ):
        with closing(sqlite3.connect(folder / database)) as connection, connection:
            for name in tables:
                multiply(connection, name, known, plates)
    for verdict in (first, *others):
        forget_pending(home, verdict)


def multiply(
    connection: sqlite3.Connection, table: str, known: tuple[str, str, str], plates: list[tuple[str, str]]
) -> None:
    """Copy what Dagster wrote of one plate for others: plate, event id and run id are other ones each."""
    found = connection.execute(f"SELECT * FROM {table}")
    names = [column[0] for column in found.description]
    rows = [dict(zip(names, row, strict=True)) for row in found]
    columns = [name for name in names if name != "id"]
    place = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"

    def copies() -> Iterator[list[object]]:
        for plate, event in plates:
            others = dict(zip(known, (plate, event, str(uuid.uuid5(uuid.NAMESPACE_OID, plate))), strict=True))
            for row in rows:
                yield [replaced(row[name], others) for name in columns]

    connection.executemany(place, copies())


def replaced(value: object, others: dict[str, str]) -> object:
    if isinstance(value, str):
        for known, other in others.items():
            value = value.replace(known, other)
    return value


def build(folder: Path, plates: int, numbers: int) -> None:
    with hurried():
        home = begin(folder, numbers)
        live(home, plates, numbers)
        report(home, folder / "dagster")


def timed(call: Callable[[], object], turns: int = 1) -> tuple[float, float]:
    """Median seconds by the clock, and of one core."""
    spent = []
    for _ in range(turns):
        clock, core = time.perf_counter(), time.process_time()
        call()
        spent.append((time.perf_counter() - clock, time.process_time() - core))
    return tuple(np.median(spent, axis=0).tolist())  # type: ignore[return-value]


def measure(folder: Path, plates: int, numbers: int) -> list[dict[str, object]]:
    """One row a tick: what, seconds, and seconds of one core."""
    import dagster as dg

    import cellabel.loop  # noqa: F401  what is imported inside of sensors is not what is measured
    from orchestration.definitions import defs
    from orchestration.resources import Alerts, Models, Stores

    home = open_home(load_settings(home=folder))
    repository, cursors, numbering = defs.get_repository_def(), {}, itertools.count(plates)
    found = []

    def look(name: str) -> dg.SensorExecutionData:
        context = dg.build_sensor_context(
            instance=instance, repository_def=repository, cursor=cursors.get(name), sensor_name=name,
            resources={"stores": Stores(), "models": Models(), "alerts": Alerts()},
        )  # fmt: skip
        said = repository.get_sensor_def(name).evaluate_tick(context)
        cursors[name] = said.cursor
        return said

    def row(what: str, spent: tuple[float, float]) -> None:
        found.append({"tick": what, "seconds": spent[0], "core": spent[1]})

    def new_plate() -> None:
        land(home, next(numbering), numbers)

    def after(
        prepare: Callable[[], object], call: Callable[[], object], turns: int = 3
    ) -> tuple[float, float]:
        spent = []
        for _ in range(turns):
            prepare()
            spent.append(timed(call))
        return tuple(np.median(spent, axis=0).tolist())  # type: ignore[return-value]

    with dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        # An instance outside of a daemon has no loader of partitions of its own.
        loader = property(lambda context: instance)
        dg.SensorEvaluationContext.caching_dynamic_partitions_loader = loader
        ModelRegistry(home.settings.mlflow_tracking_uri).champion("nuclei")  # opens the database
        names = ("new_plates", "first_models", "champion_changed", "drift", "outbox")
        for name in names:
            row(f"{name}: first after a start", timed(lambda name=name: look(name)))
        for name in names:
            row(f"{name}: nothing new", timed(lambda name=name: look(name), 5))
        ledger = AlertLedger(home.alerts)
        row("watch: nothing new", timed(lambda: tick_drift(home, ledger), 5))
        row("watch: one new plate", after(new_plate, lambda: tick_drift(home, ledger)))
        row("drift: one new plate", after(new_plate, lambda: look("drift")))
        drifted = lambda: land(home, next(numbering), numbers, shift=3.0)  # noqa: E731
        row("drift: one drifted plate", after(drifted, lambda: look("drift")))
        row("new_plates: one new folder", timed(lambda: look("new_plates")))  # what was landed above
        row("outbox: new alerts", timed(lambda: look("outbox")))
        ModelRegistry(home.settings.mlflow_tracking_uri).promote("nuclei", 2, reason="measured")
        row("champion_changed: a champion to follow", timed(lambda: look("champion_changed")))
        write_json(home.detectors / "followed" / "nuclei.json", {"version": 2, "turn": 2})
        row("champion_changed: all to predict again", timed(lambda: look("champion_changed")))
        row("champion_changed: the same again", timed(lambda: look("champion_changed"), 3))
    return found


def table(measured: dict[int, list[dict[str, object]]]) -> str:
    """One row a tick, a column a length of history: seconds by the clock (of one core)."""
    lines = ["| tick | " + " | ".join(f"{plates:,} plates" for plates in measured) + " |"]
    lines.append("|---" * (1 + len(measured)) + "|")
    for same in zip(*measured.values(), strict=True):
        cells = [f"{one['seconds']:.2f} ({one['core']:.2f})" for one in same]
        lines.append(f"| {same[0]['tick']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plates", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--numbers", type=int, default=32, help="of an embedding")
    parser.add_argument("--work", type=Path, help="folder of homes; kept, and measured again if there")
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.home:
        print(json.dumps(measure(chosen.home, chosen.plates[0], chosen.numbers)))
        return
    measured = {}
    with tempfile.TemporaryDirectory() as scratch:
        for plates in chosen.plates:
            folder = (chosen.work or Path(scratch)) / f"home-{plates}"
            if not folder.exists():
                build(folder, plates, chosen.numbers)
            command = [
                sys.executable,
                __file__,
                "--home",
                folder,
                "--plates",
                plates,
                "--numbers",
                chosen.numbers,
            ]
            told = subprocess.run(
                [str(part) for part in command],
                env={**os.environ, "CELLABEL_HOME": str(folder)},
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            measured[plates] = json.loads(told.stdout.splitlines()[-1])
            print(table(measured), flush=True)
    slowest = max(one["core"] for one in measured[max(measured)])
    print(f"slowest tick: {slowest:.2f} s of one core (allowed {LIMIT_S:g})")
    sys.exit(slowest > LIMIT_S)


if __name__ == "__main__":
    main()
