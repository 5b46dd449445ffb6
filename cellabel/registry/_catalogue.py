"""Reading and writing MLflow's model registry, in this room's own words.

Nothing is written by a holder of a server's lease that has run out.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, TypeVar

from cellabel.registry import _files
from cellabel.registry._card import LONGEST, Report, model_card
from cellabel.registry._connection import Connection
from cellabel.registry._lease import confirm
from cellabel.registry._transfer import HISTORY, Logged, TrainedFolder
from cellabel.registry._versions import ModelVersion

T = TypeVar("T")
MODEL_ID = "model_id"


class Catalogue:
    """Registered models and their versions, aliases and tags."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def aliases(self, name: str) -> dict[str, int]:
        """Alias → version of a registered model, empty where there is no such model."""
        model = _or_none(lambda: self._connection.client.get_registered_model(name))
        return {} if model is None else {alias: int(version) for alias, version in model.aliases.items()}

    def model_tags(self, name: str) -> dict[str, str]:
        """Tags of a registered model as a whole, empty where there is no such model."""
        model = _or_none(lambda: self._connection.client.get_registered_model(name))
        return {} if model is None else dict(model.tags)

    def tag_model(self, name: str, **tags: str) -> None:
        """Write tags of a registered model as a whole."""
        confirm(name)
        for key, value in tags.items():
            self._connection.client.set_registered_model_tag(name, key, value)

    def find(self, name: str, number: int) -> ModelVersion | None:
        """A version by its number, or None."""
        entity = _or_none(lambda: self._connection.client.get_model_version(name, str(number)))
        return None if entity is None else self._describe(entity, self.aliases(name))

    def by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that an alias points to, or None."""
        number = self.aliases(name).get(alias)
        return None if number is None else self.find(name, number)

    def all(self, name: str) -> list[ModelVersion]:
        """Every version, the newest first."""
        aliases = self.aliases(name)
        found: list[Any] = []
        token = None
        while True:
            page = self._connection.client.search_model_versions(f"name='{name}'", page_token=token)
            found += page
            token = page.token
            if not token:
                break
        versions = [self._describe(entity, aliases) for entity in found]
        return sorted(versions, key=lambda version: -version.version)

    def create(self, name: str, logged: Logged, trained: TrainedFolder) -> ModelVersion:
        """Register logged files as a new version."""
        confirm(name)
        client = self._connection.client
        if _or_none(lambda: client.get_registered_model(name)) is None:
            client.create_registered_model(name)
        server = self._connection.is_server  # only a server finds `models:/…` without global settings
        entity = client.create_model_version(
            name,
            source=f"models:/{logged.model_id}" if server else logged.location,
            run_id=logged.run_id,
            tags={
                **trained.tags,
                MODEL_ID: logged.model_id,
                _files.CHECKSUMS: _files.checksum_tag(trained.checksums | logged.own_checksums),
            },
            description=model_card(
                trained.organelle,
                config=trained.config,
                metrics=trained.metrics,
                tags=trained.tags,
                report=Report.read(trained.folder),
                longest=LONGEST,
            ),
            model_id=logged.model_id if server else None,
        )
        return self._describe(entity, self.aliases(name))

    def tag(self, name: str, number: int, **tags: str) -> None:
        """Write tags of a version."""
        confirm(name)
        for key, value in tags.items():
            self._connection.client.set_model_version_tag(name, str(number), key, value)

    def describe(self, name: str, number: int, text: str) -> None:
        """Write the description that MLflow shows on a version's page, Markdown."""
        confirm(name)
        self._connection.client.update_model_version(name, str(number), description=text)

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """Point an alias to a version."""
        confirm(name)
        self._connection.client.set_registered_model_alias(name, alias, str(number))

    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away."""
        confirm(name)
        self._connection.client.delete_registered_model_alias(name, alias)

    def model_status(self, version: ModelVersion) -> str:
        """READY once all files were logged; else PENDING, FAILED or missing."""
        model = self._logged_model(version)
        return "missing" if model is None else str(model.status)

    def location(self, version: ModelVersion) -> str:
        """Where the files of a version lie."""
        return str(self._logged_model(version).artifact_location)

    def _logged_model(self, version: ModelVersion) -> Any:
        identity = version.tags.get(MODEL_ID)
        return _or_none(lambda: self._connection.client.get_logged_model(identity)) if identity else None

    def _describe(self, entity: Any, aliases: dict[str, int]) -> ModelVersion:
        number = int(entity.version)
        run = _or_none(lambda: self._connection.client.get_run(entity.run_id)) if entity.run_id else None
        metrics = {} if run is None else run.data.metrics
        return ModelVersion(
            organelle=entity.name.removeprefix("cellabel-"),
            name=entity.name,
            version=number,
            run_id=entity.run_id or "",
            aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
            tags=entity.tags,
            metrics={key: value for key, value in metrics.items() if not key.startswith(HISTORY)},
            created_at=dt.datetime.fromtimestamp(entity.creation_timestamp / 1000, dt.UTC),
            description=entity.description or "",
        )


def as_number(which: str | int) -> int | None:
    """A version number, or None where `which` is none."""
    text = str(which)
    return int(text) if text.isascii() and text.isdigit() else None


def _or_none(call: Callable[[], T]) -> T | None:
    """What `call` returns, or None where MLflow says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
