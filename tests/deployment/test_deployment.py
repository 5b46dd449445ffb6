import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOYMENT = Path(__file__).parents[2] / "deployment"


def test_the_dockerfile_passes_hadolint():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOYMENT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_hadolint_would_tell(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN sudo apt-get install x\n")
    hadolint = Path(sys.executable).with_name("hadolint")
    assert (
        subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, check=False).returncode != 0
    )


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_compose_understands_its_file():
    command = ["docker-compose", "-f", str(DEPLOYMENT / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pages_are_published_on_this_machine_only():
    compose = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text())
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_holds_what_the_services_start():
    dockerfile = (DEPLOYMENT / "Dockerfile").read_text()
    for needed in ("cellabel", "orchestration", "workspace.yaml", "deployment/dagster.yaml"):
        assert f"COPY {needed}" in dockerfile
