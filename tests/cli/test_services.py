import os
import socket
import sys
import time
from pathlib import Path

import pytest

from cellabel.cli._services import (
    Service,
    check_port,
    environment,
    free_port,
    prepare_dagster_home,
    program,
)
from cellabel.errors import InputError
from cellabel.settings import load_settings


def service(tmp_path, code):
    return Service("the helper", [sys.executable, "-c", code], dict(os.environ), tmp_path / "helper.log")


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_service_that_ends_is_told_with_its_last_line_and_log(tmp_path):
    helper = service(tmp_path, "import sys; print('no such file'); sys.exit(3)")
    helper.start()
    helper.process.wait(20)
    with pytest.raises(
        InputError, match=rf"the helper ended with code 3 \(no such file\).*{helper.log.name}"
    ):
        helper.check()


def test_stopping_ends_the_children_too(tmp_path):
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time, pathlib\n"
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(child)!r}).write_text(str(one.pid))\n"
        "time.sleep(60)\n"
    )
    helper = service(tmp_path, code)
    helper.start()
    wait_for(lambda: child.exists() and child.read_text())
    helper.stop(seconds=5)
    pid = int(child.read_text())
    wait_for(lambda: not _is_running(pid))


def _is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_port_in_use_is_told_with_the_option_that_chooses_another():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"Port {port} for the page is in use.*--port"):
            check_port(port, "the page", "--port")
    check_port(port, "the page", "--port")


def test_a_program_that_is_not_installed_is_told():
    assert program("dagster-daemon").endswith("dagster-daemon")
    with pytest.raises(InputError, match="no-such-program is not installed"):
        program("no-such-program")


def test_the_home_is_prepared_once_and_a_changed_instance_file_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLABEL_HOME", str(tmp_path))
    settings = load_settings()
    folder = prepare_dagster_home(settings)
    assert "telemetry" in (folder / "dagster.yaml").read_text()
    (folder / "dagster.yaml").write_text("changed: true\n")
    prepare_dagster_home(settings)
    assert (folder / "dagster.yaml").read_text() == "changed: true\n"
    variables = environment(settings)
    assert variables["DAGSTER_HOME"] == str(folder)
    assert variables["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_waiting_for_a_port_ends_when_the_service_listens_or_has_ended(tmp_path):
    port = free_port()
    code = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    helper = service(tmp_path, code)
    helper.start()
    helper.wait_for_port(port, seconds=20)
    helper.stop(seconds=5)
    ended = service(tmp_path, "print('gone')")
    ended.start()
    with pytest.raises(InputError, match="ended with code 0"):
        ended.wait_for_port(free_port(), seconds=20)
