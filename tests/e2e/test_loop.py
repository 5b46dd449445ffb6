"""The loop that must never break, small, under the real daemon: drift, retraining, verdict, predictions."""

import pytest
from rich.console import Console

from cellabel.alerts import AlertLedger
from cellabel.cli._demo import running_demo
from cellabel.loop import incidents, plate_status, read_champions, stored_verdict
from cellabel.registry import ModelRegistry
from cellabel.simulation import simulate_plate

FIELD = {"wells": 8, "sites": 1, "size": 160, "preset": "10x", "parental": 0, "reference": 0, "blanks": 0}
SETTINGS = {
    "organelles": ["nuclei"],
    "sensor_seconds": 1,
    "inbox": {"settle_seconds": 0},
    "models": {
        "min_labelled_plates": 3,
        "report_fields": 0,
        "training": {"max_steps": 60, "base_channels": 8, "depth": 3, "crop_size": 96, "num_threads": 1},
    },
    "promotion": {"min_plates": 1, "min_wells": 4},
    "drift": {"window": 5, "min_reference_wells": 12, "diagnosis_fields": 4, "harm_limit": 0.01},
    "retraining": {"at_once": True, "on_provisional": True},
}


def plate(folder, name, seed, stains, drift=None):
    from datetime import UTC, datetime, timedelta

    day = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=seed)
    simulate_plate(
        folder / name,
        plate_id=name,
        seed=seed,
        stains=stains,
        drift=drift,
        clone_offset=6 * seed,
        acquired_at=day,
        **FIELD,
    )
    return folder / name


@pytest.mark.service
@pytest.mark.timeout(900)
def test_a_drifted_plate_goes_round_the_whole_loop_under_the_real_daemon(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLABEL_HOME", str(tmp_path / "home"))
    microscope = tmp_path / "microscope"
    microscope.mkdir()
    labelled = ["P1", "P2", "P3"]
    with running_demo("test", SETTINGS, fresh=False, console=Console()) as demo:
        home = demo.home
        for seed, name in enumerate(labelled, 1):
            demo.land(plate(microscope, name, seed, ("nuclei",)))
        champions = demo.wait("the first champion", lambda: read_champions(home))
        assert champions == {"nuclei": 1}
        demo.wait_for_predictions(labelled, champions)
        assert all(stored_verdict(home, name) is None for name in labelled), "the reference never ticks"

        demo.land(plate(microscope, "P4", 4, (), ("defocus", 10.0)))
        demo.wait("the verdict", lambda: plate_status(home, "P4").drift)
        assert plate_status(home, "P4").drift == "yes"
        demo.wait("the end of the incident's work", lambda: _settled(home))
        champions = read_champions(home)
        demo.wait_for_predictions([*labelled, "P4"], champions)

        (incident,) = incidents(home)
        assert incident.plates == ("P4",)
        assert incident.diagnosis is not None
        alerts = AlertLedger(str(home.alerts)).alerts()
        assert [alert.kind for alert in alerts].count("drift") >= 1
        versions = ModelRegistry(home.settings.mlflow_tracking_uri).versions("nuclei")
        if incident.retrainings:
            assert len(versions) == 2
            assert "gate_reason" in versions[0].tags
            outcome = incident.retrainings[0].outcome
            assert champions == {"nuclei": 2 if outcome == "promoted" else 1}
        else:
            assert incident.status == "person_needed"
        assert home.tables.has("wells", "nuclei", "P4")
        assert home.tables.has("ranking", "P4")


def _settled(home):
    latest = incidents(home)[-1]
    return any(one.outcome != "running" for one in latest.retrainings) or latest.status == "person_needed"
