"""The commands of a person without Dagster, from a simulated plate to a model that is promoted."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from cellabel.alerts import Alert, AlertLedger
from cellabel.cli import app, main
from cellabel.drift.incidents import Incident
from cellabel.errors import InputError
from cellabel.loop import read_incident
from cellabel.stores import open_home, write_json

PLATE = "P1"
TINY = {"base_channels": 4, "depth": 2, "crop_size": 32, "batch_size": 2, "validations": 1, "num_threads": 1}


class Said:
    """What a command said, and how it ended."""

    def __init__(self, result) -> None:
        self.out, self.err = result.stdout, result.stderr
        self.error = str(result.exception) if isinstance(result.exception, InputError) else ""
        if result.exception and not isinstance(result.exception, InputError | SystemExit):
            raise result.exception
        self.code = 2 if self.error else result.exit_code

    @property
    def json(self):
        return json.loads(self.out)


def run(*arguments: object) -> Said:
    return Said(CliRunner().invoke(app, [str(one) for one in arguments]))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A simulated plate, and a home in which it is stored and a tiny model of it is the champion."""
    folder = tmp_path_factory.mktemp("workplace")
    before = os.environ.get("CELLABEL_HOME")
    os.environ["CELLABEL_HOME"] = str(folder / "home")
    os.environ["CELLABEL_MODELS__TRAINING"] = json.dumps(TINY)
    controls = [word for name in ("blanks", "parental", "reference") for word in ("--set", f"{name}=0")]
    simulated = run(
        "simulate", folder / PLATE, "--plate-id", PLATE, "--wells", 3, "--sites", 1, "--size", 96,
        "--preset", "10x", "--stain", "nuclei", *controls, "--json",
    )  # fmt: skip
    assert simulated.json["fields"] == 3
    imported = run("import", folder / PLATE, "--json")
    assert imported.json["status"] == "accepted"
    trained = run("train", "nuclei", "--max-steps", 2, "--json")
    assert trained.json["aliases"] == ["challenger"]
    yield folder
    del os.environ["CELLABEL_MODELS__TRAINING"]
    if before is None:
        del os.environ["CELLABEL_HOME"]
    else:
        os.environ["CELLABEL_HOME"] = before


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home."""
    monkeypatch.setenv("CELLABEL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def image(tmp_path):
    """A noisy 16-bit image with one bright disk."""
    y, x = np.mgrid[:96, :96]
    noise = np.random.default_rng(0).normal(200, 5, (96, 96))
    pixels = noise + 2000 * (np.hypot(y - 48, x - 40) < 8)
    path = tmp_path / "stain.tif"
    tifffile.imwrite(path, pixels.astype(np.uint16))
    return path


def stored_plate(home: Path, plate: str = "X", **record: object) -> None:
    write_json(
        open_home().plates.root / plate / "record.json", {"name": plate, "status": "accepted", **record}
    )


def opened_incident(**changes: object) -> Incident:
    incident = replace(Incident("P9-abc", "scope-1", datetime(2026, 3, 1, tzinfo=UTC)), **changes)
    home = open_home()
    write_json(home.detectors / "incidents" / f"{incident.id}.json", incident.to_dict())
    return incident


def test_the_command_line_loads_nothing_heavy():
    code = (
        "import sys, cellabel.cli._app;"
        "heavy = {'torch', 'mlflow', 'dagster', 'pandas', 'numpy', 'skimage', 'cv2'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [
        *(["simulate"], ["import"], ["train"], ["evaluate"], ["predict"], ["measure"], ["corrupt"], ["demo"]),
        *(["up"], ["drift"], ["models"], ["plates"], ["alerts"]),
        *(["drift", name] for name in ("status", "incidents", "ack", "close", "snooze", "resume")),
        *(["models", name] for name in ("list", "compare", "promote", "rollback", "card", "export")),
        *(["plates", name] for name in ("list", "show", "release", "retire")),
        *(["alerts", name] for name in ("list", "ack")),
    ],
    ids=" ".join,
)
def test_every_command_has_help(command):
    said = run(*command, "--help")
    assert said.code == 0 and "Usage" in said.out


def test_the_help_of_simulate_names_every_kind_of_drift():
    from cellabel.cli._simulate import simulate
    from cellabel.simulation import DRIFT_KINDS

    text = str(simulate.__annotations__["drift"])
    assert [kind for kind in DRIFT_KINDS if f"{kind} (" not in text] == []


def test_bad_input_is_one_sentence_on_standard_error_and_exit_code_2(home, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cellabel", "corrupt", "[red]a.tif", "defocus", "1", "b.tif"])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.count("\n") == 1 and "There is no image file [red]a.tif" in err


def typed(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    """Exit code and output of a command as a shell runs it."""
    monkeypatch.setattr(sys, "argv", ["cellabel", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["predict", "nuclei"], "Missing argument 'IMAGE|PLATE_ID'; see cellabel predict --help."),
        (["train", "nuclei", "a"], "Got unexpected extra argument(s) (a); see cellabel train --help."),
        (["train", "nuclei", "--max-steps", "x"], "see cellabel train --help."),
        (["train", "nuclei", "--step", "1"], "No such option: --step"),
        (["models", "shwo"], "No such command 'shwo'"),
        (["up", "--port", "99999"], "less than or equal to 65535; see cellabel up --help."),
    ],
)
def test_a_command_that_is_mistyped_is_one_sentence(home, monkeypatch, capsys, words, sentence):
    code, out, err = typed(monkeypatch, capsys, *words)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith("cellabel: ") and sentence in err


def test_a_group_without_a_command_shows_its_help(home, monkeypatch, capsys):
    code, out, err = typed(monkeypatch, capsys, "drift")
    assert code == 2 and "Usage: cellabel drift" in out + err


@pytest.mark.parametrize("end", [KeyboardInterrupt(), None])
def test_an_interrupted_command_says_that_it_stopped(home, monkeypatch, capsys, end):
    def pressed(*_: object, **__: object) -> None:
        if end:
            raise end
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning answers Ctrl-C

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("cellabel.stores.open_home", pressed)
    try:
        code, out, err = typed(monkeypatch, capsys, "plates", "show", "P1")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, out, err) == (130, "", "cellabel: Stopped; nothing was kept half-written.\n")


def test_ctrl_c_while_the_command_line_is_loaded_leaves_no_traceback():
    code = (
        "import sys\n"
        "class Pressed:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "from cellabel.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "cellabel: Stopped; nothing was kept half-written.\n")


LISTINGS = (["plates", "list"], ["alerts", "list"], ["models", "list"], ["drift", "incidents"])


@pytest.mark.parametrize("words", LISTINGS, ids=" ".join)
def test_a_home_that_is_not_there_is_told(home, words):
    said = run(*words)
    assert said.code == 2 and f"There is no home at {home}" in said.error and not home.exists()
    home.write_text("")
    said = run(*words)
    assert said.code == 2 and f"There is no home at {home}, which is a file" in said.error


def test_the_default_home_may_be_yet_to_come(tmp_path, monkeypatch):
    monkeypatch.delenv("CELLABEL_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    said = run("plates", "list", "--json")
    assert said.json == [] and "There is no home at .cellabel yet" in said.err


def test_a_damaged_record_does_not_hide_the_other_plates(home):
    stored_plate(home, "X")
    stored_plate(home, "Y")
    stored_plate(home, "Z")
    (home / "plates" / "X" / "record.json").write_bytes(b"\xff\xfe\x00")
    (home / "plates" / "Z" / "record.json").write_text("[1]")
    listed = {plate["plate_id"]: plate for plate in run("plates", "list", "--json").json}
    assert {name: plate["status"] for name, plate in listed.items()} == {
        "X": "damaged", "Y": "accepted", "Z": "damaged",
    }  # fmt: skip
    assert "X/record.json is not valid JSON" in listed["X"]["reason"]
    assert "damaged" in run("plates", "list").out
    said = run("plates", "show", "X")
    assert said.code == 2 and "X/record.json is not valid JSON" in said.error


def test_only_a_plate_that_was_released_for_training_says_so(home):
    stored_plate(home, "X")
    stored_plate(home, "Y", accepted_for_training=True)
    assert "training" not in run("plates", "show", "X").out
    assert "released although it drifted" in run("plates", "show", "Y").out


def test_a_snoozed_incident_shows_until_when(home):
    incident = opened_incident()
    assert run("drift", "snooze", incident.id, "--by", "Ada", "--days", 36500).code == 0
    until = read_incident(open_home(), incident.id).snoozed_until
    assert f"{until:%Y-%m-%d}" in run("drift", "incidents").out


BAD = {
    "an unknown organelle": (["measure", "mitochondria", "IMAGE"], "No organelle is called 'mitochondria'"),
    "an organelle to train": (["train", "mitochondria"], "No organelle is called 'mitochondria'"),
    "an organelle to list": (["models", "list", "mitochondria"], "No organelle is called"),
    "an unknown plate": (["plates", "show", "P77"], "There is no plate 'P77'"),
    "an impossible plate id": (["plates", "show", "../P77"], "cannot be used"),
    "a plate to release": (["plates", "release", "P77"], "There is no plate 'P77'"),
    "a plate to retire": (["plates", "retire", "P77"], "There is no plate 'P77'"),
    "a plate to watch": (["drift", "status", "P77"], "There is no plate 'P77'"),
    "a plate to predict": (["predict", "nuclei", "P77"], "neither an image nor a stored plate"),
    "an image to predict": (["predict", "nuclei", "a/b.tif"], "There is no image file"),
    "a folder to predict": (["predict", "nuclei", "FOLDER"], "is a folder"),
    "a prediction as a picture": (["predict", "nuclei", "IMAGE", "--out", "a.png"], "ends in .tif"),
    "NaN pixels": (["measure", "nuclei", "NAN"], "holds NaN or infinite pixels"),
    "a file that is no image": (["measure", "nuclei", "TEXT"], "cannot be used"),
    "a truncated image": (["corrupt", "CUT", "defocus", "1", "OUT"], "cannot be used"),
    "a stack of images": (["measure", "nuclei", "STACK"], "holds 3 planes"),
    "a document": (["measure", "nuclei", "FOLDER/note.pdf"], "There is no image file"),
    "a pixel size": (["measure", "nuclei", "IMAGE", "--pixel-size-um", "0"], "pixel size is 0"),
    "a table's name": (["measure", "nuclei", "IMAGE", "--out", "a.xlsx"], "cannot hold a table"),
    "a kind": (["corrupt", "IMAGE", "fog", "1", "OUT"], "No corruption is called 'fog'"),
    "a severity": (["corrupt", "IMAGE", "contrast", "-9", "OUT"], "no severity -9"),
    "its own source": (["corrupt", "IMAGE", "contrast", "1", "IMAGE"], "is the image that is read"),
    "an unwritable place": (["corrupt", "IMAGE", "contrast", "1", "TEXT/a.tif"], "could not be written"),
    "a folder to import": (["import", "FOLDER/none"], "none"),
    "an empty folder": (["import", "FOLDER", "--dry-run"], "holds no images"),
    "a drift without size": (["simulate", "OUT", "--drift", "defocus"], "--drift-size together"),
    "a kind of drift": (["simulate", "OUT", "--drift", "fog", "--drift-size", "1"], "fog"),
    "a stain": (["simulate", "OUT", "--stain", "lipids"], "lipids"),
    "an objective": (["simulate", "OUT", "--preset", "3x"], "3x"),
    "a setting": (["simulate", "OUT", "--set", "seed=3"], "No setting is called 'seed'"),
    "a setting's value": (["simulate", "OUT", "--set", "confluence=much"], "confluence cannot be 'much'"),
    "half a setting": (["simulate", "OUT", "--set", "confluence"], "NAME=VALUE"),
    "a place for a plate": (["simulate", "TEXT/P", "--wells", "1"], "could not be written"),
    "an unknown setting of training": (["train", "nuclei", "--set", "speed=9"], "speed"),
    "steps": (["train", "nuclei", "--max-steps", "0"], "max_steps"),
    "nothing to train on": (["train", "nuclei"], "No accepted plate shows a stain of nuclei"),
    "a negative seed": (["train", "nuclei", "--seed", "-1"], "seed is -1"),
    "a corruption to withstand": (
        ["train", "nuclei", "--corruption", "fog", "--severity", "1"],
        "No corruption is called 'fog'",
    ),
    "a severity to withstand": (
        ["train", "nuclei", "--corruption", "defocus", "--severity", "9"],
        "defocus has no severity 9",
    ),
    "severities without kind": (["train", "nuclei", "--severity", "2"], "--severity together"),
    "an incident": (["drift", "ack", "I7", "--by", "Ada"], "There is no drift incident 'I7'"),
    "an incident to close": (["drift", "close", "I7", "--by", "Ada", "--reason", "r"], "no drift incident"),
    "an incident to snooze": (["drift", "snooze", "I7", "--by", "Ada"], "no drift incident"),
    "an incident to resume": (["drift", "resume", "I7", "--by", "Ada"], "no drift incident"),
    "nobody": (["drift", "ack", "I7", "--by", " "], "Nobody is named"),
    "an alert": (["alerts", "ack", "A7", "--by", "Ada"], "There is no alert 'A7'"),
    "a status": (["plates", "list", "--status", "foo"], "accepted, quarantined, retired, arriving"),
    "a kind of alert": (["alerts", "list", "--kind", "fire"], "No alert is of the kind 'fire'"),
    "a version without reason": (["models", "promote", "nuclei", "--version", "1"], "--reason together"),
}


@pytest.mark.parametrize(("arguments", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_is_told(home, image, tmp_path, arguments, sentence):
    places = {name: tmp_path / name for name in ("FOLDER", "NAN", "TEXT", "CUT", "STACK", "OUT")}
    places = {name: path if name == "FOLDER" else path.with_suffix(".tif") for name, path in places.items()}
    places["IMAGE"] = image
    places["FOLDER"].mkdir()
    tifffile.imwrite(places["NAN"], np.full((8, 8), np.nan, np.float32))
    places["TEXT"].write_text("no image")
    places["CUT"].write_bytes(image.read_bytes()[:-500])
    tifffile.imwrite(places["STACK"], np.ones((3, 8, 8), np.uint16), photometric="minisblack")
    before = image.read_bytes()
    filled = [
        str(places[first]) + argument[len(first) :]
        if (first := argument.split("/")[0]) in places
        else argument
        for argument in arguments
    ]
    said = run(*filled)
    assert said.code == 2, said.out
    assert sentence in said.error and "\n" not in said.error
    assert said.out == ""
    assert image.read_bytes() == before


def test_a_port_in_use_is_told(home):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        said = run("up", "--port", other.getsockname()[1])
    assert said.code == 2 and "is in use" in said.error


def test_a_port_that_cannot_be_is_told(home):
    said = run("up", "--port", 99999)
    assert said.code == 2 and "65535" in said.err


def test_a_full_disk_is_told(home, image, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for arguments in (
        ("corrupt", image, "contrast", 1, tmp_path / "out.tif"),
        ("measure", "nuclei", image, "--out", tmp_path / "out.csv"),
    ):
        said = run(*arguments)
        assert said.code == 2 and "No space left on device" in said.error
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["stain.tif"]


def test_corrupt_writes_what_the_library_makes(image, tmp_path):
    from cellabel.corruptions import corrupt

    said = run("corrupt", image, "brightness", "-1", tmp_path / "out.tif", "--full-scale", 4095, "--json")
    expected = corrupt(tifffile.imread(image), "brightness", -1, full_scale=4095)
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), expected)
    assert 0 < said.json["clipped_share"] <= 1


def test_a_corrupted_image_may_be_a_png(image, tmp_path):
    assert run("corrupt", image, "contrast", 0, tmp_path / "a.png").code == 0
    assert run("corrupt", tmp_path / "a.png", "contrast", 0, tmp_path / "b.tif").code == 0
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), tifffile.imread(image))


def test_measure_finds_the_disk_and_its_size_in_micrometres(image, tmp_path):
    said = run("measure", "nuclei", image, "--pixel-size-um", 1.0, "--out", tmp_path / "o.csv", "--json")
    assert said.json["field"]["Nuclei_Count"] == 1
    assert said.json["field"]["Nuclei_TotalAreaUm2"] == pytest.approx(np.pi * 8**2, rel=0.15)
    assert not said.json["prepared"]
    assert (tmp_path / "o.csv").read_text().count("\n") == 2
    assert "1 object; 0.65 µm a pixel assumed." in run("measure", "nuclei", image).out


def test_an_image_without_objects_is_valid_json(tmp_path):
    noise = np.random.default_rng(0).normal(200, 5, (64, 64))
    tifffile.imwrite(tmp_path / "empty.tif", noise.astype(np.uint16))
    said = run("measure", "nuclei", tmp_path / "empty.tif", "--json")
    assert said.json["field"]["Nuclei_Count"] == 0 and said.json["field"]["Nuclei_MeanIntensity"] is None


def test_a_dry_run_tells_what_is_missing_and_writes_nothing(workplace, home, tmp_path):
    shutil.copytree(workplace / PLATE, tmp_path / PLATE)
    for well, channel in (("A01", 1), ("A02", 2)):
        (tmp_path / PLATE / f"{PLATE}_{well}_s1_w{channel}.tif").unlink()
    said = run("import", tmp_path / PLATE, "--dry-run", "--json").json
    missing = {well["well"]: well["missing"] for well in said["wells"]}
    assert said["layout"] == "metaxpress" and said["would_be"] == "quarantined"
    assert missing["A01"] == ["site 1: no transmitted-light image"]
    assert missing["A02"] == ["site 1 nuclei: no image"] and missing["B01"] == []
    assert {issue["effect"] for issue in said["issues"]} >= {"field quarantined", "stain missing"}
    people = run("import", tmp_path / PLATE, "--dry-run")
    assert "metaxpress" in people.out and "Nothing was written" in people.out
    assert not home.exists()


def test_a_folder_of_files_that_are_no_images_says_so_first(home, tmp_path):
    for well in ("A01", "A02"):
        path = tmp_path / "F" / f"F_{well}_s1_w1.tif"
        path.parent.mkdir(exist_ok=True)
        path.write_text("no image")
    said = run("import", tmp_path / "F")
    assert said.code == 2 and "none of the 2 files can be read as an image" in said.error


def test_a_plate_without_transmitted_light_is_told_what_to_do(workplace, home, tmp_path):
    shutil.copytree(workplace / PLATE, tmp_path / "S")
    for path in (tmp_path / "S").glob("*_w1.tif"):
        path.unlink()
    said = run("import", tmp_path / "S")
    assert said.code == 2 and "or image it with transmitted light" in said.error


def test_an_import_keeps_the_records_of_the_loop(workplace, home, tmp_path):
    from cellabel.loop import take_in

    assert run("import", workplace / PLATE, "--plate-id", "Q", "--layout", "metaxpress").code == 0
    mine = open_home()
    first_seen = mine.plates.record("Q")["first_seen"]
    tables = [mine.tables.read(name, "Q") for name in ("quality", "acquisition")]
    record = mine.plates.record("Q")
    take_in(mine, "Q")
    assert mine.plates.record("Q") == record and record["first_seen"] == first_seen
    for name, table in zip(("quality", "acquisition"), tables, strict=True):
        assert mine.tables.read(name, "Q").equals(table)


def test_another_folder_does_not_take_a_plates_place_unasked(workplace, tmp_path):
    shutil.copytree(workplace / PLATE, tmp_path / PLATE)
    said = run("import", tmp_path / PLATE)
    assert said.code == 2 and "has been brought by" in said.error


def test_an_unknown_layout_is_told(workplace):
    said = run("import", workplace / PLATE, "--dry-run", "--layout", "vendor-x")
    assert said.code == 2 and "No layout is called 'vendor-x'" in said.error


def test_a_quarantined_plate_is_released_with_its_tables(workplace, home, tmp_path):
    shutil.copytree(workplace / PLATE, tmp_path / "bad")
    for well in ("A01", "A02"):
        (tmp_path / "bad" / f"{PLATE}_{well}_s1_w1.tif").unlink()
    said = run("import", tmp_path / "bad")
    assert said.code == 2 and "is quarantined" in said.error
    assert [plate["status"] for plate in run("plates", "list", "--json").json] == ["quarantined"]
    released = run("plates", "release", PLATE, "--for-training", "--json").json
    assert released["status"] == "accepted" and released["accepted_for_training"] and not released["reason"]
    assert open_home().tables.has("acquisition", PLATE)
    assert run("plates", "retire", PLATE, "--reason", "spilled").code == 0
    shown = run("plates", "show", PLATE, "--json").json
    assert (shown["status"], shown["reason"], shown["accepted_for_training"]) == ("retired", "spilled", False)
    assert run("plates", "list", "--status", "accepted", "--json").json == []
    assert run("plates", "release", PLATE).code == 0


def test_a_plate_without_a_usable_field_is_not_released(home):
    stored_plate(home, status="quarantined", version="abc", n_fields=0, reason="all fields are black")
    said = run("plates", "release", "X")
    assert said.code == 2 and "no usable field" in said.error
    assert open_home().plates.record("X")["status"] == "quarantined"


def test_drift_status_shows_the_stored_verdict_and_changes_nothing(home):
    stored_plate(home)
    stream = {
        "status": "drift", "reason": "", "provisional": True, "statistic": 0.5, "threshold": 0.25,
        "n_alarms": 3, "n_wells": 12, "change_id": "X/A05", "harm": {"verdict": "harmful"},
    }  # fmt: skip
    silent = {
        **stream,
        "status": "not_calibrated",
        "reason": "too few wells",
        "statistic": None,
        "harm": None,
    }
    verdict = {"drift": True, "streams": {"nuclei": stream, "er": silent}}
    write_json(open_home().detectors / "verdicts" / "X.json", verdict)
    before = sorted(home.rglob("*"))
    said = run("drift", "status", "X", "--json").json
    assert said[0]["drift"] == "yes" and said[0]["verdict"]["streams"]["nuclei"]["n_alarms"] == 3
    people = run("drift", "status").out
    for word in ("0.5", "0.25", "3 of 12 wells", "X/A05", "harmful", "too few wells"):
        assert word in people
    assert sorted(home.rglob("*")) == before


def test_an_incident_and_its_alerts_are_acknowledged(home):
    incident = opened_incident()
    ledger = AlertLedger(str(open_home().alerts))
    for name, data in (("one", {"incident": incident.id}), ("two", {})):
        ledger.write(Alert(id=name, kind="drift", title=f"Alert [{name}]", data=data))
    said = run(
        "drift", "ack", incident.id, "--by", "Ada", "--note", "cover was wet", "--true-alarm", "--json"
    )
    assert said.json["alerts"] == ["one"]
    assert ledger.acknowledgement("one").note == "cover was wet" and ledger.precision() == (1, 1)
    assert [alert["id"] for alert in run("alerts", "list", "--json").json] == ["two"]
    assert "Alert [two]" in run("alerts", "list").out
    assert run("alerts", "ack", "two", "--by", "Bo").code == 0
    everything = run("alerts", "list", "--all", "--json").json
    assert {alert["id"]: alert["acknowledged_by"] for alert in everything} == {"one": "Ada", "two": "Bo"}


def test_a_person_closes_an_incident_once(home):
    incident = opened_incident(status="person_needed")
    assert [one["id"] for one in run("drift", "incidents", "--open", "--json").json] == [incident.id]
    assert run("drift", "close", incident.id, "--by", "Ada", "--reason", "lamp replaced").code == 0
    closed = read_incident(open_home(), incident.id)
    assert (closed.status, closed.closed_by, closed.closing_reason) == ("closed", "Ada", "lamp replaced")
    assert run("drift", "incidents", "--open", "--json").json == []
    again = run("drift", "close", incident.id, "--by", "Bo", "--reason", "too")
    assert again.code == 2 and "was closed by Ada" in again.error


def test_an_incident_is_not_closed_while_it_retrains(home):
    incident = opened_incident(status="retraining")
    said = run("drift", "close", incident.id, "--by", "Ada", "--reason", "enough")
    assert said.code == 2 and "under way" in said.error


def test_a_version_goes_from_the_gate_to_predictions_and_back(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = run("models", "list", "nuclei", "--json").json
    assert [version["aliases"] for version in listed] == [["challenger"]]

    rehearsed = run("models", "promote", "nuclei", "--dry-run", "--json")
    assert rehearsed.json["dry_run"] and rehearsed.code == (0 if rehearsed.json["promoted"] else 1)
    assert run("models", "list", "nuclei", "--json").json == listed
    assert run("alerts", "list", "--json").json == []

    judged = run("models", "promote", "nuclei", "--json")
    assert judged.json["promoted"] == rehearsed.json["promoted"] and judged.code == rehearsed.code
    assert judged.json["reason"] == rehearsed.json["reason"]
    assert run("models", "promote", "nuclei").code == 2
    assert len(run("alerts", "list", "--kind", "promotion", "--json").json) == 1

    chosen = run("models", "promote", "nuclei", "--version", 1, "--reason", "a person's choice", "--json")
    assert chosen.json["promoted"] and chosen.code == 0
    followed = json.loads((workplace / "home" / "detectors" / "followed" / "nuclei.json").read_text())
    assert followed["version"] == 1

    evaluated = run("evaluate", "nuclei", "--json").json
    assert evaluated["version"] == 1
    card = run("models", "card", "nuclei").out
    assert "## On held-out wells" in card and "| brightness -5 |" in card and "a person's choice" in card
    package = run("models", "export", "nuclei", tmp_path / "nuclei.zip", "--author", "Ada", "--json").json
    assert package["version"] == 1 and (tmp_path / "nuclei.zip").exists()
    assert evaluated["robustness"][0]["condition"] == "clean" and len(evaluated["robustness"]) > 2

    image = workplace / PLATE / f"{PLATE}_A01_s1_w1.tif"
    predicted = run("predict", "nuclei", image, "--json").json
    written = tifffile.imread(tmp_path / predicted["path"])
    assert written.dtype == np.float32 and list(written.shape) == predicted["shape"] == [96, 96]
    assert predicted["units"] == "stain"
    with tifffile.TiffFile(tmp_path / predicted["path"]) as file:
        assert json.loads(file.pages[0].description)["pixel_size_um"] == predicted["pixel_size_um"]
    assert "µm a pixel assumed" in run("predict", "nuclei", image).out
    assert "0.5 µm a pixel." in run("predict", "nuclei", image, "--pixel-size-um", 0.5).out
    refused = run("predict", "nuclei", PLATE, "--out", tmp_path / "wells.xls")
    assert refused.code == 2 and "cannot hold a table" in refused.error
    assert PLATE not in open_home().tables.names("wells", "nuclei")

    plate = run("predict", "nuclei", PLATE, "--out", tmp_path / "wells.csv", "--json").json
    assert len(plate["wells"]) == 3 and (tmp_path / "wells.csv").exists()
    assert run("plates", "show", PLATE, "--json").json["predicted"] == {"nuclei": 1}


def test_every_table_is_described_with_its_columns(workplace):
    import pandas as pd

    text = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
    tables = workplace / "home" / "tables"
    assert [folder.name for folder in tables.iterdir() if f"`{folder.name}/" not in text] == []
    ours = [name for name in pd.read_parquet(tables / "quality" / f"{PLATE}.parquet") if "_" in name]
    ours += [*pd.read_parquet(tables / "agreement" / "nuclei" / f"{PLATE}.parquet")]
    ours = [name for name in ours if not name.startswith("Metadata_") and not name.endswith("_upper")]
    assert [name for name in ours if name not in text] == []


def test_a_newer_version_is_promoted_and_rolled_back(workplace):
    assert run("models", "promote", "nuclei", "--version", 1, "--reason", "the first").code == 0
    assert run("train", "nuclei", "--max-steps", 3, "--json").json["version"] == 2
    metrics = run("models", "compare", "nuclei", "1", "2", "--json").json["metrics"]
    assert set(metrics) == {"1", "2"} and "pixel_pearson" in metrics["1"]
    assert run("models", "promote", "nuclei", "--version", 2, "--reason", "newer").code == 0
    assert run("models", "rollback", "nuclei", "--dry-run", "--json").json["version"] == 1
    assert run("models", "rollback", "nuclei", "--reason", "worse", "--json").json["version"] == 1
    assert run("evaluate", "nuclei", "--json").json["version"] == 1
    followed = json.loads((workplace / "home" / "detectors" / "followed" / "nuclei.json").read_text())
    assert followed["version"] == 1

    unknown = run("evaluate", "nuclei", "--version", 9)
    assert unknown.code == 2 and "no version 9" in unknown.error


def test_an_unknown_model_is_told(workplace, image):
    for arguments in (
        ["predict", "er", image],
        ["evaluate", "er"],
        ["models", "promote", "er"],
        ["models", "promote", "er", "--version", 3, "--reason", "r"],
        ["models", "rollback", "er"],
        ["models", "compare", "er"],
        ["models", "card", "er"],
        ["models", "export", "er", "er.zip"],
    ):
        said = run(*arguments)
        assert said.code == 2 and "er" in said.error and "\n" not in said.error
        if arguments[0] in ("predict", "evaluate") or "rollback" in arguments:
            assert "train one by cellabel train er" in said.error
