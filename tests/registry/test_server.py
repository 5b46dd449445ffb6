"""The registry behind an MLflow server, where artefacts travel over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from safetensors.numpy import save_file

from cellabel import InputError
from cellabel.registry import ModelRegistry


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of our own on a free port; yields its address and the folder with its artefacts."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=folder,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/health", process)
        yield address, folder / "artifacts"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url, process, seconds=240):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError(f"{url} did not come up")


def trained(folder, seed):
    folder.mkdir()
    weights = np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)
    save_file({"weight": weights}, folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps({"organelle": "er"}))
    return folder


@pytest.mark.service
def test_versions_travel_through_a_server_and_corruption_there_is_noticed(server, tmp_path, monkeypatch):
    address, artefacts = server
    monkeypatch.setenv("CELLABEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    registry = ModelRegistry(address)
    folder = trained(tmp_path / "one", 1)
    assert registry.register(folder, "er", metrics={"pearson": 0.9}).aliases == ("challenger",)
    assert registry.promote("er", 1, reason="first").aliases == ("champion",)
    copy = registry.folder("er")
    assert copy.is_relative_to(tmp_path / "home" / "cache" / "models")
    assert (copy / "weights.safetensors").read_bytes() == (folder / "weights.safetensors").read_bytes()
    assert registry.register(trained(tmp_path / "two", 2), "er").version == 2
    stored = max(artefacts.rglob("weights.safetensors"), key=lambda path: path.stat().st_mtime)
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="Version 2 of cellabel-er is corrupted"):
        registry.promote("er", 2, reason="better")
    stored.unlink()
    with pytest.raises(InputError, match="Version 2 of cellabel-er"):
        registry.promote("er", 2, reason="better")
    assert registry.champion("er").version == 1 and registry.champion("er").metrics == {"pearson": 0.9}


def test_a_server_that_is_down_is_told_in_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("CELLABEL_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=r"MLflow at http://127.0.0.1:9 cannot be used"):
        ModelRegistry("http://127.0.0.1:9").champion("er")
