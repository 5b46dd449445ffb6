"""What a person sees: the pages that `cellabel up` serves, in a real browser."""

import os
import shutil
import signal
import subprocess
import time

import pytest
import torch

from cellabel.cli._services import free_port, program
from cellabel.networks import OrganelleModel, UNet, save_model
from cellabel.registry import ModelRegistry
from cellabel.settings import load_settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    f"--{flag}"
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
    )
]
PATIENCE = 120_000  # ms

pytestmark = [
    pytest.mark.browser,
    pytest.mark.service,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An installation with one champion."""
    folder = tmp_path_factory.mktemp("home")
    os.environ["CELLABEL_HOME"] = str(folder)
    settings = load_settings()
    torch.manual_seed(0)
    trained = folder / "trained"
    trained.mkdir()
    config = {
        "network": UNet(base_channels=4, depth=2).config,
        "organelle": "nuclei",
        "target": "continuous",
        "target_scale": 100.0,
        "pixel_size_um": 0.65,
        "intensity_units": "stain",
        "dataset": "d1",
    }
    save_model(OrganelleModel(UNet(base_channels=4, depth=2), config), trained)
    (trained / "metrics.json").write_text("{}")
    (trained / "history.csv").write_text("step,train_loss\n1,1.0\n")
    registry = ModelRegistry(settings.mlflow_tracking_uri)
    version = registry.register(trained, "nuclei", metrics={"pixel_pearson": 0.8})
    registry.promote("nuclei", version.version, reason="the first of the test")
    yield folder
    os.environ.pop("CELLABEL_HOME")


@pytest.fixture(scope="module")
def pages(home):
    """The addresses of Dagster and MLflow, served by the command."""
    ports = free_port(), free_port()
    command = [program("cellabel"), "up", "--port", str(ports[0])]
    with (home / "up.log").open("w+") as log:
        served = subprocess.Popen(
            [*command, "--mlflow-port", str(ports[1])],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "CELLABEL_HOME": str(home)},
        )
        try:
            deadline = time.monotonic() + 300
            while "End them" not in (home / "up.log").read_text():
                assert served.poll() is None, (home / "up.log").read_text()
                assert time.monotonic() < deadline, "the pages did not come up"
                time.sleep(0.5)
            yield tuple(f"http://127.0.0.1:{port}" for port in ports)
        finally:
            os.killpg(served.pid, signal.SIGTERM)
            assert served.wait(60) is not None


@pytest.fixture(scope="module")
def page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


def test_dagster_shows_the_graph_by_groups_without_a_popup(pages, page):
    page.goto(f"{pages[0]}/asset-groups")
    for group in ("plates", "datasets", "models", "predictions", "monitoring"):
        page.get_by_text(group, exact=True).first.wait_for()
    assert page.get_by_role("dialog").count() == 0


def test_an_asset_says_what_it_is_and_who_owns_it(pages, page):
    page.goto(f"{pages[0]}/assets/nuclei/predicted_plate")
    page.get_by_text("The predicted nuclei stain of every field").first.wait_for()
    page.get_by_text("imaging").first.wait_for()


def test_every_sensor_runs(pages, page):
    page.goto(f"{pages[0]}/automation")
    for sensor in ("new_plates", "first_models", "champion_changed", "drift", "failures", "outbox"):
        page.get_by_text(sensor, exact=True).first.wait_for()


def test_mlflow_shows_the_registered_model_and_its_champion(pages, page):
    page.goto(f"{pages[1]}/#/models/cellabel-nuclei/versions/1")
    page.get_by_text("cellabel-nuclei").first.wait_for()
    page.get_by_text("champion").first.wait_for()
