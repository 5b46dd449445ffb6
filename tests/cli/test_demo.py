import io

import pytest
from filelock import FileLock
from rich.console import Console

from cellabel.cli import _demo
from cellabel.cli._real_demo import real_demo
from cellabel.errors import InputError

LINE = "2026-03-02 09:00:00 +0000 - dagster - INFO - train - 4f3d - {}__organelle_model - {}\n"


class Silent:
    """Stands for the daemon: these tests are about the home."""

    def __init__(self, name, command, variables, log):
        self.log = log

    def start(self):
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text(LINE.format("er", "step 1 of 4: of an earlier start"))

    def wait_for_port(self, port): ...

    def stop(self): ...

    def check(self): ...


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLABEL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(_demo, "Service", Silent)
    monkeypatch.setattr(_demo, "LOOK_SECONDS", 0.0)
    return tmp_path / "home"


def enter(name="one", fresh=False, **changes):
    return _demo.running_demo(name, changes, fresh=fresh, console=Console(quiet=True))


def test_the_demos_settings_are_written_where_a_person_sees_them(home):
    with enter(sensor_seconds=3) as demo:
        assert demo.home.settings.sensor_seconds == 3
    assert "should not" in (home / "settings.yaml").read_text()


def test_a_second_demo_at_the_same_time_is_refused(home):
    home.mkdir()
    lock = FileLock(home / "demo.lock")
    with lock, pytest.raises(InputError, match="A demo is under way"), enter():
        pass


def test_a_second_demo_goes_on_and_a_fresh_one_begins_anew(home):
    with enter():
        (home / "kept.txt").write_text("x")
    with enter():
        assert (home / "kept.txt").exists()
    with enter(fresh=True):
        assert not (home / "kept.txt").exists()


def test_a_home_that_holds_something_else_is_left_alone(home):
    with enter("one"):
        pass
    with pytest.raises(InputError, match="holds the demo 'one'"), enter("two", fresh=True):
        pass
    (home / "demo.txt").unlink()
    with pytest.raises(InputError, match="something that is no demo"), enter("one", fresh=True):
        pass
    assert (home / "settings.yaml").exists()


def test_what_a_training_says_is_told_once_and_only_when_its_line_is_whole(home):
    with enter() as demo:
        demo.console = Console(record=True, width=120, quiet=False, file=io.StringIO())
        looks = iter(
            [
                LINE.format("er", "step 30 of 240: training loss 0.4")
                + LINE.format("er", "loading what a step needs"),
                LINE.format("gfp", "fold 1 of 3, step 7 of 9: training loss 0.2")[:-8],
                LINE.format("gfp", "fold 1 of 3, step 7 of 9: training loss 0.2")[-8:],
            ]
        )

        def done():
            text = next(looks, None)
            with demo.log.open("a") as log:
                log.write(text or "")
            return text is None

        demo.wait("nothing", done)
        told = [line.split("  ", 1)[1] for line in demo.console.export_text().splitlines()]
    assert told == [
        "er: step 30 of 240: training loss 0.4",
        "gfp: fold 1 of 3, step 7 of 9: training loss 0.2",
    ]


def test_the_demo_waits_for_runs_that_are_under_way(home):
    run = "2026-03-02 09:00:00 +0000 - dagster - DEBUG - predict - {} - 23254 - RUN_{} - ...\n"
    ids = ["bffd555a-c580-4788-ba2f-bf7525d57f88", "1c5bd7e0-70eb-4a5e-bae6-c58be13812f4"]
    with enter() as demo:
        with demo.log.open("a") as log:
            log.write("".join(run.format(one, "START") for one in ids) + run.format(ids[0], "SUCCESS"))
        looks = []

        def check():
            looks.append(len(demo._running))
            with demo.log.open("a") as log:
                log.write(run.format(ids[1], "FAILURE"))

        demo.services[0].check = check
        demo.wait_for_runs()
    assert looks == [1]


def test_a_demo_on_real_images_may_lie_within_and_is_left_alone(home):
    with enter("real", fresh=False) as demo:
        pass
    inner = home / "fig10"
    inner.mkdir()
    for path in list(home.iterdir()):
        if path not in (inner, home / "demo.lock"):
            path.rename(inner / path.name)
    for fresh in (False, True):
        with enter("simulated", fresh=fresh) as demo:
            assert demo.home.settings.home == home
        assert (inner / "demo.txt").read_text() == "real\n"


def test_a_failed_run_stops_the_demo_with_its_sentence(home):
    from cellabel.alerts import Alert, AlertLedger

    with enter() as demo:
        AlertLedger(str(demo.home.alerts)).write(
            Alert(
                id="failure-1",
                kind="failure",
                title="The run ingest of P1 failed",
                body="raw_plate: no images",
            )
        )
        with pytest.raises(InputError, match=r"The run ingest of P1 failed: raw_plate: no images .*FRESH=1"):
            demo.wait("a plate", lambda: False)


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_real_images_is_told(home, tmp_path, make):
    folder = tmp_path / "images"
    if make:
        folder.mkdir()
        (folder / "holiday.tif").write_bytes(b"")
    with pytest.raises(InputError, match=r"There is no folder|holds no images named"):
        real_demo(Console(quiet=True), folder)
