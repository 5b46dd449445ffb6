"""Thin Dagster faces of stores, model registry and alerts; by default all lie in one folder."""

from typing import TYPE_CHECKING

import dagster as dg

from cellabel.stores import Home, open_home

if TYPE_CHECKING:
    from cellabel.alerts import AlertLedger
    from cellabel.registry import ModelRegistry

__all__ = ["Alerts", "Models", "Stores"]


class Stores(dg.ConfigurableResource):
    """Plates, predictions, datasets, tables and detector states, where the settings say."""

    def open(self) -> Home:
        """The stores of this installation."""
        return open_home()


class Models(dg.ConfigurableResource):
    """The model registry in MLflow."""

    def open(self) -> "ModelRegistry":
        """The registry that the settings name."""
        from cellabel.registry import ModelRegistry

        return ModelRegistry(open_home().settings.mlflow_tracking_uri)


class Alerts(dg.ConfigurableResource):
    """The ledger of alerts and the outbox behind it."""

    def open(self) -> "AlertLedger":
        """The ledger of this installation."""
        from cellabel.alerts import AlertLedger

        return AlertLedger(str(open_home().alerts))
