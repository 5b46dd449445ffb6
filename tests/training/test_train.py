import json
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cellabel import InputError
from cellabel.datasets import build_dataset
from cellabel.networks import PoolingAutoencoder, UNet, load_model
from cellabel.training import TrainingConfig, train, train_encoder
from cellabel.training._train import OPERATING_FIELDS, _operating_fields
from cellabel.training._validation import downstream_error, validation_fields

SIZE = 72


def cells(seed, brightness=4000.0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    blobs = np.zeros((SIZE, SIZE))
    for cy, cx in rng.uniform(5, SIZE - 5, (8, 2)):
        blobs += np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 3.5**2))
    nuclei = (100 + brightness * blobs + rng.normal(0, 5, blobs.shape)).astype(np.uint16)
    light = 20_000 + 5000 * (blobs - np.roll(blobs, (2, 2), (0, 1))) + rng.normal(0, 40, blobs.shape)
    return {"transmitted": light.astype(np.uint16), "nuclei": nuclei, "gfp": nuclei}


def take(images, role, plane="middle"):
    return images[role]


def plate(wells=6):
    def field(n):
        images = cells(n)
        # No closure: another process can be sent this one.
        return SimpleNamespace(roles=tuple(images), image=partial(take, images), images=images)

    return SimpleNamespace(
        plate_id="P1",
        content_hash="abc",
        pixel_size_um=0.65,
        plan=None,
        wells={f"A{n:02d}": SimpleNamespace(fields={1: field(n)}) for n in range(1, wells + 1)},
        quarantined=pd.DataFrame(columns=["Metadata_Well", "Metadata_Site", "reason"]),
    )


TINY = {
    "max_steps": 8,
    "batch_size": 2,
    "crop_size": 32,
    "base_channels": 4,
    "depth": 2,
    "validations": 4,
    "precision": "fp32",
    "num_threads": 1,
}


def tiny(**changes):
    return TrainingConfig(**(TINY | changes))


@pytest.fixture(scope="module")
def dataset():
    return build_dataset([plate()], "nuclei")


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    heard = []
    return train(dataset, tiny(), folder=folder, progress=heard.append), heard


def weights(result):
    return {name: tensor for name, tensor in result.model.network.state_dict().items()}


def same_weights(first, second):
    ours, theirs = weights(first), weights(second)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_training_leaves_a_whole_folder_and_nothing_beside_it(trained, dataset):
    result, _ = trained
    assert sorted(p.name for p in result.folder.iterdir()) == [
        "config.json",
        "dataset.json",
        "history.csv",
        "metrics.json",
        "weights.safetensors",
    ]
    assert [p.name for p in result.folder.parent.iterdir()] == ["model"]
    config = json.loads((result.folder / "config.json").read_text())
    assert config["organelle"] == "nuclei" and config["target"] == "continuous"
    assert config["target_scale"] == dataset.target_scale and config["pixel_size_um"] == 0.65
    assert config["dataset"] == dataset.version and config["intensity_units"] == "stain"
    assert 0 <= config["core"] <= 1 and result.model.core == config["core"]
    assert config["training"]["precision"] == "fp32" and config["training"]["losses"]
    assert json.loads((result.folder / "dataset.json").read_text()) == dataset.manifest()
    assert json.loads((result.folder / "metrics.json").read_text()) == result.metrics
    pd.testing.assert_frame_equal(pd.read_csv(result.folder / "history.csv"), result.history)


def test_the_model_of_the_folder_is_the_one_returned(trained):
    result, _ = trained
    loaded, x = load_model(result.folder), torch.rand(1, 1, 40, 40)
    assert not result.model.training
    torch.testing.assert_close(loaded(x), result.model(x), atol=0, rtol=0)


def test_history_and_progress_tell_each_validation(trained):
    result, heard = trained
    assert list(result.history["step"]) == [2, 4, 6, 8]
    assert set(result.history) >= {"seconds", "learning_rate", "train_loss", "validation_loss"}
    assert len(heard) == 4 and heard[0].startswith("step 2 of 8: training loss")
    assert result.metrics["steps"] == 8 and result.metrics["test"]["n"] == 2


def test_the_same_seed_gives_the_same_weights_and_leaves_global_randomness_alone(trained, dataset):
    torch.manual_seed(99)
    np.random.seed(99)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = train(dataset, tiny())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert same_weights(again, trained[0])
    assert not same_weights(train(dataset, tiny(seed=1, max_steps=2, validations=1)), again)


KILLED = """
    import importlib.util, os, signal, sys
    spec = importlib.util.spec_from_file_location("this", sys.argv[1])
    this = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(this)
    heard = []
    def progress(sentence):
        heard.append(sentence)
        if len(heard) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    dataset = this.build_dataset([this.plate()], "nuclei")
    this.train(dataset, this.tiny(dropout=0.1), folder=sys.argv[2], progress=progress)
"""


def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(dataset, tmp_path):
    folder = tmp_path / "model"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), __file__, str(folder)]
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    killed = subprocess.run(command, check=False, cwd=root, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not folder.exists() and (tmp_path / "model.checkpoint" / "last.ckpt").is_file()
    heard = []
    resumed = train(dataset, tiny(dropout=0.1), folder=folder, resume=True, progress=heard.append)
    whole = train(dataset, tiny(dropout=0.1))
    assert [s.split(":")[0] for s in heard] == ["step 6 of 8", "step 8 of 8"]
    assert same_weights(resumed, whole)
    columns = ["step", "train_loss", "validation_loss"]
    pd.testing.assert_frame_equal(resumed.history[columns], whole.history[columns])
    assert not (tmp_path / "model.checkpoint").exists()


def interrupted(dataset, folder, **changes):
    def stop(sentence):
        if sentence.startswith("step 4"):
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(dataset, tiny(**changes), folder=folder, progress=stop)
    return folder.with_name("model.checkpoint")


def test_a_checkpoint_of_something_else_is_refused(dataset, tmp_path):
    checkpoint = interrupted(dataset, tmp_path / "model")
    with pytest.raises(InputError, match="another configuration"):
        train(dataset, tiny(learning_rate=1e-4), resume=checkpoint)
    other = build_dataset([plate()], "nuclei", seed=5)
    with pytest.raises(InputError, match="another data set"):
        train(other, tiny(), resume=checkpoint)
    file = checkpoint / "last.ckpt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be read"):
        train(dataset, tiny(), resume=file)
    with pytest.raises(InputError, match="no checkpoint"):
        train(dataset, tiny(), resume=tmp_path / "nowhere")


def test_a_loss_that_is_not_finite_names_the_field(tmp_path):
    broken = build_dataset([plate()], "nuclei")
    culprit = broken.train[1]
    stain = broken.stain

    def with_a_hole(sample):
        pixels = stain(sample).copy()
        if sample == culprit:
            pixels[:] = np.nan
        return pixels

    broken.stain = with_a_hole
    with pytest.raises(
        InputError, match=f"target of plate P1, well {culprit.well}, site 1 .the crop around row"
    ):
        train(broken, tiny(batch_size=8), folder=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_target_beyond_all_others_is_named(tmp_path):
    broken = build_dataset([plate()], "nuclei")
    culprit, stain = broken.train[1], broken.stain
    broken.stain = lambda sample: stain(sample) * np.float32(1e30 if sample == culprit else 1)
    with pytest.raises(InputError, match=f"target of plate P1, well {culprit.well}, site 1 .*reaches"):
        train(broken, tiny(batch_size=8, losses={"mse": 1.0}))


def test_weights_that_diverge_in_the_last_step_are_not_kept(dataset, tmp_path):
    settings = {"max_steps": 1, "validations": 1, "learning_rate": 1e38, "gradient_clip": 1e30}
    with pytest.raises(InputError, match=r"diverged.*lower learning_rate"):
        train(
            dataset,
            tiny(**settings, optimiser="sgd", scheduler="constant", norm="none"),
            folder=tmp_path / "model",
        )
    assert not (tmp_path / "model").exists()


def test_a_training_from_another_model_is_not_taken_up(dataset, tmp_path):
    one, other = (train(dataset, tiny(max_steps=1, validations=1, seed=n)).model for n in (1, 2))

    def killed(sentence):
        if sentence.startswith("step 4"):
            raise KeyboardInterrupt

    folder = tmp_path / "model"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(dataset, tiny(), initial=one, folder=folder, progress=killed)
    with pytest.raises(InputError, match="of another initial model"):
        train(dataset, tiny(), initial=other, folder=folder, resume=True)


def test_a_diverging_training_is_told_to_slow_down(dataset):
    with pytest.raises(InputError, match="lower learning_rate"):
        train(dataset, tiny(learning_rate=1e30, optimiser="sgd", scheduler="constant", norm="none"))


def test_a_time_limit_ends_the_training_cooled_down(dataset):
    result = train(dataset, tiny(max_steps=100_000, validations=100_000, time_limit_s=1.5))
    assert 1.5 <= result.metrics["seconds"] < 6
    assert result.metrics["steps"] < 100_000
    assert result.history["learning_rate"].iloc[-1] < 0.2 * result.history["learning_rate"].max()


def test_training_stops_early_when_nothing_improves(dataset):
    result = train(
        dataset,
        tiny(max_steps=100, validations=50, early_stopping_patience=2, learning_rate=1e-12, norm="none"),
    )
    assert result.metrics["steps"] < 100


def test_a_result_that_exists_is_replaced(dataset, tmp_path):
    folder = tmp_path / "model"
    first = train(dataset, tiny(max_steps=2, validations=1), folder=folder)
    second = train(dataset, tiny(max_steps=2, validations=1, seed=3), folder=folder)
    assert not same_weights(first, second)
    x = torch.rand(1, 1, 16, 16)
    assert torch.equal(load_model(folder)(x), second.model(x))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_pearsons_loss_alone_leaves_arbitrary_units(dataset):
    result = train(dataset, tiny(max_steps=2, validations=1, losses={"pcc": 1.0}))
    assert result.model.config["intensity_units"] == "arbitrary"
    mixed = train(dataset, tiny(max_steps=2, validations=1, losses={"pcc": 1.0, "mae": 0.1}))
    assert mixed.model.config["intensity_units"] == "stain"


def test_settings_by_name_are_a_configuration(dataset, monkeypatch):
    class Reached(Exception):
        """Training would begin."""

    def fit(plan, checkpoint):
        raise Reached(plan.config)

    monkeypatch.setattr("cellabel.training._train._fit_in_memory", fit)
    with pytest.raises(Reached) as reached:
        train(dataset, {"max_steps": 3})
    assert reached.value.args == (TrainingConfig(max_steps=3),)
    for wrong in ({"speed": 3}, 3):
        with pytest.raises(InputError, match="training setting"):
            train(dataset, wrong)


def test_bce_needs_a_mask(dataset):
    with pytest.raises(InputError, match="binary target"):
        train(dataset, tiny(losses={"bce": 1.0}))


@pytest.mark.parametrize("optimiser", ["adam", "sgd", "adadelta"])
def test_a_mask_is_learnt_with_every_optimiser(optimiser):
    result = train(
        build_dataset([plate()], "gfp"),
        tiny(max_steps=4, validations=1, optimiser=optimiser, learning_rate=0.05),
    )
    assert result.model.binary and result.model.target_scale == 1
    assert np.isfinite(result.history["train_loss"]).all()


def test_the_operating_point_is_set_on_validation_fields_and_training_fields_where_those_are_few(dataset):
    fields = _operating_fields(dataset)
    n_validation = len(dataset.validation)
    assert n_validation < OPERATING_FIELDS
    assert [field.sample for field in fields[:n_validation]] == dataset.validation
    assert {field.sample for field in fields[n_validation:]} == set(dataset.train)
    assert not {field.sample for field in fields} & set(dataset.test)


def test_bf16_trains_too(dataset):
    result = train(dataset, tiny(max_steps=2, validations=1, precision="bf16"))
    assert result.metrics["precision"] == "bf16"
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(result).values())


def test_a_small_network_learns_what_is_plain_to_see(dataset):
    result = train(
        dataset,
        tiny(
            max_steps=120,
            base_channels=8,
            batch_size=4,
            validations=3,
            learning_rate=5e-3,
            warp_probability=0.2,
        ),
    )
    assert result.metrics["validation"]["pearson"] > 0.85
    assert result.metrics["test"]["pearson"] > 0.8


def test_the_handed_logger_hears_settings_and_losses(dataset):
    from lightning.pytorch.loggers.logger import Logger

    class Notes(Logger):
        name, version = "notes", "1"

        def __init__(self):
            super().__init__()
            self.settings, self.rows = {}, []

        def log_hyperparams(self, params, *args, **kwargs):
            self.settings.update(params)

        def log_metrics(self, metrics, step=None):
            self.rows.append((step, metrics))

    notes = Notes()
    train(dataset, tiny(max_steps=4, validations=2), logger=notes)
    assert notes.settings["base_channels"] == 4 and notes.settings["dataset"] == dataset.version
    assert [step for step, _ in notes.rows] == [2, 4] and "validation_loss" in notes.rows[0][1]


def test_importing_the_room_does_not_load_lightning():
    code = "import sys, cellabel.training; sys.exit('lightning' in sys.modules or 'mlflow' in sys.modules)"
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


def test_a_training_is_silent(dataset, capfd):
    train(dataset, tiny(max_steps=2, validations=1))
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_an_encoder_learns_to_remember_images_and_refuses_corruption(dataset):
    heard = []
    encoder = train_encoder(
        dataset, tiny(max_steps=40, base_channels=8), code_channels=8, progress=heard.append
    )
    losses = [float(sentence.split("loss ")[1]) for sentence in heard]
    assert losses[-1] < 0.7 * losses[0] and not encoder.training
    other = train_encoder(dataset, tiny(max_steps=1), kind="pooling", code_channels=8)
    assert isinstance(other, PoolingAutoencoder) and other.embedding_length == 8
    with pytest.raises(InputError, match="conv, pooling"):
        train_encoder(dataset, tiny(), kind="magic")
    with pytest.raises(InputError, match="blind"):
        train_encoder(dataset, tiny(corruption={"probability": 0.1}))


def test_a_training_can_start_from_the_weights_of_a_model(trained, dataset):
    still = train(dataset, tiny(max_steps=1, validations=1, learning_rate=1e-12), initial=trained[0].model)
    for name, tensor in trained[0].model.network.named_parameters():
        torch.testing.assert_close(
            dict(still.model.network.named_parameters())[name], tensor, atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_model_trained_on_is_averaged_with_the_one_it_started_from(trained, dataset, share):
    settings = {"max_steps": 6, "validations": 1, "learning_rate": 0.05}
    start = trained[0].model
    alone, kept = (
        weights(train(dataset, tiny(**settings, keep_initial=one), initial=start)) for one in (0.0, share)
    )
    before = start.network.state_dict()
    for name, tensor in kept.items():
        if tensor.is_floating_point():
            expected = (1 - share) * alone[name] + share * before[name]
            torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(alone[name], before[name]) for name in alone)


def test_weights_of_another_network_are_refused(trained, dataset):
    with pytest.raises(InputError, match="is not the one of this training"):
        train(dataset, tiny(base_channels=8), initial=trained[0].model)


def test_a_running_mean_of_the_weights_is_kept_where_asked_for(dataset, tmp_path):
    def averages(plain, decay):
        kept = train(dataset, tiny(max_steps=1, validations=1, ema_decay=decay))
        moved = [(weights(kept)[n] - weights(plain)[n]).abs().max().item() for n in weights(plain)]
        return max(moved)

    one_step = train(dataset, tiny(max_steps=1, validations=1))
    assert averages(one_step, 1e-9) < 1e-6 < averages(one_step, 0.999)


def test_a_killed_training_takes_its_running_mean_up_again(dataset, tmp_path):
    checkpoint = interrupted(dataset, tmp_path / "model", ema_decay=0.9)
    resumed = train(dataset, tiny(ema_decay=0.9), resume=checkpoint)
    assert same_weights(resumed, train(dataset, tiny(ema_decay=0.9)))


def test_accumulated_gradients_make_the_same_step(dataset):
    settings = {"max_steps": 3, "validations": 1, "batch_size": 5, "norm": "none", "losses": {"mse": 1.0}}
    whole, parts = train(dataset, tiny(**settings)), train(dataset, tiny(**settings, accumulation=3))
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, atol=1e-5, rtol=0)
    assert parts.metrics["steps"] == 3


def test_two_processes_share_a_step_and_end_with_the_weights_of_one(dataset, tmp_path):
    settings = {"max_steps": 4, "validations": 2, "norm": "none", "losses": {"mse": 1.0}, "batch_size": 4}
    heard = []
    one = train(dataset, tiny(**settings))
    two = train(dataset, tiny(**settings, devices=2), folder=tmp_path / "model", progress=heard.append)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(two)[name], tensor, atol=1e-5, rtol=0)
    assert [sentence.split(":")[0] for sentence in heard] == ["step 2 of 4", "step 4 of 4"]
    assert two.metrics["test"]["pearson"] == pytest.approx(one.metrics["test"]["pearson"], abs=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def narrow_memory(monkeypatch, most):
    """No more than `most` crops pass the network at once."""
    forward = UNet.forward

    def limited(self, images, *arguments, **options):
        if self.training and len(images) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return forward(self, images, *arguments, **options)

    monkeypatch.setattr(UNet, "forward", limited)


def test_out_of_memory_halves_what_passes_at_once_and_says_so(dataset, monkeypatch):
    narrow_memory(monkeypatch, 2)
    heard = []
    result = train(dataset, tiny(batch_size=8, max_steps=2, validations=1), progress=heard.append)
    assert result.metrics["accumulation"] == 4 and result.metrics["steps"] == 2
    assert "8 crops now pass the network in 2 parts" in heard[0] and "in 4 parts" in heard[1]


def test_where_not_even_one_crop_fits_the_remedy_is_named(dataset, monkeypatch):
    narrow_memory(monkeypatch, 0)
    with pytest.raises(InputError, match=r"Not even one crop of 32 px.*base_channels"):
        train(dataset, tiny())


def test_the_measured_nuclei_can_choose_the_weights(dataset):
    result = train(dataset, tiny(monitor="downstream", early_stopping_patience=4))
    errors = result.history["downstream_error"]
    assert np.isfinite(errors).all() and (errors >= 0).all()
    assert result.metrics["best_step"] == result.history["step"][errors.argmin()]


def test_pearson_can_choose_the_weights(dataset):
    result = train(dataset, tiny(monitor="pearson"))
    best = result.history["validation_pearson"].argmax()
    assert result.metrics["best_step"] == result.history["step"][best]


def test_a_perfect_prediction_has_no_downstream_error(dataset):
    class Perfect(torch.nn.Module):
        def __init__(self, fields):
            super().__init__()
            self.answers = {field.image.sum().item(): field.target for field in fields}
            self.unused = torch.nn.Parameter(torch.zeros(1))
            self.gain = 1.0

        def forward(self, images):
            return self.gain * self.answers[images.sum().item()]

    fields = validation_fields(dataset, dataset.train, 1.0)
    perfect = Perfect(fields)
    assert downstream_error(perfect, fields, dataset) == pytest.approx(0, abs=1e-6)
    perfect.gain = 1.2  # moves both intensities, but neither count nor area
    assert downstream_error(perfect, fields, dataset) == pytest.approx(np.log(1.2) / 2, rel=0.2)


def test_the_report_proves_the_split(trained):
    proof = trained[0].metrics["split_proof"]
    assert proof["problems"] == [] and proof["shared"]["train and test"]["wells"] == 0
    assert proof["sides"]["test"]["wells"] == 2


def test_jitter_noise_and_foreground_are_trained_with_and_repeat(dataset):
    settings = {"intensity_jitter": 0.2, "noise": 0.1, "foreground_share": 0.5, "max_steps": 2}
    first, again = (train(dataset, tiny(**settings, validations=1)) for _ in range(2))
    assert same_weights(first, again)
    assert not same_weights(first, train(dataset, tiny(max_steps=2, validations=1)))
