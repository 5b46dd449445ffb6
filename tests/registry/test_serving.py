"""MLflow's own server answers with a stitched prediction of any size."""

from __future__ import annotations

import contextlib
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


def ask(url, body=None, seconds=60):
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, json.loads(answer.read().strip() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.fixture
def served(registry, home, tmp_path):
    """A champion behind `mlflow models serve` on a free port: its address and the model."""
    import torch

    from cellabel.networks import OrganelleModel, UNet, save_model

    torch.manual_seed(0)
    network = UNet(base_channels=4, depth=2)
    config = {
        "network": network.config, "organelle": "nuclei", "target": "continuous", "target_scale": 200.0,
        "pixel_size_um": 0.65, "intensity_units": "stain",
    }  # fmt: skip
    model = OrganelleModel(network, config).eval()
    folder = tmp_path / "network"
    folder.mkdir()
    save_model(model, folder)
    registry.register(folder, "nuclei")
    registry.promote("nuclei", 1, reason="first")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/cellabel-nuclei@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",  # MLflow calls uvicorn
        "PYTHONPATH": os.getcwd(),
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path, env=environment
        )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 400
        while time.monotonic() < end and process.poll() is None:
            try:
                ask(f"{address}/ping", seconds=5)
                break
            except OSError:
                time.sleep(0.3)
        else:
            pytest.fail((tmp_path / "log").read_text())
        yield address, model
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.service
def test_the_served_champion_answers_with_the_prediction_of_an_image_of_any_size(served):
    from cellabel.prediction import predict_image

    address, model = served
    for shape in ((37, 52), (130, 91)):
        image = np.random.default_rng(1).integers(100, 4000, shape)
        status, answer = ask(f"{address}/invocations", {"inputs": image.tolist()})
        assert status == 200
        expected = predict_image(model, image.astype(np.float64)) * 200
        np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-4, atol=1e-3)
    status, answer = ask(f"{address}/invocations", {"inputs": [1, 2, 3]})
    assert status == 400 and "is no image" in answer["message"]
