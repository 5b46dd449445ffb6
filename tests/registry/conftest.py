"""A registry over a fresh database, and folders as a training leaves them."""

from __future__ import annotations

import contextlib
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from cellabel.registry import ModelRegistry


@pytest.fixture
def home(template, tmp_path):
    shutil.copy(template, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def registry(home):
    return ModelRegistry(f"sqlite:///{home / 'mlflow.db'}")


@pytest.fixture
def dying(monkeypatch):
    """Kills what goes on inside before the n-th of a registry's writes, and goes on after it."""

    class Killed(BaseException):
        pass

    @contextlib.contextmanager
    def kill(registry, dies_at, *writes):
        calls = []

        def counted(call):
            def wrapper(*args, **keywords):
                if len(calls) == dies_at:
                    raise Killed
                calls.append(call.__name__)
                return call(*args, **keywords)

            return wrapper

        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            for name in writes:
                patch.setattr(registry._catalogue, name, counted(getattr(registry._catalogue, name)))
            yield

    return kill


@pytest.fixture(scope="session")
def trained():
    """Writes what a training leaves behind."""
    return write_training


def write_training(folder, *, seed=0, organelle="nuclei", metrics=None):
    folder.mkdir(parents=True)
    weights = np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)
    save_file({"weight": weights}, folder / "weights.safetensors")
    config = {
        "organelle": organelle,
        "network": {"base_channels": 4, "depth": 2},
        "target": "continuous",
        "dataset": "d-123",
        "code_version": "0.1.0",
        "training": {"epochs": 3, "optimiser": {"name": "adam"}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.json").write_text(json.dumps(metrics or {"clean": {"pearson": 0.9}, "note": "x"}))
    (folder / "history.csv").write_text("epoch,loss\n0,1.0\n1,0.5\n")
    return folder


@pytest.fixture
def two(registry, tmp_path, trained):
    """Version 1 is champion, version 2 challenger."""
    registry.register(trained(tmp_path / "one", seed=1), "nuclei")
    registry.promote("nuclei", 1, reason="first")
    registry.register(trained(tmp_path / "two", seed=2), "nuclei")
    return registry
