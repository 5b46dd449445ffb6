"""Registering, promoting, rolling back and loading versions, and everything that is refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from cellabel import InputError
from cellabel.registry import ModelRegistry, ModelVersion, model_card, training_logger

ROOT = Path(__file__).parents[2]


def artefact(registry, version, name="weights.safetensors"):
    return registry.folder("nuclei", version) / name


def test_a_registered_model_is_the_challenger_with_its_lineage_metrics_and_card(registry, tmp_path, trained):
    version = registry.register(
        trained(tmp_path / "model"), "nuclei", metrics={"robust": 0.5}, tags={"dagster_run_id": "r1"}
    )
    assert isinstance(version, ModelVersion)
    assert (version.organelle, version.name, version.version) == ("nuclei", "cellabel-nuclei", 1)
    assert version.aliases == ("challenger",)
    assert dict(version.metrics) == {"clean/pearson": 0.9, "robust": 0.5}
    assert version.tags["dagster_run_id"] == "r1" and version.tags["dataset_version"] == "d-123"
    assert version.created_at.tzinfo is not None
    assert version.description.startswith("# nuclei from transmitted light")
    assert registry.challenger("nuclei") == version and registry.champion("nuclei") is None


def test_the_files_come_back_as_they_were_and_nothing_else(registry, tmp_path, trained):
    folder = trained(tmp_path / "model")
    (folder / "last.ckpt").write_bytes(b"a checkpoint is a pickle")
    registry.register(folder, "nuclei")
    back = registry.folder("nuclei", 1)
    assert {path.name for path in back.iterdir()} == {
        "MLmodel",
        "config.json",
        "history.csv",
        "metrics.json",
        "weights.safetensors",
    }
    for name in ("config.json", "history.csv", "metrics.json", "weights.safetensors"):
        assert (back / name).read_bytes() == (folder / name).read_bytes()


def test_artefacts_lie_beside_the_database(registry, home, tmp_path, trained):
    registry.register(trained(tmp_path / "model"), "nuclei")
    assert registry.folder("nuclei", 1).is_relative_to(home / "mlartifacts" / "cellabel-nuclei")
    assert not (Path.cwd() / "mlruns").exists() and not (Path.cwd() / "mlflow.db").exists()


def test_curves_parameters_and_figures_are_logged_with_the_run(registry, tmp_path, trained):
    figure = tmp_path / "scatter.png"
    figure.write_bytes(b"png")
    version = registry.register(trained(tmp_path / "model"), "nuclei", extra_files=[figure])
    client = registry._connection.client
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["training/optimiser/name"] == "adam"
    assert [point.value for point in client.get_metric_history(version.run_id, "history/loss")] == [1.0, 0.5]
    assert [file.path for file in client.list_artifacts(version.run_id)] == ["scatter.png"]


def test_the_same_files_registered_twice_are_one_version(registry, tmp_path, trained):
    folder = trained(tmp_path / "model")
    first, second = (registry.register(folder, "nuclei") for _ in range(2))
    assert first == second and len(registry.versions("nuclei")) == 1


def test_registering_the_champion_again_does_not_make_it_a_challenger(two, tmp_path):
    assert two.register(tmp_path / "one", "nuclei").aliases == ("champion",)
    assert two.challenger("nuclei").version == 2


def test_organelles_have_models_of_their_own(registry, tmp_path, trained):
    registry.register(trained(tmp_path / "n"), "nuclei")
    registry.register(trained(tmp_path / "e", organelle="er"), "er")
    assert registry.challenger("er").version == 1 and registry.challenger("golgi") is None
    with pytest.raises(InputError, match="trained for er, not for nuclei"):
        registry.register(tmp_path / "e", "nuclei")
    with pytest.raises(InputError, match="No organelle is called 'spleen'"):
        registry.champion("spleen")


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json"])
def test_an_incomplete_folder_is_refused_and_leaves_no_version(registry, tmp_path, name, trained):
    folder = trained(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"has no {name}"):
        registry.register(folder, "nuclei")
    assert registry.versions("nuclei") == []


def test_a_configuration_that_is_no_json_is_refused(registry, tmp_path, trained):
    folder = trained(tmp_path / "model")
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        registry.register(folder, "nuclei")


def test_a_pickle_cannot_be_kept_as_a_figure(registry, tmp_path, trained):
    (tmp_path / "figure.pkl").write_bytes(b"")
    with pytest.raises(InputError, match="no file that can be kept"):
        registry.register(trained(tmp_path / "model"), "nuclei", extra_files=[tmp_path / "figure.pkl"])


def test_an_upload_that_fails_is_marked_and_leaves_no_version(registry, tmp_path, monkeypatch, trained):
    folder = trained(tmp_path / "model")

    def full(*_, **__):
        raise OSError("No space left on device")

    client = registry._connection.client
    monkeypatch.setattr(client, "log_model_artifacts", full)
    with pytest.raises(OSError, match="No space left"):
        registry.register(folder, "nuclei")
    assert registry.versions("nuclei") == []
    experiment = client.get_experiment_by_name("cellabel-nuclei").experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["FAILED"]
    assert [model.status.value for model in client.search_logged_models([experiment])] == ["FAILED"]


def test_a_promotion_moves_the_aliases_and_keeps_its_reason(two):
    new = two.promote("nuclei", "challenger", reason="the gate said so")
    assert new.version == 2 and new.aliases == ("champion",)
    assert new.tags["promotion_reason"] == "the gate said so" and "promoted_at" in new.tags
    assert two.previous_champion("nuclei").version == 1
    assert two.challenger("nuclei") is None


def test_a_version_is_named_by_its_number_or_by_what_the_registry_gave(two, tmp_path, trained):
    waiting = two.challenger("nuclei")
    assert two.promote("nuclei", waiting, reason="better").version == waiting.version
    assert two.version("nuclei", two.champion("nuclei")).version == waiting.version
    er = two.register(trained(tmp_path / "er", organelle="er"), "er")
    with pytest.raises(InputError, match="Version 1 of cellabel-er is none of cellabel-nuclei"):
        two.promote("nuclei", er, reason="mistaken")


@pytest.mark.parametrize("reason", ["", "  ", None])
def test_a_change_of_champion_without_a_reason_is_refused(two, reason):
    with pytest.raises(InputError, match="promotion has no reason"):
        two.promote("nuclei", 2, reason=reason)
    with pytest.raises(InputError, match="rollback has no reason"):
        two.rollback("nuclei", reason=reason)
    assert two.champion("nuclei").version == 1


def test_a_promotion_repeated_changes_nothing(two):
    first = two.promote("nuclei", 2, reason="once")
    second = two.promote("nuclei", 2, reason="twice")
    assert first == second and two.previous_champion("nuclei").version == 1


@pytest.mark.parametrize("dies_at", range(6))
def test_a_promotion_that_died_midway_is_finished_by_repeating_it(two, dying, dies_at):
    with dying(two, dies_at, "tag", "set_alias", "delete_alias"):
        two.promote("nuclei", 2, reason="the gate said so")
    assert two.champion("nuclei").version in (1, 2)
    champion = two.promote("nuclei", 2, reason="the gate said so")
    assert champion.aliases == ("champion",) and champion.tags["promotion_reason"] == "the gate said so"
    assert two.previous_champion("nuclei").version == 1 and two.challenger("nuclei") is None


def test_a_decision_against_a_champion_of_yesterday_is_refused(two):
    with pytest.raises(InputError, match="champion of cellabel-nuclei is version 1 by now, not version 7"):
        two.promote("nuclei", 2, reason="late", expected_champion=7)
    assert two.champion("nuclei").version == 1
    assert two.promote("nuclei", 2, reason="in time", expected_champion=1).version == 2


@pytest.mark.parametrize("which", [7, "7", "latest", "v1", "previous_champion"])
def test_a_vanished_version_is_refused_and_the_champion_stays(two, which):
    with pytest.raises(InputError, match=r"cellabel-nuclei has no .*versions: 2, 1"):
        two.promote("nuclei", which, reason="?")
    assert two.champion("nuclei").version == 1


def test_a_version_deleted_in_mlflow_cannot_be_promoted(two):
    two._connection.client.delete_model_version("cellabel-nuclei", "2")
    with pytest.raises(InputError, match="no version 2"):
        two.promote("nuclei", 2, reason="?")
    assert two.champion("nuclei").version == 1


def test_corrupted_weights_are_refused_and_the_champion_stays(two):
    path = artefact(two, 2)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"Version 2 of cellabel-nuclei is corrupted .*weights.safetensors"):
        two.promote("nuclei", 2, reason="?")
    with pytest.raises(InputError, match="corrupted"):
        two.folder("nuclei", 2)
    assert two.champion("nuclei").version == 1 and two.challenger("nuclei").version == 2


def test_a_version_with_missing_files_is_refused_and_can_be_registered_again(two, tmp_path):
    artefact(two, 2).unlink()
    with pytest.raises(InputError, match=r"incomplete \(weights.safetensors is missing"):
        two.promote("nuclei", 2, reason="?")
    assert two.champion("nuclei").version == 1
    assert two.register(tmp_path / "two", "nuclei").version == 3
    assert two.promote("nuclei", 3, reason="whole").version == 3


@pytest.mark.parametrize("finalised", [False, True])
def test_a_half_logged_version_is_refused_and_the_champion_stays(two, finalised):
    client = two._connection.client
    experiment = client.get_experiment_by_name("cellabel-nuclei").experiment_id
    run = client.create_run(experiment).info.run_id
    model = client.create_logged_model(experiment, name="half", source_run_id=run)
    if finalised:
        client.finalize_logged_model(model.model_id, "READY")
    client.create_model_version(
        "cellabel-nuclei", source=model.artifact_location, run_id=run, tags={"model_id": model.model_id}
    )
    with pytest.raises(InputError, match="Version 3 of cellabel-nuclei was only half logged"):
        two.promote("nuclei", 3, reason="?")
    assert two.champion("nuclei").version == 1


def test_a_version_that_someone_else_registered_is_refused(two):
    client = two._connection.client
    client.create_model_version("cellabel-nuclei", source="s3://elsewhere/model")
    with pytest.raises(InputError, match="half logged"):
        two.promote("nuclei", 3, reason="?")


def test_a_rollback_returns_to_what_was_before_and_a_second_one_further_back(two, tmp_path, trained):
    two.promote("nuclei", 2, reason="better")
    two.register(trained(tmp_path / "three", seed=3), "nuclei")
    two.promote("nuclei", 3, reason="better still")
    assert two.rollback("nuclei", reason="controls left ±3 SD").version == 2
    assert two.version("nuclei", 3).tags["rollback_reason"] == "controls left ±3 SD"
    assert two.previous_champion("nuclei").version == 1
    assert two.rollback("nuclei", reason="again").version == 1
    with pytest.raises(InputError, match="no previous champion"):
        two.rollback("nuclei", reason="and again")
    assert two.champion("nuclei").version == 1


def test_a_rollback_to_corrupted_weights_is_refused(two):
    two.promote("nuclei", 2, reason="better")
    artefact(two, 1).write_bytes(b"")
    with pytest.raises(InputError, match="corrupted"):
        two.rollback("nuclei", reason="?")
    assert two.champion("nuclei").version == 2


def test_verdicts_stay_on_record_and_uses_of_the_test_wells_are_counted(two):
    assert two.test_set_uses("nuclei", "wells-1") == 0
    two.record_verdict("nuclei", 2, promoted=False, reason="Not promoted: worse.", test_set="wells-1")
    two.record_verdict("nuclei", 2, promoted=False, reason="Not promoted: worse.", test_set="wells-1")
    assert two.test_set_uses("nuclei", "wells-1") == 1
    assert two.test_set_uses("nuclei", "wells-1", before=2) == 0
    assert two.test_set_uses("nuclei", "wells-2") == 0
    assert two.version("nuclei", 2).tags["gate_reason"] == "Not promoted: worse."


def test_versions_are_compared_side_by_side(registry, tmp_path, trained):
    registry.register(trained(tmp_path / "a", seed=1, metrics={"pearson": 0.8, "old": 1}), "nuclei")
    registry.register(trained(tmp_path / "b", seed=2, metrics={"pearson": 0.9}), "nuclei")
    table = registry.compare("nuclei", 1, "challenger")
    assert list(table.columns) == [1, 2] and list(table.index) == ["old", "pearson"]
    assert table.loc["pearson", 2] == 0.9 and np.isnan(table.loc["old", 2])
    assert list(registry.compare("nuclei").columns) == [2, 1]


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_in_a_versions_folder_is_never_executed(registry, tmp_path, trained):
    registry.register(trained(tmp_path / "model"), "nuclei")
    folder, exploded = registry.folder("nuclei", 1), tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(exploded))
    for name in ("weights.pkl", "model.pkl", "python_model.pkl", "weights.pt", "last.ckpt"):
        (folder / name).write_bytes(bomb)
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n"
        "    python_model: python_model.pkl\n    env: {}\n"
    )
    with pytest.raises(InputError, match=r"corrupted \(the checksum of MLmodel"):
        registry.promote("nuclei", 1, reason="weights are whole")
    import mlflow.pyfunc

    with pytest.raises(mlflow.exceptions.MlflowException, match=r"(?i)pickle"):
        mlflow.pyfunc.load_model(str(folder))
    assert not exploded.exists()
    pickle.loads(bomb)
    assert exploded.exists()  # the bomb was live


@pytest.fixture
def network_folder(tmp_path):
    """A small network as a training keeps it, with its model."""
    from cellabel.networks import OrganelleModel, UNet, save_model

    shape = {"base_channels": 4, "depth": 2}
    config = {
        "network": shape,
        "organelle": "nuclei",
        "target": "continuous",
        "target_scale": 200.0,
        "pixel_size_um": 0.65,
        "intensity_units": "stain",
    }
    model = OrganelleModel(UNet(**shape), config).eval()
    folder = tmp_path / "network"
    folder.mkdir()
    save_model(model, folder)
    return folder, model


def test_a_loaded_model_knows_its_version_and_predicts_what_the_trained_one_did(registry, network_folder):
    from cellabel.prediction import predict_image

    folder, model = network_folder
    registry.register(folder, "nuclei")
    registry.promote("nuclei", 1, reason="first")
    loaded = registry.load("nuclei", version=registry.champion("nuclei"))
    assert (loaded.name, loaded.version, loaded.organelle) == ("cellabel-nuclei", "1", "nuclei")
    image = np.random.default_rng(0).normal(size=(24, 40))
    np.testing.assert_array_equal(predict_image(loaded, image), predict_image(model, image))


def test_mlflow_itself_predicts_with_a_version_through_named_code(registry, network_folder):
    import mlflow.pyfunc

    from cellabel.prediction import predict_image

    folder, model = network_folder
    registry.register(folder, "nuclei")
    image = np.random.default_rng(0).normal(size=(24, 40))
    expected = predict_image(model, image) * np.float32(200)
    served = mlflow.pyfunc.load_model(str(registry.folder("nuclei", 1)))
    np.testing.assert_allclose(served.predict(image), expected, rtol=1e-6)
    np.testing.assert_allclose(served.predict(image[None]), expected[None], rtol=1e-6)
    with pytest.raises(InputError, match=r"\(7,\) and type float64 is no image"):
        served.predict(np.zeros(7))


def test_weights_that_are_a_pickle_in_disguise_are_not_loaded(registry, network_folder, tmp_path):
    folder, exploded = network_folder[0], tmp_path / "exploded"
    (folder / "weights.safetensors").write_bytes(pickle.dumps(Bomb(exploded)))
    config = json.loads((folder / "config.json").read_text())
    del config["weights_sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    registry.register(folder, "nuclei")
    with pytest.raises(InputError, match="do not fit the network"):
        registry.load("nuclei", 1)
    assert not exploded.exists()


CHILD = """
import sys
from cellabel.registry import ModelRegistry
assert not {"mlflow", "torch"} & set(sys.modules), "heavy import"
database, folder = sys.argv[1:]
registry = ModelRegistry(f"sqlite:///{database}")
registry.register(folder, "nuclei")
registry.promote("nuclei", 1, reason="race")
registry.folder("nuclei")
assert not {"torch", "mlflow.pytorch", "lightning"} & set(sys.modules), "heavy use"
"""


def test_processes_that_touch_a_new_database_together_succeed_without_a_word(tmp_path, trained):
    database = tmp_path / "new" / "mlflow.db"
    children = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                CHILD,
                str(database),
                str(trained(tmp_path / f"model{index}", seed=index)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for index in range(2)
    ]
    assert [(*child.communicate(timeout=200), child.returncode) for child in children] == [("", "", 0)] * 2
    registry = ModelRegistry(f"sqlite:///{database}")
    assert len(registry.versions("nuclei")) == 2
    assert registry.champion("nuclei").version == 1


def test_a_promotion_waits_for_its_turn(two, home):
    with FileLock(f"{home / 'mlflow.db'}.lock"):
        waiting = threading.Thread(target=two.promote, args=("nuclei", 2), kwargs={"reason": "better"})
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive() and two.champion("nuclei").version == 1
    waiting.join(30)
    assert two.champion("nuclei").version == 2


def test_a_place_that_cannot_hold_a_database_is_told_in_a_sentence(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database")
    with pytest.raises(InputError, match="cannot be used"):
        ModelRegistry(f"sqlite:///{tmp_path / 'mlflow.db'}").versions("nuclei")


@pytest.mark.parametrize("uri", ["", Path("x.db"), 3])
def test_an_address_that_is_no_text_is_refused(uri):
    with pytest.raises(InputError, match="is no text"):
        ModelRegistry(uri)


def test_what_is_no_training_is_refused(registry):
    with pytest.raises(InputError, match="NoneType is no trained model"):
        registry.register(None, "nuclei")


def test_the_default_database_lies_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLABEL_HOME", str(tmp_path))
    assert repr(ModelRegistry()) == f"ModelRegistry('sqlite:///{tmp_path / 'mlflow.db'}')"


def test_the_training_logger_writes_where_the_registry_reads(registry, home, monkeypatch):
    class Logger:
        def __init__(self, **arguments):
            self.arguments = arguments

    loggers = types.ModuleType("lightning.pytorch.loggers")
    loggers.MLFlowLogger = Logger  # the real one costs seconds to import and adds nothing of ours
    monkeypatch.setitem(sys.modules, "lightning.pytorch.loggers", loggers)
    uri = f"sqlite:///{home / 'mlflow.db'}"
    logger = training_logger("trial", "nuclei", uri=uri, tags={"cause": "defocus"})
    assert logger.arguments == {
        "experiment_name": "cellabel-nuclei",
        "run_name": "trial",
        "tracking_uri": uri,
        "tags": {"cause": "defocus"},
        "log_model": False,
    }
    experiment = registry._connection.client.get_experiment_by_name("cellabel-nuclei")
    assert experiment.artifact_location == (home / "mlartifacts" / "cellabel-nuclei").as_uri()


def test_a_model_is_registered_with_the_run_that_logged_its_training(registry, tmp_path, trained):
    first = registry.register(trained(tmp_path / "one", seed=1), "nuclei")
    client = registry._connection.client
    run = client.create_run(client.get_run(first.run_id).info.experiment_id).info.run_id
    client.log_metric(run, "live_loss", 0.25)
    version = registry.register(trained(tmp_path / "two", seed=2), "nuclei", run_id=run)
    assert version.run_id == run and version.metrics["live_loss"] == 0.25


def test_the_card_says_what_the_model_is_and_what_its_intensities_mean():
    card = model_card(
        "er",
        config={"target": "continuous", "intensity_units": "arbitrary", "pixel_size_um": 0.65},
        metrics={"pearson": 0.91234},
        tags={"dataset_version": "d-1", "retraining_cause": "defocus"},
        verdict="Promoted: better.",
    )
    for part in (
        "# er",
        "arbitrary units",
        "0.65 µm",
        "| pearson | 0.9123 |",
        "`d-1`",
        "defocus",
        "Promoted",
    ):
        assert part in card
    assert "probability" in model_card("gfp", config={"target": "binary"})
