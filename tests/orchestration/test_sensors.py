"""What each sensor asks for, reports and tells, and that it does so once."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

from cellabel.alerts import Alert
from cellabel.drift import Diagnosis, OnlineMMD
from cellabel.drift.harm import HarmModel
from cellabel.errors import InputError
from cellabel.loop import incidents, plate_status, record_diagnosis, record_outcome
from cellabel.loop.predictions import prediction_version
from cellabel.loop.streams import (
    ENCODER,
    Epoch,
    encoder_store,
    encoder_table,
    followed_champion,
    save_epoch,
)
from cellabel.organelles import organelle
from cellabel.stores import write_json
from orchestration.assets import monitoring
from orchestration.checks import monitoring as monitoring_checks
from orchestration.definitions import defs
from orchestration.jobs import QUEUE
from orchestration.metadata import told
from orchestration.resources import Alerts, Stores
from orchestration.sensors import champions as champion_sensor

PROJECT = Path(__file__).parents[2]

WIDTH = 4
WELLS = [f"A{column:02d}" for column in range(1, 9)]
START = datetime(2025, 3, 3, 8, tzinfo=UTC)
REFERENCE = np.random.default_rng(0).normal(size=(24, WIDTH))
AT_ONCE = {"at_once": True, "on_provisional": True}


def export(folder, plate="P1", seed=0):
    """The smallest acquisition folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for well in ("A01", "A02"):
        pixels = np.random.default_rng(seed).poisson(400, (32, 32)).astype(np.uint16)
        tifffile.imwrite(folder / f"{plate}_{well}_s1_w1.tif", pixels)
    record = {
        "plate_id": plate,
        "acquired_at": START.isoformat(),
        "pixel_size_um": 0.65,
        "channels": {"1": "transmitted"},
    }
    (folder / "acquisition.json").write_text(json.dumps(record))
    return folder


def freeze(home):
    """As if the frozen encoder had been trained."""
    encoder_store(home).update_record(ENCODER, version="v1-e", plates=[])


def keys(requests):
    return [request.run_key for request in requests]


def test_a_new_plate_becomes_a_partition_and_one_run(home, look, instance):
    folder = export(home.settings.inbox_folder / "export", "P1")
    _, (request,) = look("new_plates")
    assert instance.get_dynamic_partitions("plates") == ["P1"]
    assert request.partition_key == "P1" and request.tags["cellabel/plate"] == "P1"
    assert request.run_config == {"ops": {"raw_plate": {"config": {"folder": str(folder.resolve())}}}}
    assert plate_status(home, "P1").status == "arriving"
    for _ in range(2):
        found, new = look("new_plates")
        assert not new and not found.dynamic_partitions_requests


def test_a_new_plate_is_joined_and_ranked_by_the_organelles_that_have_a_champion(home, look):
    export(home.settings.inbox_folder / "first", "P1")
    _, (before,) = look("new_plates")
    assert {key.to_user_string() for key in before.asset_selection} == {"raw_plate", "encoder/embedded_plate"}
    follow(home, "nuclei", 1)
    export(home.settings.inbox_folder / "second", "P2")
    _, (after,) = look("new_plates")
    assert {key.to_user_string() for key in after.asset_selection} == {
        "raw_plate",
        "encoder/embedded_plate",
        "nuclei/predicted_plate",
        "nuclei/prediction_table",
        "nuclei/prediction_report",
        "cell_table",
        "clone_ranking",
    }


def test_a_plate_whose_request_was_lost_is_asked_for_again_under_the_same_key(home, look):
    export(home.settings.inbox_folder / "export", "P1")
    _, first = look("new_plates", start=False)
    _, second = look("new_plates", start=False)
    assert keys(first) == keys(second) and len(first) == 1


def test_a_new_export_of_a_plate_is_another_run_of_the_same_partition(home, look, instance):
    folder = export(home.settings.inbox_folder / "export", "P1")
    _, (first,) = look("new_plates")
    look("new_plates")
    export(folder, "P1", seed=1)
    os.utime(folder / "P1_A01_s1_w1.tif", (1, 1))
    _, (second,) = look("new_plates")
    assert second.partition_key == "P1" and second.run_key != first.run_key
    assert instance.get_dynamic_partitions("plates") == ["P1"]


def test_a_plate_id_from_another_folder_is_refused_with_both_names(home, look, ledger):
    export(home.settings.inbox_folder / "first", "P1")
    export(home.settings.inbox_folder / "second", "P1")
    _, requests = look("new_plates")
    assert [one.run_config["ops"]["raw_plate"]["config"]["folder"][-5:] for one in requests] == ["first"]
    (alert,) = ledger.alerts("failure")
    assert alert.title == "second is not taken in" and "first has brought already" in alert.body
    look("new_plates")
    assert len(ledger.alerts()) == 1


def test_a_folder_that_is_no_acquisition_becomes_one_alert_and_the_others_go_on(home, look, ledger):
    folder = home.settings.inbox_folder / "holiday"
    folder.mkdir(parents=True)
    (folder / "beach.txt").write_text("no image")
    export(home.settings.inbox_folder / "export", "P1")
    for _ in range(3):
        look("new_plates")
    (alert,) = ledger.alerts()
    assert (alert.kind, alert.severity, alert.title) == ("failure", "error", "holiday is not taken in")
    assert "holiday" in alert.body
    assert plate_status(home, "P1").status == "arriving"


def test_a_hundred_plates_at_once_drain_in_order_each_once(home, look):
    folders = [home.settings.inbox_folder / f"plate-{k:03d}" for k in range(100)]
    source = export(home.settings.home / "source", "P")
    for k, folder in enumerate(folders):
        shutil.copytree(source, folder)
        record = json.loads((folder / "acquisition.json").read_text())
        (folder / "acquisition.json").write_text(json.dumps({**record, "plate_id": f"P{k:03d}"}))
    drained = []
    for _ in range(6):
        _, requests = look("new_plates")
        assert len(requests) <= 20
        drained += [request.partition_key for request in requests]
    assert drained == [f"P{k:03d}" for k in range(100)]


def test_an_empty_inbox_is_no_trouble(look):
    found, requests = look("new_plates")
    assert requests == [] and found.skip_message == "no new plate is complete"


def test_the_first_model_is_trained_once_there_are_enough_stained_plates(home, look):
    stained = {"status": "accepted", "channels": ["transmitted", "nuclei"]}
    home.plates.update_record("P1", **stained)
    home.plates.update_record("P2", status="accepted", channels=["transmitted"])
    home.plates.update_record("P3", **stained | {"status": "quarantined"})
    assert look("first_models")[1] == []
    home.plates.update_record("P4", **stained)
    _, (encoder, request) = look("first_models")
    assert encoder.run_key == "first:encoder" and encoder.job_name == request.job_name
    assert [key.to_user_string() for key in encoder.asset_selection] == ["encoder/frozen_encoder"]
    assert request.run_key == "first:nuclei"
    assert [key.to_user_string() for key in request.asset_selection] == [
        "nuclei/preprocessed_dataset",
        "nuclei/organelle_model",
        "nuclei/champion",
    ]
    assert look("first_models", start=False)[1] == []
    home.plates.update_record("P1", channels=["transmitted", "nuclei", "er"])
    home.plates.update_record("P4", channels=["transmitted", "nuclei", "er"])
    assert keys(look("first_models")[1]) == ["first:er"]


def test_an_organelle_with_a_dataset_has_been_trained(home, look):
    write_json(home.datasets.root / "nuclei" / "record.json", {"version": "d", "plates": []})
    for plate in ("P1", "P2"):
        home.plates.update_record(plate, status="accepted", channels=["transmitted", "nuclei"])
    assert keys(look("first_models")[1]) == ["first:encoder"], "it came without a frozen encoder"
    assert look("first_models", start=False)[1] == []


def test_an_encoder_that_is_frozen_is_never_asked_for_again(home, look):
    freeze(home)
    write_json(home.datasets.root / "nuclei" / "record.json", {"version": "d", "plates": []})
    for plate in ("P1", "P2"):
        home.plates.update_record(plate, status="accepted", channels=["transmitted", "nuclei"])
    assert look("first_models")[1] == []


def limits_of_the_queue():
    """(tag, value) → how many of the runs that carry it the shipped instance lets run at once."""
    instance = yaml.safe_load((PROJECT / "deployment" / "dagster.yaml").read_text())
    runs = instance["concurrency"]["runs"]
    limits = {(one["key"], one["value"]): one["limit"] for one in runs["tag_concurrency_limits"]}
    assert all(limit < runs["max_concurrent_runs"] for limit in limits.values())
    return limits


@pytest.fixture(scope="module")
def calibrated():
    detector = OnlineMMD(20, window_size=WIDTH, seed=0)
    detector.fit(REFERENCE)
    losses = np.full(24, 0.5)
    return detector, HarmModel.fit(REFERENCE, REFERENCE + 6, losses)


@pytest.fixture
def place(home, calibrated):
    """Two streams on one instrument, and plates for them."""
    detector, harm = calibrated
    for stream in ("nuclei", "acquisition"):
        save_epoch(
            home,
            "scope",
            Epoch(
                stream=stream,
                epoch=f"{stream}-1",
                detector=detector,
                reason="",
                provisional=True,
                model_version=int(stream == "nuclei"),
                plates=("R1",),
                centre=np.zeros(WIDTH),
                spread=np.ones(WIDTH),
                harm=harm if stream == "nuclei" else None,
                margin=4.0,
            ),
        )

    def put(plate, hour, drift=0.0, width=WIDTH):
        moment = (START + timedelta(hours=hour)).isoformat()
        home.plates.update_record(
            plate, status="accepted", acquired_at=moment, first_seen=moment, instrument="scope"
        )
        for where, columns in ((("acquisition",), WIDTH), (("embeddings", "nuclei", "v1"), width)):
            values = np.resize(REFERENCE[:8], (8, columns)) + drift
            table = pd.DataFrame(values, columns=[f"e{k:03d}" for k in range(columns)])
            table.insert(0, "Metadata_Well", WELLS)
            home.tables.write(table, *where, plate)

    return put


def reported(instance, stream, plate):
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey([stream, "drift"]), asset_partitions=[plate]), limit=20
    ).records
    return [record.asset_materialization for record in records]


def test_a_verdict_is_reported_once_a_stream(place, look, instance):
    place("P1", 0)
    found, requests = look("drift")
    checks = [event for event in found.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    assert {check.asset_key.to_user_string() for check in checks} == {"nuclei/drift", "acquisition/drift"}
    assert all(check.passed and check.check_name == "drift" and check.partition == "P1" for check in checks)
    assert len(found.asset_events) == 4 and requests == []
    for _ in range(2):
        again, _ = look("drift")
        assert not again.asset_events and again.skip_message == "no new verdict"
    for stream in ("nuclei", "acquisition"):
        (event,) = reported(instance, stream, "P1")
        assert event.metadata["verdict"].value == "no" and event.metadata["epoch"].value == f"{stream}-1"
        assert event.description == "no drift in 8 wells (provisional: too few reference plates)"


def test_the_check_on_drift_shows_what_the_sensor_reports_and_tells_it_again(place, look, instance):
    place("P1", 0)
    look("drift")
    check = monitoring_checks.drift("nuclei")
    (spec,) = check.check_specs
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key([spec.key])
    assert latest[spec.key].status.value == "SUCCEEDED"
    lone = dg.Definitions(
        [monitoring.drift(organelle("nuclei"))], asset_checks=[check], resources={"stores": Stores()}
    )
    job = lone.resolve_implicit_global_asset_job_def()
    (again,) = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert again.passed and again.description.startswith("P1: no drift in 8 wells")


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("no", "no drift in 12 wells (provisional: too few reference plates)"),
        ("drift", "drift from well B01 on, 8 of 12 wells (provisional: too few reference plates)"),
        ("not_calibrated", "not calibrated: too few wells"),
    ],
)
def test_a_verdict_is_told_in_a_whole_sentence(status, sentence):
    found = {
        "status": status,
        "harm": None,
        "provisional": True,
        "reason": "too few wells",
        "change_id": None,
    }
    found |= {"statistic": 0.4, "threshold": 0.3, "n_alarms": 8, "n_wells": 12, "first_well": "B01"}
    verdict = {"streams": {"er": found}, "event_id": "e", "epochs": {}, "instrument": "i", "persists": False}
    said = told(verdict, "er")
    assert said.sentence == sentence and said.passed == (status != "drift")
    assert said.severity is dg.AssetCheckSeverity.WARN


def test_the_check_of_a_stream_without_a_verdict_says_so(home, instance):
    lone = dg.Definitions(
        [monitoring.drift(organelle("er"))],
        asset_checks=[monitoring_checks.drift("er")],
        resources={"stores": Stores()},
    )
    job = lone.resolve_implicit_global_asset_job_def()
    with pytest.raises(InputError, match="The stream er has judged no plate yet"):
        job.execute_in_process(instance=instance)


def test_a_verdict_whose_report_was_lost_is_reported_again(place, look, instance, monkeypatch):
    place("P1", 0)
    with monkeypatch.context() as patch:
        patch.setattr(instance, "report_runless_asset_event", lambda event: None)
        look("drift")
    found, _ = look("drift")
    assert len(found.asset_events) == 4 and len(reported(instance, "nuclei", "P1")) == 1


def test_a_materialisation_reported_by_hand_confuses_nobody(place, look, instance):
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key=["nuclei", "drift"], partition="P1")
    )
    place("P1", 0)
    assert len(look("drift")[0].asset_events) == 4
    assert not look("drift")[0].asset_events


def test_embeddings_of_another_length_are_reported_as_not_calibrated(place, look, instance):
    place("P1", 0, width=6)
    look("drift")
    (event,) = reported(instance, "nuclei", "P1")
    assert event.metadata["verdict"].value == "not_calibrated" and "6 columns" in event.description


def test_a_drift_asks_for_its_diagnosis_and_then_for_a_retraining(
    configure, place, look, instance, ledger, end
):
    home = configure(retraining=AT_ONCE)
    place("P1", 0, drift=6.0)
    found, (diagnosis,) = look("drift")
    check = next(one for one in found.asset_events if isinstance(one, dg.AssetCheckEvaluation))
    assert not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    (incident,) = incidents(home)
    assert [alert.data["incident"] for alert in ledger.alerts("drift")] == [incident.id]
    assert diagnosis.job_name == "diagnose_drift" and diagnosis.run_key == f"diagnose:{incident.id}:1"
    assert diagnosis.run_config == {"ops": {"diagnosis": {"config": {"incident": incident.id}}}}
    assert diagnosis.tags["trigger"] == "drift"
    assert look("drift")[1] == [], "it is under way"
    record_diagnosis(home, incidents(home)[0], Diagnosis("defocus", 2.0, 0.95, "looks like defocus"))
    _, (retraining,) = look("drift")
    assert retraining.job_name == "train" and retraining.run_key == f"retrain:{incident.id}:1"
    config = retraining.run_config["ops"]["nuclei__organelle_model"]["config"]
    assert (config["incident"], config["corruption_kind"]) == (incident.id, "defocus")
    assert config["corruption_severities"] == [1, 2, 3]
    assert [key.to_user_string() for key in retraining.asset_selection] == [
        "nuclei/preprocessed_dataset",
        "nuclei/organelle_model",
        "nuclei/champion",
    ]
    assert dg.validate_run_config(
        defs.get_repository_def()
        .get_job("train")
        .get_subset(asset_selection=set(retraining.asset_selection)),
        retraining.run_config,
    )
    assert look("drift")[1] == []
    record_outcome(home, incident.id, "promoted", 2)
    end(retraining.run_key, dg.DagsterRunStatus.SUCCESS)
    assert look("drift")[1] == [] and incidents(home)[0].retrainings[0].outcome == "promoted"


def test_the_configuration_of_a_diagnosis_is_valid(place, look):
    place("P1", 0, drift=6.0)
    _, (request,) = look("drift")
    assert dg.validate_run_config(defs.get_repository_def().get_job("diagnose_drift"), request.run_config)


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_a_diagnosis_run_that_fails_leaves_it_to_a_person(configure, place, look, end, ledger, status):
    home = configure(retraining=AT_ONCE)
    place("P1", 0, drift=6.0)
    _, (request,) = look("drift")
    end(request.run_key, status)
    look("drift")
    assert look("drift")[1] == [] and len(ledger.alerts("labels_needed")) == 1
    assert incidents(home)[0].status == "person_needed"


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS])
def test_a_retraining_that_ends_without_an_outcome_has_failed(configure, place, look, end, status):
    home = configure(retraining=AT_ONCE)
    place("P1", 0, drift=6.0)
    look("drift")
    record_diagnosis(home, incidents(home)[0], Diagnosis("defocus", 2.0, 0.95, "looks like defocus"))
    _, (request,) = look("drift")
    end(request.run_key, status)
    look("drift")
    look("drift")
    (incident,) = incidents(home)
    assert [one.outcome for one in incident.retrainings] == ["failed"] and incident.status == "told"


class Version:
    def __init__(self, version):
        self.version = version


@pytest.fixture
def champions(monkeypatch):
    """The registry's champions: organelle → version."""
    now: dict[str, int] = {}

    class Registry:
        def champion(self, organelle):
            return Version(now[organelle]) if organelle in now else None

        def missing_champion(self, organelle):
            return f"Version 2 of cellabel-{organelle}, the champion, was deleted in MLflow."

    monkeypatch.setattr("orchestration.resources.Models.open", lambda self: Registry())
    return now


def follow(home, organelle, version, turn=1):
    write_json(home.detectors / "followed" / f"{organelle}.json", {"version": version, "turn": turn})


def predicted(home, plate, organelle, version, content="c" * 20):
    record = {"version": prediction_version(version, content), "model_version": version}
    home.predictions.update_record(f"{plate}/{organelle}", **record)


@pytest.fixture
def accepted(home, instance):
    for plate in ("P1", "P2"):
        home.plates.update_record(plate, status="accepted", content_hash="c" * 20)
    home.plates.update_record("P3", status="quarantined", content_hash="c" * 20)
    instance.add_dynamic_partitions("plates", ["P1", "P2", "P3"])


def test_a_moved_alias_is_followed_once(home, look, champions, end):
    assert look("champion_changed")[1] == []
    champions["nuclei"] = 2
    _, (request,) = look("champion_changed")
    assert request.job_name == "train" and request.run_key == "follow:nuclei:2:0"
    assert [key.to_user_string() for key in request.asset_selection] == ["nuclei/champion"]
    found, new = look("champion_changed")
    assert new == [] and found.skip_message == "a training run is under way"
    follow(home, "nuclei", 2)
    end(request.run_key, dg.DagsterRunStatus.SUCCESS)
    assert look("champion_changed")[1] == []


def test_going_back_to_an_old_champion_is_followed_too(home, look, champions):
    follow(home, "nuclei", 3, turn=2)
    champions["nuclei"] = 2
    assert keys(look("champion_changed")[1]) == ["follow:nuclei:2:2"]
    assert followed_champion(home, "nuclei").turn == 2


def test_a_champion_that_a_person_deleted_is_told_once_and_stops_nothing(home, look, champions, ledger):
    champions["er"] = 1
    follow(home, "nuclei", 2)
    follow(home, "er", 1)
    look("champion_changed")
    for _ in range(2):
        assert look("champion_changed")[0].skip_message.startswith("Version 2 of cellabel-nuclei")
    (asked,) = ledger.alerts("person_needed")
    assert asked.organelle == "nuclei" and "deleted in MLflow" in asked.body


def test_only_stale_plates_are_predicted_again(home, look, champions, accepted, end):
    champions.update(nuclei=2, er=1)
    follow(home, "nuclei", 2)
    follow(home, "er", 1)
    for plate, nuclei in (("P1", 1), ("P2", 2)):
        predicted(home, plate, "nuclei", nuclei)
        predicted(home, plate, "er", 1)
    _, (request,) = look("champion_changed")
    assert request.partition_key == "P1" and request.job_name == "predict"
    assert limits_of_the_queue()[QUEUE, request.tags[QUEUE]] == 1
    assert request.run_key == "predict:P1:cccccccccccc:nuclei=2/1"
    assert {key.to_user_string() for key in request.asset_selection} == {
        "nuclei/predicted_plate",
        "nuclei/prediction_table",
        "nuclei/prediction_report",
        "encoder/embedded_plate",
        "cell_table",
        "clone_ranking",
    }
    assert look("champion_changed")[1] == []
    predicted(home, "P1", "nuclei", 2)
    end(request.run_key, dg.DagsterRunStatus.SUCCESS)
    look("champion_changed")
    assert look("champion_changed")[0].skip_message == "no champion has changed"


def test_a_drifted_plate_does_not_stand_in_line_behind_all_others(home, look, champions, accepted):
    champions.update(nuclei=2)
    follow(home, "nuclei", 2)
    for plate in ("P1", "P2"):
        predicted(home, plate, "nuclei", 1)
    write_json(home.detectors / "incidents" / "P2-1.json", {"plates": ["P2"]})
    requests = {one.partition_key: one for one in look("champion_changed")[1]}
    assert requests["P1"].tags[QUEUE] != requests["P2"].tags[QUEUE]
    assert set(limits_of_the_queue()) == {(QUEUE, one.tags[QUEUE]) for one in requests.values()}


def test_a_plate_that_waits_for_two_organelles_is_predicted_in_one_run(
    home, monkeypatch, look, champions, accepted
):
    monkeypatch.setenv("CELLABEL_DRIFT__EVIDENTLY", "false")
    champions.update(nuclei=2, er=1)
    follow(home, "nuclei", 2)
    follow(home, "er", 1)
    _, requests = look("champion_changed")
    assert [one.partition_key for one in requests] == ["P1", "P2"]
    assert {key.to_user_string() for key in requests[0].asset_selection} == {
        "nuclei/predicted_plate",
        "nuclei/prediction_table",
        "er/predicted_plate",
        "er/prediction_table",
        "encoder/embedded_plate",
        "cell_table",
        "clone_ranking",
    }


def test_a_plate_that_the_frozen_encoder_has_missed_is_shown_to_it(home, look, champions, accepted, end):
    champions["nuclei"] = 2
    follow(home, "nuclei", 2)
    for plate in ("P1", "P2"):
        predicted(home, plate, "nuclei", 2)
    look("champion_changed")
    assert look("champion_changed")[0].skip_message == "no champion has changed"
    freeze(home)
    home.tables.write(pd.DataFrame({"e000": [1.0]}), *encoder_table("P1"))
    _, (request,) = look("champion_changed")
    assert request.partition_key == "P2" and request.run_key == "predict:P2:cccccccccccc:encoder"
    assert [key.to_user_string() for key in request.asset_selection] == ["encoder/embedded_plate"]
    assert look("champion_changed")[1] == []
    home.tables.write(pd.DataFrame({"e000": [1.0]}), *encoder_table("P2"))
    end(request.run_key, dg.DagsterRunStatus.SUCCESS)
    look("champion_changed")
    assert look("champion_changed")[0].skip_message == "no champion has changed"


def test_many_plates_are_predicted_again_a_few_at_a_time_and_each_has_its_turn(
    home, look, champions, accepted, instance, monkeypatch
):
    monkeypatch.setattr(champion_sensor, "PLATES_A_LOOK", 3)
    names = [f"P{number}" for number in range(1, 9) if number != 3]
    for plate in names:
        home.plates.update_record(plate, status="accepted", content_hash="c" * 20)
    champions["nuclei"] = 2
    follow(home, "nuclei", 2)
    asked = []
    for turn in range(3):
        _, requests = look("champion_changed")
        asked.append([one.partition_key for one in requests])
        assert look("champion_changed")[0].skip_message == "3 plates are in runs already" or turn == 2
        for run in instance.get_runs():  # all fail
            instance.delete_run(run.run_id)
    assert asked == [names[:3], names[3:6], [names[6], *names[:2]]]


def test_a_plate_in_flight_is_left_to_its_run(home, look, champions, accepted, instance):
    champions["nuclei"] = 2
    follow(home, "nuclei", 2)
    instance.add_run(
        dg.DagsterRun(job_name="ingest", tags={"dagster/partition": "P1"}, status=dg.DagsterRunStatus.STARTED)
    )
    assert [one.partition_key for one in look("champion_changed")[1]] == ["P2"]


def test_a_plate_that_came_by_the_command_line_becomes_a_partition(home, look, champions, accepted, instance):
    home.plates.update_record("P4", status="accepted", content_hash="c" * 20)
    champions["nuclei"] = 2
    follow(home, "nuclei", 2)
    assert [one.partition_key for one in look("champion_changed")[1]] == ["P1", "P2", "P4"]
    assert "P4" in instance.get_dynamic_partitions("plates")


def test_a_failed_run_becomes_an_alert_with_the_sentence_that_a_person_needs(home, ledger, instance):
    sentence = "The folder of P9 is empty: export it again."

    @dg.op
    def step():
        raise InputError(sentence)

    @dg.job
    def ingest():
        step()

    result = ingest.execute_in_process(instance=instance, raise_on_error=False, tags={"cellabel/plate": "P9"})
    context = dg.build_run_status_sensor_context(
        sensor_name="failures",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        resources={"alerts": Alerts()},
    ).for_run_failure()
    sensor = defs.get_repository_def().get_sensor_def("failures")
    sensor(context)
    sensor(context)
    (alert,) = ledger.alerts("failure")
    assert (alert.title, alert.plate, alert.severity) == ("The run ingest of P9 failed", "P9", "error")
    assert alert.body == f"step: {sentence}" and alert.data["run"] == result.run_id


def test_the_outbox_delivers_each_alert_once(home, look, ledger, caplog):
    ledger.write(Alert(id="one", kind="drift", title="Drift in nuclei"))
    with caplog.at_level("INFO", logger="cellabel.alerts"):
        assert look("outbox")[0].skip_message == "1 delivered, 0 to be tried again"
        assert look("outbox")[0].skip_message == "0 delivered, 0 to be tried again"
    assert sum("Drift in nuclei" in message for message in caplog.messages) == 1
