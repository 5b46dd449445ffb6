"""Champions set and taken away in MLflow's page, uses of test wells that outlive their versions, leases."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path

import pytest

from cellabel import InputError
from cellabel.registry import ModelRegistry
from cellabel.registry._lease import PREFIX, lease

NAME = "cellabel-nuclei"


@pytest.fixture
def client(two):
    """MLflow as a person at its page has it."""
    return two._connection.client


def test_an_alias_that_a_person_moves_is_followed_and_can_be_rolled_back(two, client):
    client.set_registered_model_alias(NAME, "champion", "2")
    adopted = two.adopt_champion("nuclei")
    assert adopted.version == 2 and adopted.tags["promotion_reason"].endswith("moved in MLflow by a person")
    assert two.previous_champion("nuclei").version == 1 and two.challenger("nuclei") is None
    assert two.adopt_champion("nuclei") is None, "it is known by now"
    assert two.rollback("nuclei", reason="worse").version == 1


def test_a_rollback_knows_of_an_alias_that_was_moved_a_moment_ago(two, client):
    client.set_registered_model_alias(NAME, "champion", "2")
    assert two.rollback("nuclei", reason="worse").version == 1


def test_a_version_that_was_rolled_back_and_is_set_again_by_a_person_says_so(two, client):
    two.promote("nuclei", 2, reason="the gate said so")
    two.rollback("nuclei", reason="worse")
    client.set_registered_model_alias(NAME, "champion", "2")
    assert two.adopt_champion("nuclei").tags["promotion_reason"].endswith("by a person")
    assert two.previous_champion("nuclei").version == 1


def test_a_promotion_of_our_own_is_not_mistaken_for_a_persons(two):
    two.promote("nuclei", 2, reason="the gate said so")
    assert two.adopt_champion("nuclei") is None
    assert two.champion("nuclei").tags["promotion_reason"] == "the gate said so"


def test_a_champion_deleted_in_mlflow_leaves_a_state_with_a_way_out(two, client):
    two.promote("nuclei", 2, reason="better")
    client.delete_model_version(NAME, "2")
    assert two.champion("nuclei") is None
    assert two.missing_champion("nuclei") == (
        "Version 2 of cellabel-nuclei, the champion, was deleted in MLflow, so nothing predicts nuclei: "
        "return to version 1 by `cellabel models rollback nuclei`, or choose a version by `cellabel models "
        "promote nuclei --version … --reason …`."
    )
    assert two.rollback("nuclei", reason="it was deleted").version == 1
    assert two.missing_champion("nuclei") == ""


def test_a_champion_whose_alias_was_taken_away_is_named(two, client):
    client.delete_registered_model_alias(NAME, "champion")
    assert two.missing_champion("nuclei").startswith("The alias champion of cellabel-nuclei was taken from")
    assert two.promote("nuclei", 1, reason="it was a mistake").aliases == ("champion",)
    assert two.missing_champion("nuclei") == ""


def test_an_organelle_that_never_had_a_champion_misses_none(registry):
    assert registry.missing_champion("nuclei") == "" and registry.adopt_champion("nuclei") is None


def test_a_decision_without_a_champion_is_refused_once_there_is_one(two):
    with pytest.raises(InputError, match="is version 1 by now, not none"):
        two.promote("nuclei", 2, reason="the first", expected_champion=0)


def test_uses_of_the_test_wells_outlive_the_versions_that_they_decided_about(two, client):
    two.record_verdict("nuclei", 2, promoted=False, reason="Not promoted: worse.", test_set="wells-1")
    client.delete_model_version(NAME, "2")
    assert two.test_set_uses("nuclei", "wells-1") == 1


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("entry", ["promote", "load", "rollback"])
def test_a_pickled_model_that_someone_registers_is_refused_and_never_executed(two, client, tmp_path, entry):
    exploded, folder = tmp_path / "exploded", tmp_path / "evil"
    folder.mkdir()
    (folder / "python_model.pkl").write_bytes(pickle.dumps(Bomb(exploded)))
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n"
        "    python_model: python_model.pkl\n    env: {}\n"
    )
    client.create_model_version(NAME, source=folder.as_uri())
    client.set_registered_model_alias(NAME, "previous_champion" if entry == "rollback" else "challenger", "3")
    with pytest.raises(InputError, match="Version 3 of cellabel-nuclei was only half logged"):
        if entry == "promote":
            two.promote("nuclei", "challenger", reason="?")
        elif entry == "load":
            two.load("nuclei", 3)
        else:
            two.rollback("nuclei", reason="?")
    assert two.champion("nuclei").version == 1 and not exploded.exists()


def tickets(client):
    return [key for key in client.get_registered_model(NAME).tags if key.startswith(PREFIX)]


def test_a_lease_is_held_by_one_at_a_time_and_may_be_taken_again_by_its_holder(two, client):
    entered = threading.Event()

    def other():
        with lease(client, NAME):
            entered.set()

    with lease(client, NAME), lease(client, NAME):
        waiting = threading.Thread(target=other)
        waiting.start()
        assert not entered.wait(0.4)
    waiting.join(20)
    assert entered.is_set() and tickets(client) == []


def test_many_who_want_a_lease_never_hold_it_together(two, client):
    inside, most, done = [0], [0], []

    def work():
        with lease(client, NAME):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1
            done.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 3 and most == [1]


def test_the_lease_of_a_process_that_died_runs_out(two, client):
    client.set_registered_model_tag(NAME, f"{PREFIX}dead", f"{time.time() - 1:.3f} elsewhere 7")
    with lease(client, NAME):
        assert len(tickets(client)) == 1


def test_a_lease_that_is_not_given_up_is_told_with_its_holder(two, client):
    client.set_registered_model_tag(NAME, f"{PREFIX}live", f"{time.time() + 60:.3f} elsewhere 7")
    with (
        pytest.raises(InputError, match="being changed by elsewhere process 7"),
        lease(client, NAME, patience_seconds=0.0),
    ):
        pass
    assert tickets(client) == [f"{PREFIX}live"]


def test_a_registry_behind_a_server_takes_the_lease(two, client, monkeypatch):
    monkeypatch.setattr(type(two._connection), "is_server", property(lambda self: True))
    with two.exclusive("nuclei"):
        assert len(tickets(client)) == 1
    assert tickets(client) == []


def test_versions_of_other_tools_beside_ours_disturb_nothing(two, client):
    client.create_registered_model("somebody-elses")
    assert isinstance(two, ModelRegistry) and two.champion("nuclei").version == 1
