"""What several rooms' tests start from."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A migrated, empty database: migration takes seconds, a copy does not."""
    from cellabel.registry import ModelRegistry

    folder = tmp_path_factory.mktemp("template")
    ModelRegistry(f"sqlite:///{folder / 'mlflow.db'}").versions("nuclei")
    return folder / "mlflow.db"


@pytest.fixture
def registry(template, tmp_path):
    """A registry over a fresh database in the test's own folder."""
    from cellabel.registry import ModelRegistry

    shutil.copy(template, tmp_path / "mlflow.db")
    return ModelRegistry(f"sqlite:///{tmp_path / 'mlflow.db'}")
