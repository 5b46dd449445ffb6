"""What the graph is made of, and what it costs to load it."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import dagster as dg
import pytest

from orchestration.definitions import defs

ROOT = Path(__file__).parents[2]
ORGANELLES = ("nuclei", "er", "golgi", "gfp")
BY_ORGANELLE = (
    "champion",
    "drift",
    "organelle_model",
    "predicted_plate",
    "prediction_report",
    "prediction_table",
    "preprocessed_dataset",
)
CHECKS_BY_ORGANELLE = (
    "drift:drift",
    "organelle_model:downstream_metrics",
    "organelle_model:robustness",
    "prediction_table:control_wells",
    "prediction_table:downstream_metrics",
    "prediction_table:plausible_ranges",
    "preprocessed_dataset:no_leakage",
)
ENCODER = ("encoder/drift", "encoder/embedded_plate", "encoder/frozen_encoder")
UNPARTITIONED = ("champion", "organelle_model", "preprocessed_dataset", "frozen_encoder")
PLATE_CHECKS = (
    "complete",
    "quality",
    "focus",
    "saturation",
    "illumination",
    "empty_fields",
    "debris",
    "duplicates",
)
HEAVY = ("torch", "mlflow", "skimage", "evidently", "sklearn", "matplotlib", "lightning", "cv2")


@pytest.fixture(scope="module")
def repository():
    return defs.get_repository_def()


@pytest.fixture(scope="module")
def nodes(repository):
    return {node.key.to_user_string(): node for node in repository.asset_graph.asset_nodes}


def test_the_assets_are_these(nodes):
    expected = {"raw_plate", "cell_table", "clone_ranking", "acquisition/drift", *ENCODER}
    expected |= {f"{organelle}/{name}" for organelle in ORGANELLES for name in BY_ORGANELLE}
    assert set(nodes) == expected


def test_the_checks_are_these(repository):
    found = {
        f"{key.asset_key.to_user_string()}:{key.name}" for key in repository.asset_graph.asset_check_keys
    }
    expected = {f"raw_plate:{name}" for name in (*PLATE_CHECKS, "registration")}
    expected |= {"encoder/frozen_encoder:sees_defocus", "encoder/drift:drift", "acquisition/drift:drift"}
    expected |= {f"{organelle}/{name}" for organelle in ORGANELLES for name in CHECKS_BY_ORGANELLE}
    assert found == expected


def test_the_checks_that_stop_a_run_are_these(repository):
    graph = repository.asset_graph
    blocking = {key.to_user_string() for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}
    assert blocking == {f"raw_plate:{name}" for name in PLATE_CHECKS} | {
        f"{organelle}/preprocessed_dataset:no_leakage" for organelle in ORGANELLES
    }


def test_the_sensors_are_these_and_run_by_themselves(repository):
    assert sorted(sensor.name for sensor in repository.sensor_defs) == [
        "champion_changed",
        "drift",
        "failures",
        "first_models",
        "new_plates",
        "outbox",
    ]
    assert {sensor.default_status for sensor in repository.sensor_defs} == {dg.DefaultSensorStatus.RUNNING}
    assert all(sensor.description for sensor in repository.sensor_defs)


def test_the_jobs_are_these_and_each_says_what_it_does(repository):
    jobs = {job.name: job for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert sorted(jobs) == ["diagnose_drift", "ingest", "predict", "report", "train"]
    assert all(job.description for job in jobs.values())


def test_a_plate_goes_through_all_organelles_in_one_run(repository):
    steps = {key.to_user_string() for key in repository.get_job("ingest").asset_layer.selected_asset_keys}
    made = ("predicted_plate", "prediction_table", "prediction_report")
    assert steps == {"raw_plate", "cell_table", "clone_ranking", "encoder/embedded_plate"} | {
        f"{organelle}/{name}" for organelle in ORGANELLES for name in made
    }


def test_every_asset_has_a_description_an_owner_and_a_group(nodes):
    bare = [
        name
        for name, node in nodes.items()
        if not (node.description and node.owners and node.group_name not in ("", "default"))
    ]
    assert bare == []


def test_the_plate_is_the_only_partition(nodes):
    for name, node in nodes.items():
        if name.endswith(UNPARTITIONED):
            assert node.partitions_def is None, name
        else:
            assert node.partitions_def == dg.DynamicPartitionsDefinition(name="plates"), name


def test_drift_is_reported_and_not_computed(nodes):
    drift = {name: node for name, node in nodes.items() if name.endswith("/drift")}
    assert len(drift) == len(ORGANELLES) + 2
    assert all(not node.is_materializable for node in drift.values())


def test_loading_the_definitions_imports_nothing_heavy(tmp_path):
    code = (
        "import sys, warnings\n"
        "warnings.simplefilter('always')\n"
        "import orchestration.definitions\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "CELLABEL_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    assert done.stdout.strip() == "[]"
    noise = [line for line in done.stderr.splitlines() if "Preview" in line or "Beta" in line]
    assert noise == [], done.stderr


def test_looking_at_the_drift_streams_imports_nothing_heavy(tmp_path):
    code = (
        "import sys\n"
        "from cellabel.alerts import AlertLedger\n"
        "from cellabel.loop import advance_incidents, pending_verdicts, tick_drift\n"
        "from cellabel.stores import open_home\n"
        "home = open_home()\n"
        "tick_drift(home, AlertLedger(home.alerts)), advance_incidents(home, AlertLedger(home.alerts))\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "CELLABEL_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    assert done.stdout.strip() == "[]"


def test_the_definitions_are_consistent():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dg.Definitions.validate_loadable(defs)
