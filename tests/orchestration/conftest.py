"""An installation in a folder, an instance in memory, and sensors that are looked at as the daemon would."""

from __future__ import annotations

import dagster as dg
import pytest
import yaml

from cellabel.alerts import AlertLedger
from cellabel.stores import open_home
from orchestration.definitions import defs
from orchestration.resources import Alerts, Models, Stores

SETTINGS = {
    "organelles": ["nuclei", "er"],
    "inbox": {"settle_seconds": 0},
    "models": {"min_labelled_plates": 2},
    "drift": {"window": 4},
}


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Write the settings of this installation."""

    def write(**changes):
        (tmp_path / "home").mkdir(exist_ok=True)
        (tmp_path / "home" / "settings.yaml").write_text(yaml.safe_dump({**SETTINGS, **changes}))
        return open_home()

    monkeypatch.setenv("CELLABEL_HOME", str(tmp_path / "home"))
    return write


@pytest.fixture
def home(configure):
    return configure()


@pytest.fixture
def ledger(home):
    return AlertLedger(home.alerts)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def look(home, instance, monkeypatch):
    """Evaluate a sensor and do with its answer what the daemon does: runs are started, events are kept."""
    monkeypatch.setattr(  # an instance in memory has no reference, by which the daemon finds the partitions
        dg.SensorEvaluationContext, "caching_dynamic_partitions_loader", property(lambda context: instance)
    )
    cursors: dict[str, str | None] = {}
    repository = defs.get_repository_def()

    def evaluate(name, *, start=True):
        context = dg.build_sensor_context(
            instance=instance,
            repository_def=repository,
            cursor=cursors.get(name),
            sensor_name=name,
            resources={"stores": Stores(), "models": Models(), "alerts": Alerts()},
        )
        found = repository.get_sensor_def(name).evaluate_tick(context)
        cursors[name] = found.cursor
        for request in found.dynamic_partitions_requests or ():
            instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        for event in found.asset_events:
            instance.report_runless_asset_event(event)
        known = {run.tags.get("dagster/run_key") for run in instance.get_runs()}
        new = [one for one in found.run_requests or () if one.run_key not in known]
        for request in new if start else ():
            start_run(request)
        return found, new

    def start_run(request):
        tags = {**request.tags, "dagster/run_key": request.run_key}
        if request.partition_key:
            tags["dagster/partition"] = request.partition_key
        instance.add_run(
            dg.DagsterRun(
                job_name=request.job_name or "ingest", tags=tags, status=dg.DagsterRunStatus.STARTED
            )
        )

    return evaluate


@pytest.fixture
def end(instance):
    """End the run of a key."""

    def set_status(key, status):
        (run,) = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": key}))
        instance.delete_run(run.run_id)
        instance.add_run(run.with_status(status))

    return set_status
