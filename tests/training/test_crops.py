import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel import InputError
from cellabel.corruptions import corrupt, depth_of_severity, interference_defocus
from cellabel.datasets import FieldSample
from cellabel.preprocessing import prepare_input
from cellabel.training import CorruptionAugmentation, TrainingConfig
from cellabel.training._crops import SIDES, CropSampler, Turn, cut, draw_turn, jittered


class Fields:
    """Two fields as a data set would give them; the target is the input, so that crops can be compared."""

    target_scale = 4.0

    def __init__(self, shape=(90, 110), dtype=np.uint16):
        rng = np.random.default_rng(0)
        self.train = [FieldSample("P", "A01", 1), FieldSample("P", "A02", 1)]
        top = np.iinfo(dtype).max
        self.raws = {s: (rng.random(shape) * top * 0.6 + 0.1 * top).astype(dtype) for s in self.train}
        self.images = {s: prepare_input(raw) for s, raw in self.raws.items()}
        self.prepared = []

    def raw(self, sample):
        return self.raws[sample]

    def raw_pixel_size_um(self, sample):
        return 0.65

    def image(self, sample):
        return self.images[sample]

    def stain(self, sample):
        return self.images[sample]

    def prepare(self, sample, raw):
        self.prepared.append(sample)
        return prepare_input(raw)


def config(**changes):
    return TrainingConfig(**({"crop_size": 32, "batch_size": 6} | changes))


@given(
    st.floats(-math.pi, math.pi),
    st.floats(0.3, 3),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.tuples(st.integers(40, 120), st.integers(40, 120)),
    st.booleans(),
    st.integers(0, 3),
)
@settings(max_examples=300, deadline=None)
def test_no_pixel_from_outside_the_field_reaches_a_crop(angle, scale, position, shape, transpose, quarters):
    image = np.ones(shape, np.float32)
    crop = cut(image, 32, Turn(transpose, quarters, False, angle, scale), np.array(position))
    assert crop.shape == (32, 32)
    # a pixel from outside would be NaN, and part of one would dim what it is mixed with
    np.testing.assert_allclose(crop, 1, atol=1e-5)


def test_a_rotated_crop_shows_what_lies_there():
    y, x = np.mgrid[:200, :240].astype(np.float64)
    image = (np.sin(x / 9) + np.cos(y / 11)).astype(np.float32)
    turn = Turn(angle=0.3, scale=1.2)
    crop = cut(image, 64, turn, np.array([0.3, 0.7]))
    steps = np.arange(64) - 31.5
    v, u = np.meshgrid(steps, steps, indexing="ij")
    best = np.inf
    reach = 31.5 * (math.cos(0.3) + math.sin(0.3)) / 1.2 + 2.5
    cy, cx = reach + 0.3 * (199 - 2 * reach), reach + 0.7 * (239 - 2 * reach)
    xs = cx + (math.cos(0.3) * u - math.sin(0.3) * v) / 1.2
    ys = cy + (math.sin(0.3) * u + math.cos(0.3) * v) / 1.2
    best = np.abs(crop - (np.sin(xs / 9) + np.cos(ys / 11))).max()
    assert best < 0.02


def test_a_field_too_small_to_rotate_in_is_cut_straight():
    image = np.arange(34 * 34, dtype=np.float32).reshape(34, 34)
    crop = cut(image, 32, Turn(angle=0.5), np.array([0.0, 0.99]))
    np.testing.assert_array_equal(crop, image[:32, 2:])


def relief(shear, height):
    """DIC of a round bump: the slope along the shear axis."""
    y, x = np.mgrid[-32:33, -32:33].astype(np.float32)
    phase = height * np.exp(-((y - 3) ** 2 + (x + 8) ** 2) / 60) + height * np.exp(
        -((y + 9) ** 2 + x**2) / 30
    )
    slopes = np.gradient(phase)
    return (slopes[0] + slopes[1] * (1 if shear == 45 else -1)).astype(np.float32), phase


@pytest.mark.parametrize("shear", [45, 135])
def test_every_dic_turn_is_an_image_that_the_microscope_makes(shear):
    image, phase = relief(shear, 5.0)
    drawn = set()
    for seed in range(40):
        settings_ = config(shear_axis_degrees=shear, warp_probability=0)
        turn = draw_turn(settings_, np.random.default_rng(seed))
        drawn.add((turn.transpose, turn.quarters, turn.invert))
        where = np.zeros(2)
        turned, sample = cut(image, 65, turn, where), cut(phase, 65, turn, where)
        slopes = np.gradient(sample)
        expected = slopes[0] + slopes[1] * (1 if shear == 45 else -1)
        np.testing.assert_allclose(-turned if turn.invert else turned, expected, atol=1e-4)
    assert len(drawn) == 4


def test_dic_is_rotated_a_little_and_other_light_at_will():
    rngs = [np.random.default_rng(seed) for seed in range(200)]
    dic = [draw_turn(config(warp_probability=1), rng) for rng in rngs]
    free = [draw_turn(config(warp_probability=1, modality="other"), rng) for rng in rngs]
    assert 4 < math.degrees(max(abs(t.angle) for t in dic)) <= 5
    assert math.degrees(max(abs(t.angle) for t in free)) > 150
    assert all(0.9 <= t.scale <= 1.1 for t in dic + free)
    assert {t.quarters for t in free} == {0, 1, 2, 3} and not any(t.invert for t in free)


def test_a_batch_is_a_function_of_seed_and_step():
    first, second = CropSampler(Fields(), config()), CropSampler(Fields(), config())
    second.batch(3)
    one, same, other = first.batch(7), second.batch(7), CropSampler(Fields(), config(seed=1)).batch(7)
    assert np.array_equal(one.images, same.images) and one.samples == same.samples
    assert not np.array_equal(one.images, other.images)
    assert not np.array_equal(one.images, first.batch(8).images)


def test_input_and_target_are_cut_alike_and_the_target_is_scaled():
    batch = CropSampler(Fields(), config(modality="other", batch_size=40)).batch(0)
    np.testing.assert_allclose(batch.targets.numpy() * 4.0, batch.images.numpy(), atol=1e-5)
    assert set(batch.samples) == set(Fields().train)


def test_without_augmentation_crops_are_windows():
    fields = Fields()
    batch = CropSampler(fields, config(augment=False, batch_size=3)).batch(0)
    for image, sample in zip(batch.images[:, 0].numpy(), batch.samples, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(fields.images[sample], (32, 32))
        assert (windows[..., 0, 0] == image[0, 0]).any()


def test_a_part_of_a_step_is_that_part_of_the_whole():
    sampler = CropSampler(Fields(), config())
    whole, part = sampler.batch(5), sampler.batch(5, range(2, 4))
    assert torch.equal(part.images, whole.images[2:4]) and part.samples == whole.samples[2:4]
    assert part.share == pytest.approx(1 / 3) and whole.share == 1


def test_crops_look_for_the_stain_where_asked_to():
    fields = Fields((320, 320))
    stain = np.zeros((320, 320), np.float32)
    stain[200:260, 40:100] = 1
    fields.stain = lambda sample: stain
    plain = CropSampler(fields, config(batch_size=64)).batch(0)
    asked = CropSampler(fields, config(batch_size=64, foreground_share=1.0)).batch(0)
    assert asked.targets.mean() > 2 * plain.targets.mean() > 0
    filled = [row for row, target in enumerate(asked.targets) if target.max() > 0]
    for row, column in (asked.centres[index] for index in filled):
        assert 170 < row < 290 and 10 < column < 130


def test_a_field_without_stain_is_cropped_anywhere():
    fields = Fields((320, 320))
    fields.stain = lambda sample: np.zeros((320, 320), np.float32)
    batch = CropSampler(fields, config(foreground_share=1.0)).batch(0)
    assert len(set(batch.centres)) > 3


def test_jitter_changes_gain_and_offset_of_each_crop_and_noise_is_added():
    sampler = CropSampler(Fields(), config(intensity_jitter=0.2, noise=0.3, batch_size=40))
    batch = sampler.batch(0)
    gain, offset, noise = batch.jitter.T
    assert 0.8 < gain.min() < 0.9 < 1.1 < gain.max() < 1.23 and offset.abs().max() <= 0.2
    assert noise.min() >= 0 and 0.2 < noise.max() <= 0.3
    images = jittered(batch)
    rest = images - (batch.images * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1))
    torch.testing.assert_close(rest.std((1, 2, 3)), noise, rtol=0.15, atol=1e-4)
    assert torch.equal(images, jittered(sampler.batch(0)))
    assert images.stride() == batch.images.stride()  # convolutions are slower in another layout
    still = CropSampler(Fields(), config()).batch(0)
    torch.testing.assert_close(jittered(still), still.images)


def test_a_crop_larger_than_the_field_is_refused_with_the_field():
    with pytest.raises(InputError, match=r"well A0.*crop_size"):
        CropSampler(Fields((20, 200)), config()).batch(0)


def corruption(**changes):
    settings_ = {"probability": 1.0, "kinds": ("defocus",), "severities": (5,)} | changes
    return config(corruption=CorruptionAugmentation(**settings_), augment=False, batch_size=8)


def test_corruption_acts_on_the_raw_field_before_the_input_is_prepared():
    fields = Fields()
    batch = CropSampler(fields, corruption()).batch(0)
    for image, target, sample in zip(batch.images, batch.targets, batch.samples, strict=True):
        blurred = prepare_input(corrupt(fields.raws[sample], "defocus", 5))
        windows = np.lib.stride_tricks.sliding_window_view(blurred, (32, 32))
        assert (windows[..., 0, 0] == image[0, 0, 0].item()).any()
        clean = np.lib.stride_tricks.sliding_window_view(fields.images[sample], (32, 32))
        assert np.isclose(clean[..., 0, 0], target[0, 0, 0].item() * 4, atol=1e-6).any()


@pytest.mark.parametrize(("modality", "axis"), [("dic", 45), ("dic", 135), ("other", 45)])
def test_a_defocused_field_of_dic_is_out_of_focus_as_its_optics_show_it(modality, axis):
    fields, optics = Fields(), {"pixel_size_um": 0.65, "numerical_aperture": 0.45}
    depth = depth_of_severity(5, **optics)
    known = {}
    for sample, raw in fields.raws.items():
        for side in SIDES:
            moved = interference_defocus(raw, side * depth, shear_axis_degrees=axis, **optics)
            image = prepare_input(moved if side else corrupt(raw, "defocus", 5))
            known[sample, side] = np.lib.stride_tricks.sliding_window_view(image, (32, 32))[..., 0, 0]
    settings_ = CorruptionAugmentation(
        probability=1.0, kinds=("defocus",), severities=(5,), numerical_aperture=0.45
    )
    changes = {"modality": modality, "shear_axis_degrees": axis, "augment": False, "batch_size": 32}
    batch = CropSampler(fields, config(corruption=settings_, **changes)).batch(0)
    seen = {
        side
        for image, sample in zip(batch.images, batch.samples, strict=True)
        for side in SIDES
        if (known[sample, side] == image[0, 0, 0].item()).any()
    }
    assert seen == (set(SIDES) if modality == "dic" else {0.0})


def test_a_corrupted_field_is_prepared_once_and_a_share_stays_clean():
    fields = Fields()
    sampler = CropSampler(fields, corruption(severities=(4, 5), probability=0.5))
    clean = 0
    for step in range(20):
        batch = sampler.batch(step)
        clean += sum(
            np.allclose(i, 4 * t, atol=1e-5) for i, t in zip(batch.images, batch.targets, strict=True)
        )
    assert len(fields.prepared) == 4
    assert 50 < clean < 110


def test_what_corruption_destroys_is_not_trained_on():
    fields = Fields(dtype=np.uint8)
    sampler = CropSampler(fields, corruption(kinds=("contrast",), severities=(-5,)))
    batch = sampler.batch(0)
    assert not fields.prepared
    np.testing.assert_allclose(batch.images.numpy(), 4 * batch.targets.numpy(), atol=1e-5)


def test_severities_that_a_kind_does_not_know_are_left_to_the_others():
    both = CorruptionAugmentation(probability=0.5, kinds=("defocus", "contrast"), severities=(-2, 0, 3))
    assert both.cases() == {"defocus": [3], "contrast": [-2, 3]}
    assert CorruptionAugmentation(kinds=("defocus",), severities=(-2,)).cases() == {}


def test_a_field_of_floats_needs_the_instruments_range():
    fields = Fields()
    fields.raws = {s: raw / 65535 for s, raw in fields.raws.items()}
    with pytest.raises(InputError, match="full_scale"):
        CropSampler(fields, corruption()).batch(0)
    CropSampler(fields, corruption(full_scale=1.0)).batch(0)


@pytest.mark.parametrize(
    "values",
    [
        {"max_steps": 0},
        {"optimiser": "magic"},
        {"scale_range": (1.2, 0.8)},
        {"widths": 3},
        {"corruption": {"kinds": ["fog"]}},
        {"corruption": {"probability": 2}},
        {"shear_axis_degrees": 30},
        {"batch_size": 3, "devices": 2, "accumulation": 2},
    ],
)
def test_a_wrong_setting_is_told_in_one_sentence(values):
    with pytest.raises(InputError, match=r"^(The|There is no) training setting [^\n]+\.$"):
        TrainingConfig(**values)
    with pytest.raises(InputError):
        TrainingConfig.model_validate(values)


def test_every_setting_is_described():
    for model in (TrainingConfig, CorruptionAugmentation):
        assert all(field.description for field in model.model_fields.values())


def test_epochs_count_crops():
    assert TrainingConfig(epochs=2, crops_per_field=64, batch_size=8).steps(10) == 160
    assert TrainingConfig(max_steps=7).steps(10) == 7


def test_settings_survive_json():
    made = TrainingConfig(corruption={"probability": 0.3, "kinds": ["defocus"]}, losses={"mae": 1})
    assert TrainingConfig.model_validate_json(made.model_dump_json()) == made
    assert SimpleNamespace(**made.model_dump()).corruption["probability"] == 0.3
