"""The first asset and its checks, in a run of their own."""

from __future__ import annotations

import dagster as dg
import pytest

from cellabel.errors import InputError
from cellabel.loop import plate_status, take_in
from cellabel.plates.quality import plate_quality
from cellabel.simulation import simulate_plate
from orchestration.assets.plates import raw_plate
from orchestration.checks.plates import FAULTS, complete, faults, quality, registration
from orchestration.resources import Stores


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "S1"
    simulate_plate(folder, plate_id="S1", wells=2, sites=1, size=256, seed=1, stains=("nuclei",))
    return folder


@pytest.fixture
def run(instance, home):
    def materialise(plate, folder):
        instance.add_dynamic_partitions("plates", [plate])
        return dg.materialize(
            [raw_plate, complete, quality, faults, registration],
            partition_key=plate,
            instance=instance,
            resources={"stores": Stores()},
            run_config={"ops": {"raw_plate": {"config": {"folder": str(folder)}}}},
            raise_on_error=False,
        )

    return materialise


def message(result):
    (event,) = [one for one in result.all_events if one.is_step_failure]
    error = event.step_failure_data.error
    while error.cause is not None:
        error = error.cause
    return error.message.strip()


def test_a_simulated_plate_is_stored_and_passes_its_checks(run, home, exported):
    result = run("S1", exported)
    assert result.success
    names = {"complete", "quality", "registration", *FAULTS}
    assert {one.check_name: one.passed for one in result.get_asset_check_evaluations()} == dict.fromkeys(
        names, True
    )
    (made,) = result.asset_materializations_for_node("raw_plate")
    assert made.metadata["wells"].value == 2 and made.metadata["quarantined_fields"].value == 0
    (looked,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "quality"]
    assert looked.metadata["map"].value.startswith("![quality by well](data:image/png;base64,")
    assert plate_status(home, "S1").status == "accepted"


def test_a_bad_folder_fails_with_the_sentence_that_the_library_says(run, home, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("S2", tmp_path / "empty")
    assert not result.success
    with pytest.raises(InputError) as refused:
        take_in(home, "S2", tmp_path / "empty")
    assert message(result) == f"cellabel.errors.InputError: {refused.value}"
    assert plate_status(home, "S2").status != "accepted"


def test_too_many_bad_fields_stop_the_run_and_quarantine_the_plate(run, home, exported, monkeypatch):
    judged = plate_quality

    def all_bad(plate, *args, **kwargs):
        return judged(plate).assign(passed=False, reason="out of focus")

    monkeypatch.setattr("cellabel.loop.acquisitions.plate_quality", all_bad)
    result = run("S1", exported)
    assert not result.success
    looked = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert looked["quality"].passed is False
    assert looked["registration"].passed and "The plate is quarantined." in looked["registration"].description
    status = plate_status(home, "S1")
    assert status.status == "quarantined"
    assert status.reason == "2 of 2 fields fail the quality check, first out of focus"
