"""All stores of one installation."""

from __future__ import annotations

from dataclasses import dataclass

from upath import UPath

from cellabel.settings import Settings, load_settings
from cellabel.stores._atomic import as_path
from cellabel.stores.artefacts import ArtefactStore, PlateStore
from cellabel.stores.tables import TableStore

__all__ = ["Home", "open_home"]


class PredictionStore(ArtefactStore):
    """Predicted plates: names are `<plate>/<organelle>`, versions `v<model version>-<plate content>`."""

    what = "prediction"


class DatasetStore(ArtefactStore):
    """Dataset manifests: names are organelles, versions the dataset's hash."""

    what = "dataset"


@dataclass(frozen=True)
class Home:
    """Where one installation keeps what it has.

    Tables, by their folder: `quality/<plate>`, `acquisition/<plate>`,
    `cells|fields|wells/<organelle>/<plate>` (of the current prediction), `cells|wells|statistics/<plate>`
    (joined over organelles), `agreement/<organelle>/<plate>` (with the stain) and
    `agreement_with_truth/<organelle>/<plate>`, `versions/<organelle>/v<model
    version>/<plate>` (wells of every version), `stained|stained_fields/<organelle>/<plate>` (the same
    measured on the true stain), `embeddings/<organelle>/v<model version>/<plate>` and `ranking/<plate>`.
    """

    settings: Settings
    plates: PlateStore
    predictions: PredictionStore
    datasets: DatasetStore
    tables: TableStore
    detectors: UPath
    alerts: UPath

    @property
    def inbox_memory(self) -> UPath:
        """What the last look into the inbox saw."""
        return as_path(self.settings.home / "inbox.json")


def open_home(settings: Settings | None = None) -> Home:
    """The stores that the settings name; nothing is created yet."""
    settings = settings or load_settings()
    return Home(
        settings=settings,
        plates=PlateStore(settings.location("plates")),
        predictions=PredictionStore(settings.location("predictions")),
        datasets=DatasetStore(settings.location("datasets")),
        tables=TableStore(settings.location("tables")),
        detectors=as_path(settings.location("detectors")),
        alerts=as_path(settings.location("alerts")),
    )
