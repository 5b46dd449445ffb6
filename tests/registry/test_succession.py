"""Champions set and taken away in MLflow's page, uses of test wells that outlive their versions, leases."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path

import pytest

from cellabel import InputError
from cellabel.registry import ModelRegistry, Standing
from cellabel.registry._lease import PREFIX, LeaseLostError, _leases, _Ticket, lease

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


@pytest.fixture
def three(two, tmp_path, trained):
    """Versions 1, 2 and 3 became champion one after the other."""
    two.promote("nuclei", 2, reason="better")
    two.register(trained(tmp_path / "three", seed=3), "nuclei")
    two.promote("nuclei", 3, reason="better still")
    return two


def test_a_version_that_was_rolled_back_is_not_what_the_next_rollback_returns_to(three):
    three.promote("nuclei", 2, reason="a person wants the old one")
    assert three.rollback("nuclei", reason="version 2 is bad").version == 3
    assert three.previous_champion("nuclei").version == 1
    assert three.rollback("nuclei", reason="version 3 is no better").version == 1
    with pytest.raises(InputError, match="no previous champion"):
        three.rollback("nuclei", reason="?")


def test_versions_that_were_left_by_rollbacks_are_skipped_by_later_ones(three, client):
    three.promote("nuclei", 2, reason="a person wants the old one")
    three.rollback("nuclei", reason="version 2 is bad")
    client.set_registered_model_alias(NAME, "champion", "1")
    assert three.adopt_champion("nuclei").version == 1
    assert three.rollback("nuclei", reason="not that one").version == 3
    assert three.previous_champion("nuclei") is None, "1 was left as well, and 2 before it"


@pytest.mark.parametrize("dies_at", range(7))
def test_a_rollback_that_died_midway_is_finished_by_whoever_looks_next(three, dying, dies_at):
    with dying(three, dies_at, "tag", "tag_model", "set_alias", "delete_alias"):
        three.rollback("nuclei", reason="worse")
    assert three.adopt_champion("nuclei") is None, "no person has set a champion"
    if three.champion("nuclei").version == 3:
        three.rollback("nuclei", reason="worse")
    assert (three.champion("nuclei").version, three.previous_champion("nuclei").version) == (2, 1)
    assert three.version("nuclei", 3).standing is Standing.ROLLED_BACK


def test_the_standing_of_a_version_is_read_from_its_alias_and_its_verdict(two):
    assert [one.standing for one in two.versions("nuclei")] == [Standing.UNJUDGED, Standing.CHAMPION]
    for promoted, standing in ((False, Standing.REFUSED), (True, Standing.ACCEPTED)):
        two.record_verdict("nuclei", 2, promoted=promoted, reason="…", test_set="wells-1")
        assert two.version("nuclei", 2).standing is standing
    two.promote("nuclei", 2, reason="better")
    assert [one.standing for one in two.versions("nuclei")] == [Standing.CHAMPION, Standing.UNJUDGED]
    two.rollback("nuclei", reason="worse")
    assert two.version("nuclei", 2).standing is Standing.ROLLED_BACK


def test_a_champion_that_a_person_makes_challenger_too_is_no_challenger(two, client):
    client.set_registered_model_alias(NAME, "challenger", "1")
    assert two.adopt_champion("nuclei") is None and two.challenger("nuclei") is None


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


def test_a_lease_is_renewed_while_it_is_held(two, client):
    together, inside = [], []

    def work(name, seconds):
        with lease(client, NAME, valid_seconds=1.5):
            inside.append(name)
            time.sleep(seconds)
            together.append(list(inside))
            inside.remove(name)

    first = threading.Thread(target=work, args=("first", 3.5))
    first.start()
    while not inside:
        time.sleep(0.02)
    second = threading.Thread(target=work, args=("second", 0))
    second.start()
    first.join(30)
    second.join(30)
    assert together == [["first"], ["second"]] and tickets(client) == []


@pytest.mark.parametrize("how", ["ran out", "was taken for a dead one's"])
def test_a_holder_that_lost_its_lease_changes_nothing(two, client, monkeypatch, how):
    monkeypatch.setattr(type(two._connection), "is_server", property(lambda self: True))
    with pytest.raises(LeaseLostError, match="nothing more was changed"), two.exclusive("nuclei"):
        if how == "ran out":
            monkeypatch.setattr(_leases()[NAME], "until", time.time() - 1)
        else:
            client.delete_registered_model_tag(NAME, tickets(client)[0])
        two.promote("nuclei", 2, reason="better")
    assert two.champion("nuclei").version == 1 and two.previous_champion("nuclei") is None
    assert "promotion_reason" not in two.version("nuclei", 2).tags and tickets(client) == []


def test_a_renewal_that_comes_too_late_does_not_bring_the_lease_back(two, client, monkeypatch):
    with lease(client, NAME, valid_seconds=0.6):
        ticket, write = _leases()[NAME], _Ticket.write

        def slow(self):
            time.sleep(1.0)
            write(self)

        monkeypatch.setattr(_Ticket, "write", slow)
        time.sleep(1.6)
        assert not ticket.is_valid()


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
