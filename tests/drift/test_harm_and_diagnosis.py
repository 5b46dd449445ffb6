import numpy as np
import pytest
from scipy import ndimage

from cellabel.drift import HarmModel, diagnose
from cellabel.drift.harm import rising
from cellabel.errors import InputError

rng = np.random.default_rng(0)


def clean_wells(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 6))


@pytest.fixture(scope="module")
def harm():
    """Losses grow with the shift along the first axis."""
    local = np.random.default_rng(1)
    shifts = np.tile([0.0, 0.5, 1.0, 2.0, 3.0, 5.0], 20)
    corrupted = local.normal(size=(120, 6))
    corrupted[:, 0] += shifts
    losses = np.clip(0.04 * shifts + local.normal(scale=0.01, size=120), 0, None)
    return HarmModel.fit(clean_wells(150, 2), corrupted, losses, delta=0.05)


def shifted(n, amount, seed):
    rows = clean_wells(n, seed)
    rows[:, 0] += amount
    return rows


def test_clean_wells_are_harmless_and_strongly_shifted_ones_harmful(harm):
    clean, bad = harm.estimate(shifted(20, 0.0, 5)), harm.estimate(shifted(20, 4.5, 6))
    assert clean.verdict == "harmless" and clean.upper <= 0.05
    assert bad.verdict == "harmful" and bad.lower > 0.05 and bad.n_harmful > 10
    assert bad.lower <= bad.expected_loss <= bad.upper
    assert bad.expected_loss == pytest.approx(0.18, abs=0.06)


def test_the_estimate_rises_with_the_shift(harm):
    losses = [harm.estimate(shifted(40, amount, 7)).expected_loss for amount in (0, 1, 2, 3, 4, 5)]
    assert losses == sorted(losses)


def test_what_resembles_nothing_that_was_tried_is_unknown(harm):
    rows = clean_wells(20, 8)
    rows[:, 3] -= 40.0
    assert harm.estimate(rows).verdict == "unknown"


def test_a_harm_model_comes_back_from_its_state(harm):
    again = HarmModel.from_state(harm.state_dict())
    assert again.estimate(np.ones(6)) == harm.estimate(np.ones(6)) and again.fingerprint == harm.fingerprint
    with pytest.raises(InputError):
        HarmModel.from_state({"axes": np.ones(2)})


@pytest.mark.parametrize(
    ("reference", "corrupted", "losses"),
    [
        (np.ones((20, 3)), np.ones((20, 3)), np.ones(20)),
        (clean_wells(20, 0), clean_wells(20, 1)[:, :4], np.ones(20)),
        (clean_wells(5, 0), clean_wells(20, 1), np.ones(20)),
        (clean_wells(20, 0), clean_wells(20, 1), np.ones(19)),
        (clean_wells(20, 0), clean_wells(20, 1), -np.ones(20)),
        (clean_wells(20, 0), clean_wells(20, 1), np.full(20, np.nan)),
    ],
)
def test_what_no_harm_can_be_learnt_from_is_refused(reference, corrupted, losses):
    with pytest.raises(InputError):
        HarmModel.fit(reference, corrupted, losses)


def test_the_rising_curve_is_the_least_squares_one():
    from scipy.optimize import isotonic_regression

    x = np.sort(rng.normal(size=40))
    y = x + rng.normal(size=40)
    np.testing.assert_allclose(rising(x, y, x), isotonic_regression(y).x, atol=1e-9)


def images(n, seed):
    local = np.random.default_rng(seed)
    fields = []
    for _ in range(n):
        texture = ndimage.gaussian_filter(local.normal(size=(64, 64)), 1.2)
        cells = ndimage.gaussian_filter((local.random((64, 64)) > 0.995).astype(float), 3)
        fields.append(
            90
            + 25 * texture / texture.std()
            + 60 * cells / cells.max()
            + local.normal(scale=2, size=(64, 64))
        )
    return [np.clip(np.rint(field), 0, 255).astype(np.uint8) for field in fields]


def embed(fields):
    """Level, spread, and energies of a few scales: what a small network would see."""
    rows = []
    for field in fields:
        values = np.asarray(field, dtype=float)
        bands = [values - ndimage.gaussian_filter(values, s) for s in (0.6, 1.0, 2.0, 4.0)]
        rows.append(
            [values.mean() / 50, values.std() / 20, *(np.log(band.std() + 0.1) * 3 for band in bands)]
        )
    return np.array(rows)


@pytest.fixture(scope="module")
def reference_images():
    return images(16, 0)


def through_the_pupil(fields):
    """Another physics than the disk that diagnosis tries: a Gaussian blur."""
    return [
        np.clip(np.rint(ndimage.gaussian_filter(f.astype(float), 0.8)), 0, 255).astype(np.uint8)
        for f in fields
    ]


def test_a_blur_of_another_physics_is_called_defocus(reference_images):
    found = diagnose(embed, reference_images, embed(through_the_pupil(images(16, 1))))
    assert found.kind == "defocus" and 2 <= found.severity <= 5 and found.confidence >= 0.8
    assert found.sentence.startswith("looks like defocus, radius ≈ ") and "severity" in found.sentence


def test_brightness_and_contrast_are_one_kind_unless_asked_apart(reference_images):
    brighter = [np.clip(f.astype(int) + 47, 0, 255).astype(np.uint8) for f in images(16, 2)]
    together = diagnose(embed, reference_images, embed(brighter))
    apart = diagnose(embed, reference_images, embed(brighter), exposure=False)
    assert together.kind == "exposure" and together.corruption == "brightness"
    assert apart.kind == "brightness" and apart.severity == 1
    for alone in ("brightness", ["brightness", "defocus"]):
        assert diagnose(embed, reference_images, embed(brighter), kinds=alone).kind == "brightness"


def test_what_no_corruption_explains_is_none_of_these(reference_images):
    striped = [np.where(np.arange(64) % 4 < 2, f, 255 - f).astype(np.uint8) for f in images(16, 3)]
    found = diagnose(embed, reference_images, embed(striped))
    assert found.kind is None and found.severity is None and "none of the known causes" in found.sentence


def test_no_shift_is_no_cause(reference_images):
    found = diagnose(embed, reference_images, embed(images(16, 4)))
    assert found.kind is None and "beyond chance" in found.sentence


def test_candidates_can_be_named_or_handed_over(reference_images):
    doubled = [np.clip(f.astype(int) * 2, 0, 255).astype(np.uint8) for f in images(16, 5)]
    only_blur = diagnose(embed, reference_images, embed(doubled), kinds=["defocus"])
    assert only_blur.kind is None
    own = {
        "gain": lambda image, severity: np.clip(image * (1 + severity / 3), 0, 255),
        "shadow": {2.0: lambda image: image * np.linspace(0.2, 1, 64)},
    }
    found = diagnose(embed, reference_images, embed(doubled), kinds=own)
    assert found.kind == "gain" and found.severity == 3 and found.sentence == "looks like gain (severity 3)"


def test_an_alternative_that_comes_closest_is_named_but_is_no_kind(reference_images):
    def inverted(image):
        return 255 - image

    new = embed([inverted(f) for f in images(16, 7)])
    found = diagnose(embed, reference_images, new, alternatives={"an inverted camera": inverted})
    assert found.kind is None and found.severity is None and found.unexplained < 0.2
    assert "none of the known causes: an inverted camera comes closest" in found.sentence
    blurred = embed(through_the_pupil(images(16, 8)))
    found = diagnose(embed, reference_images, blurred, alternatives={"an inverted camera": inverted})
    assert found.kind == "defocus", "where the alternative explains less it changes nothing"


def test_every_kind_tells_what_it_leaves_unexplained(reference_images):
    found = diagnose(embed, reference_images, embed(through_the_pupil(images(16, 9))))
    assert set(found.left) == {"defocus", "exposure"}
    assert found.left["defocus"] == found.unexplained < found.left["exposure"]
    assert diagnose(embed, reference_images, embed(images(16, 10))).left == {}


def test_what_cannot_be_diagnosed_is_refused(reference_images):
    new = embed(images(8, 6))
    for arguments, options in [
        ((embed, reference_images[:3], new), {}),
        ((embed, reference_images, new[:2]), {}),
        ((embed, reference_images, new[:, :3]), {}),
        ((embed, reference_images, new), {"kinds": ["fog"]}),
        ((lambda fields: embed(fields)[:5], reference_images, new), {}),
    ]:
        with pytest.raises(InputError):
            diagnose(*arguments, **options)
