"""Processes that the command line starts and ends: Dagster and MLflow on this machine only."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellabel.errors import InputError
from cellabel.settings import Settings

__all__ = [
    "LOCALHOST",
    "PROJECT",
    "TERMINATED",
    "Service",
    "check_port",
    "environment",
    "free_port",
    "prepare_dagster_home",
    "program",
]

PROJECT = Path(__file__).resolve().parents[2]
LOCALHOST = "127.0.0.1"
TERMINATED = 143
"""The exit code of a command that was asked to end (SIGTERM)."""


@dataclass
class Service:
    """A process in a session of its own, with its output in a file.

    Attributes:
        name: how messages call it.
        command: program and arguments.
        variables: its environment.
        log: where its output goes; appended.
    """

    name: str
    command: Sequence[str]
    variables: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it; returns at once."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                list(self.command),
                env=self.variables,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise when it has ended.

        Raises:
            InputError: it has; with its last line and where the rest is.
        """
        if self.process is None or self.process.poll() is None:
            return
        lines = self.log.read_text(errors="replace").strip().splitlines()
        raise InputError(
            f"{self.name} ended with code {self.process.returncode} ({lines[-1] if lines else 'no output'}): "
            f"read {self.log}, mend it and run this again; what is done is kept."
        )

    def wait_for_port(self, port: int, seconds: float = 300) -> None:
        """Until it listens on a port.

        Raises:
            InputError: it ended, or took too long.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                if probe.connect_ex((LOCALHOST, port)) == 0:
                    return
            time.sleep(0.2)
        raise InputError(
            f"{self.name} did not listen on port {port} within {seconds:.0f} s: read {self.log}."
        )

    def stop(self, seconds: float = 20) -> None:
        """End it and its children: asked first, then killed."""
        if self.process is None:
            return
        for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
            if number == signal.SIGTERM and not _group_lives(self.process.pid):
                break
        self.process = None


def program(name: str) -> str:
    """The path of a program of this environment.

    Raises:
        InputError: it is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise InputError(f"The program {name} is not installed beside {sys.executable}: run make install.")
    return found


def environment(settings: Settings) -> dict[str, str]:
    """The variables that Dagster, its runs and MLflow need; paths absolute."""
    home = settings.home.resolve()
    return {
        **os.environ,
        "CELLABEL_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "DAGSTER_GRPC_TIMEOUT_SECONDS": os.environ.get("DAGSTER_GRPC_TIMEOUT_SECONDS", "180"),
        "DAGSTER_RUN_STATUS_SENSOR_PROCESS_LIMIT": "100",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "",  # every run is a process of its own and would compile every module
    }


def prepare_dagster_home(settings: Settings) -> Path:
    """Make DAGSTER_HOME with the instance's configuration; a changed one is left as it is."""
    folder = settings.home.resolve() / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "dagster.yaml"
    if not file.exists():
        shutil.copyfile(PROJECT / "deployment" / "dagster.yaml", file)
    return folder


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])


def check_port(port: int, what: str, option: str) -> None:
    """Raise when something listens on a port already.

    Raises:
        InputError: it does; names the option that chooses another.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError as error:
            raise InputError(
                f"Port {port} for {what} is in use on {LOCALHOST}: end what listens there, or choose "
                f"another with "
                f"{option}."
            ) from error


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
