"""The whole loop, unattended: plates land in the inbox, the real daemon does the rest, and we watch."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from rich.console import Console

from cellabel.alerts import AlertLedger
from cellabel.cli._services import (
    LOCALHOST,
    TERMINATED,
    Service,
    environment,
    free_port,
    prepare_dagster_home,
    program,
)
from cellabel.cli._webhook import Webhook
from cellabel.errors import InputError
from cellabel.loop import plate_status
from cellabel.settings import Settings, load_settings
from cellabel.stores import Home, open_home

__all__ = ["Demo", "running_demo"]

PATIENCE_SECONDS = 1800
LOOK_SECONDS = 1.0
TRAINING = re.compile(rb" - (\w+)__organelle_model - ((?:step|fold) .+)$")
"""What a training says of its progress, in the log of the runs."""

RUN = re.compile(rb" - ([0-9a-f-]{36}) - \d+ - RUN_(START|SUCCESS|FAILURE|CANCELED) - ")
"""What a run says of its own beginning and end there."""


@dataclass
class Demo:
    """A demo under way: its stores, its daemon, and what it tells.

    Attributes:
        home: the stores.
        services: the code location, with the runs below it, and the daemon.
        webhook: receives the alerts, as a laboratory's would.
        console: where progress goes.
        began: when, for the times in the progress lines.
    """

    home: Home
    services: tuple[Service, ...]
    webhook: Webhook
    console: Console
    began: float = field(default_factory=time.monotonic)
    _heard: int = 0
    _running: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._heard = self.log.stat().st_size  # the log of an earlier start is old news

    @property
    def log(self) -> Path:
        """What the runs printed."""
        return self.services[0].log

    def tell(self, sentence: str) -> None:
        """One line of progress, with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        self.console.print(f"[dim]{minutes:2d}:{seconds:02d}[/dim]  {sentence}", highlight=False)

    def wait(self, what: str, done: Callable[[], Any]) -> Any:
        """Wait until `done` gives something true; what it gave.

        Raises:
            InputError: a run failed, the daemon ended, or it took too long.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self._listen()
            result = done()
            if result:
                return result
            for service in self.services:
                service.check()
            self._raise_failure()
            if time.monotonic() > deadline:
                raise InputError(
                    f"Waited {PATIENCE_SECONDS // 60} minutes for {what} in vain: read {self.log}, "
                    f"then run "
                    "this again to go on."
                )
            time.sleep(LOOK_SECONDS)

    def _listen(self) -> None:
        """What the runs have said since the last look: trainings are told, beginnings and ends remembered."""
        with self.log.open("rb") as file:
            file.seek(self._heard)
            lines = file.read().split(b"\n")
        # The last line may be half written.
        self._heard += sum(len(line) + 1 for line in lines[:-1])
        for line in lines[:-1]:
            if found := TRAINING.search(line):
                organelle, progress = (part.decode(errors="replace") for part in found.groups())
                self.tell(f"[dim]{organelle}: {progress}[/dim]")
            elif found := RUN.search(line):
                run, what = found.groups()
                (self._running.add if what == b"START" else self._running.discard)(run)

    def land(self, folder: Path) -> None:
        """Put a finished acquisition folder into the inbox, whole at once."""
        inbox = self.home.settings.inbox_folder
        inbox.mkdir(parents=True, exist_ok=True)
        target = inbox / folder.name
        if target.exists():
            shutil.rmtree(folder)
        else:
            folder.rename(target)

    def has_landed(self, name: str) -> bool:
        """Whether an acquisition folder is in the inbox already (a demo that goes on)."""
        return (self.home.settings.inbox_folder / name).exists()

    def wait_for_predictions(self, plates: list[str], versions: dict[str, int]) -> None:
        """Until these plates' tables are by these versions."""
        waiting = set(plates)

        def done() -> bool:
            for plate in sorted(waiting):
                if plate_status(self.home, plate).predicted == versions:
                    waiting.discard(plate)
            return not waiting

        self.wait(f"the predictions of {', '.join(plates)}", done)

    def wait_for_runs(self) -> None:
        """Until no run is under way: one that the demo's end kills would be shown as failed."""
        self.wait("the end of the runs", lambda: not self._running)

    def wait_for_alerts(self) -> None:
        """Until every alert has reached the webhook."""
        alerts = self.wait(
            "the delivery of the alerts",
            lambda: (known := self._ledger.alerts()) and len(self.webhook.received) >= len(known) and known,
        )
        self.tell(f"{len(alerts)} alerts went to the log and to the webhook ({self.webhook.file})")

    @property
    def _ledger(self) -> AlertLedger:
        return AlertLedger(str(self.home.alerts))

    def _raise_failure(self) -> None:
        failures = self._ledger.alerts(kind="failure", unacknowledged=True)
        if failures:
            alert = failures[0]
            raise InputError(f"{alert.title}: {alert.body} (Mend it, then begin anew: make demo FRESH=1.)")


@contextmanager
def running_demo(
    name: str, changes: dict[str, Any], *, fresh: bool, console: Console, home: Path | None = None
) -> Iterator[Demo]:
    """The daemon over a home that belongs to this demo; ended with the block.

    Args:
        name: of the demo; kept in the home, so that two demos do not mix.
        changes: settings of the demo, written where a person sees them.
        fresh: forget an earlier demo of this name first.
        console: where progress goes.
        home: where it lies; None takes CELLABEL_HOME.

    Raises:
        InputError: another demo runs there, or the home holds something else.
    """
    folder = (home or load_settings().home).resolve()
    os.environ["CELLABEL_HOME"] = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "demo.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"A demo is under way in {folder}: wait for its end, or set CELLABEL_HOME to another folder."
        ) from error
    try:
        _claim(folder, name, fresh)
        with Webhook(folder / "webhook.jsonl") as webhook:
            settings = _write_settings(folder, {**changes, "alert_urls": [webhook.url]})
            prepare_dagster_home(settings)
            variables = environment(settings) | {"CELLABEL_THREADS": "1", "OMP_NUM_THREADS": "1"}
            port = free_port()
            code, daemon = _dagster(folder / "dagster", variables, port)
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that the services end too
            try:
                code.start()
                code.wait_for_port(port)  # it makes the instance's database; two at once would collide
                daemon.start()
                yield Demo(open_home(settings), (code, daemon), webhook, console)
            finally:
                daemon.stop()
                code.stop()
                _write_settings(folder, changes)  # nobody listens to the webhook any longer
    finally:
        lock.release()


def _dagster(folder: Path, variables: dict[str, str], port: int) -> tuple[Service, Service]:
    """The code location, which launches the runs, and the daemon with the sensors and the queue.

    The code location is a server of its own: one that the daemon starts would be started anew every minute.
    """
    location = {"host": LOCALHOST, "port": port, "location_name": "cellabel"}
    workspace = folder / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": location}]}))
    serve = [
        program("dagster"),
        "api",
        "grpc",
        "-m",
        "orchestration.definitions",
        "-h",
        LOCALHOST,
        "-p",
        str(port),
    ]
    watch = [program("dagster-daemon"), "run", "-w", str(workspace)]
    return (
        Service("the code location", serve, variables, folder / "code.log"),
        Service("the Dagster daemon", watch, variables, folder / "daemon.log"),
    )


def _claim(folder: Path, name: str, fresh: bool) -> None:
    """Make the folder the home of this demo; another demo's home may lie within."""
    marker = folder / "demo.txt"
    owner = marker.read_text().strip() if marker.exists() else ""
    ours = [
        path for path in folder.iterdir() if path.name != "demo.lock" and not (path / "demo.txt").exists()
    ]
    if ours and owner != name:
        what = f"the demo {owner!r}" if owner else "something that is no demo"
        raise InputError(f"{folder} holds {what}: set CELLABEL_HOME to another folder, or empty this one.")
    if fresh:
        for path in ours:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    marker.write_text(f"{name}\n")


def _write_settings(folder: Path, changes: dict[str, Any]) -> Settings:
    """The demo's settings where a person sees them."""
    (folder / "settings.yaml").write_text(
        "# The demo's settings. It acts at once on few plates; a laboratory should not.\n"
        + yaml.safe_dump(changes, sort_keys=False)
    )
    return load_settings()
