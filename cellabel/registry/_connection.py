"""MLflow, quiet, without pickles, and migrated by one process at a time."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from filelock import FileLock

from cellabel.errors import InputError
from cellabel.registry._lease import lease
from cellabel.settings import load_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def prepare_mlflow() -> None:
    """Import mlflow quietly; pickles are refused whatever the environment says."""
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)


class Connection:
    """One MLflow database or server: its client, its lock and where artefacts lie.

    The lock is a file beside a SQLite database. For servers it lies in the home (else in the temporary
    folder) and serialises the processes of this machine; `exclusive` adds a lease in the registry itself,
    which serialises those of all machines.
    """

    def __init__(self, uri: str | None) -> None:
        if uri is None:
            settings = load_settings()
            uri, home = settings.mlflow_tracking_uri, settings.home.resolve()
        elif not isinstance(uri, str) or not uri:
            raise InputError(
                f"The registry's address {uri!r} is no text; give one like 'sqlite:////path/mlflow.db' or a "
                "server's, or None for the settings' one."
            )
        else:
            home = Path(os.environ.get("CELLABEL_HOME") or tempfile.gettempdir()).resolve()
        self.uri = uri
        self.database = _sqlite_path(uri)
        self.home = self.database.parent if self.database else home
        self._client: MlflowClient | None = None

    @cached_property
    def lock(self) -> FileLock:
        """The lock of every change to versions and aliases; it may be taken again by who holds it."""
        if self.database:
            self.database.parent.mkdir(parents=True, exist_ok=True)
            return FileLock(f"{self.database}.lock")
        folder = self.home / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(str(folder / f"mlflow-{hashlib.sha256(self.uri.encode()).hexdigest()[:12]}.lock"))

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Nobody else, on this machine or another, changes versions and aliases of a model meanwhile.

        Raises:
            InputError: somebody else has held a server's lease for too long.
        """
        client = self.client
        with self.lock:
            if not self.is_server:
                yield
                return
            with lease(client, name):
                yield

    @property
    def is_server(self) -> bool:
        """Whether a server stands between this process and the database."""
        return urlparse(self.uri).scheme in ("http", "https")

    @property
    def artifact_root(self) -> str | None:
        """Where a new experiment keeps its artefacts; None leaves it to the server."""
        return None if self.is_server else (self.home / "mlartifacts").as_uri()

    @property
    def cache(self) -> Path:
        """Where artefacts of a server are kept after a download."""
        return self.home / "cache" / "models"

    @property
    def client(self) -> MlflowClient:
        """The client; the first touch creates or migrates the database, one process at a time.

        Raises:
            InputError: the database or server cannot be reached.
        """
        if self._client is None:
            prepare_mlflow()
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            try:
                with self.lock:
                    client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                    client.search_registered_models(max_results=1)
            except (MlflowException, SQLAlchemyError, OSError) as error:
                raise InputError(
                    f"MLflow at {self.uri} cannot be used ({str(error).splitlines()[0][:200]}): check the "
                    "setting mlflow_uri and that the server is up."
                ) from error
            self._client = client
        return self._client


def _sqlite_path(uri: str) -> Path | None:
    prefix = "sqlite:///"
    if not uri.startswith(prefix) or uri == prefix:
        return None
    return Path(uri.removeprefix(prefix)).resolve()


def local_path(uri: str) -> Path | None:
    """The folder behind a `file:` URI or plain path, None for anything else."""
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(uri) if parsed.scheme == "" else None
