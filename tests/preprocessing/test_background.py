import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.morphology import disk as skimage_disk
from skimage.morphology import opening as skimage_opening
from skimage.morphology import white_tophat as skimage_tophat
from skimage.restoration import rolling_ball as skimage_ball

from cellabel.errors import InputError
from cellabel.preprocessing import (
    correct_flat_field,
    disk,
    flat_field,
    opening,
    rolling_ball,
    subtract_background,
    white_tophat,
)


def cells(shape=(160, 200), seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = 300 + 0.6 * x + rng.normal(0, 5, shape)
    for _ in range(14):
        cy, cx, r = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(4, 9)
        image += 900 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * r**2))
    return image.astype(np.uint16)


@settings(max_examples=30, deadline=None)
@given(image=arrays(np.uint8, (17, 23)), radius=st.integers(0, 30))
def test_the_opening_equals_scikit_images_for_every_radius(image, radius):
    np.testing.assert_array_equal(opening(image, radius), skimage_opening(image, skimage_disk(radius)))


def test_the_top_hat_equals_scikit_images_and_keeps_the_type():
    image = cells()
    for radius in (1, 4, 11):
        np.testing.assert_array_equal(
            white_tophat(image, radius), skimage_tophat(image, skimage_disk(radius))
        )
    assert white_tophat(image, 5).dtype == np.uint16
    assert white_tophat(image.astype(float) - 500, 5).min() >= 0


def test_an_image_smaller_than_the_structuring_element_is_flattened_not_refused():
    image = np.arange(12, dtype=np.uint16).reshape(3, 4)
    np.testing.assert_array_equal(white_tophat(image, 50), image)
    assert rolling_ball(image, 50).shape == (3, 4)


@pytest.mark.parametrize("radius", [5, 20, 50])
def test_the_rolling_ball_is_within_two_percent_of_scikit_images(radius):
    image = cells()
    for given_image in (image, (image // 8).astype(np.uint8), image.astype(np.float32)):
        reference = skimage_ball(given_image, radius=radius).astype(float)
        error = np.abs(rolling_ball(given_image, radius) - reference) / np.ptp(given_image.astype(float))
        assert np.percentile(error, 99) <= 0.02


@pytest.mark.parametrize(("height", "tolerance"), [(1, 1e-5), (5, 1e-5), (10, 0.02), (60, 0.02)])
@pytest.mark.parametrize("radius", [26, 50])
def test_a_ball_that_is_large_against_the_images_range_is_as_right(radius, height, tolerance):
    image = cells((120, 140)).astype(np.float32)
    image = (image - image.min()) / np.ptp(image) * height
    error = np.abs(rolling_ball(image, radius) - skimage_ball(image, radius=radius)) / height
    assert np.percentile(error, 99) <= tolerance


def test_a_small_ball_is_exact():
    image = cells((40, 50)).astype(np.float64)
    np.testing.assert_allclose(rolling_ball(image, 7), skimage_ball(image, radius=7), rtol=1e-6)


def test_no_radius_is_refused():
    for operation in (white_tophat, rolling_ball, subtract_background, opening):
        with pytest.raises(InputError, match="radius"):
            operation(np.ones((5, 5)), -1)
        for radius in ("3", None):
            with pytest.raises(InputError, match="is no radius"):
                operation(np.ones((5, 5)), radius)


def test_the_disk_is_the_same_after_a_turn():
    for radius in (0, 1, 1.4, 2.5, 7):
        np.testing.assert_array_equal(disk(radius), np.rot90(disk(radius)))


def test_subtracting_the_background_takes_the_tilt_and_the_offset():
    x = np.mgrid[:200, :200][1]
    image = 500 + 0.1 * x + np.random.default_rng(1).normal(0, 4, x.shape)
    left = subtract_background(image, 40)
    assert abs(np.median(left)) < 4
    assert abs(np.median(left[:, 150:]) - np.median(left[:, :50])) < 5


def test_the_gain_is_found_under_the_cells_of_a_plates_own_fields():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:120, :150] / 150 - 0.5
    gain = 1 - 0.5 * (x**2 + y**2) + 0.1 * x
    gain /= gain.mean()
    fields = []
    for _ in range(12):
        image = np.full(gain.shape, 400.0)
        for _ in range(12):
            cy, cx = rng.uniform(-0.4, 0.4), rng.uniform(-0.5, 0.5)
            image += 1500 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 0.03**2))
        fields.append(image * gain * rng.uniform(0.8, 1.2) + rng.normal(0, 4, gain.shape))
    found = flat_field(fields)
    assert found.mean() == pytest.approx(1, abs=1e-4)
    assert np.abs(found / gain - 1).max() < 0.03
    flat = correct_flat_field(400 * gain, found)
    assert flat.std() / flat.mean() < 0.01


def test_the_gain_of_even_light_is_one():
    fields = [np.random.default_rng(s).normal(100, 1, (40, 70)) for s in range(4)]
    assert np.abs(flat_field(fields) - 1).max() < 0.02


def test_fields_without_light_are_left_out_and_never_alone():
    lit = [np.random.default_rng(s).normal(100, 1, (40, 70)) for s in range(3)]
    black = np.zeros((40, 70))
    np.testing.assert_array_equal(flat_field([black, *lit, black]), flat_field(lit))
    for fields in ([black] * 5, [black - 50] * 4, [*lit[:2], black]):
        with pytest.raises(InputError, match="at least 3 fields brighter"):
            flat_field(fields)
    with pytest.raises(InputError, match="brighter than 120"):
        flat_field(lit, dark=120.0)


def test_too_few_or_unlike_fields_are_refused():
    with pytest.raises(InputError, match="at least 3"):
        flat_field([np.ones((5, 5))] * 2)
    with pytest.raises(InputError, match="not None"):
        flat_field(None)
    with pytest.raises(InputError, match="one shape"):
        flat_field([np.ones((5, 5))] * 2 + [np.ones((5, 6))])
    with pytest.raises(InputError, match="gain"):
        correct_flat_field(np.ones((4, 4)), np.ones((4, 5)))
    with pytest.raises(InputError, match="positive"):
        correct_flat_field(np.ones((4, 4)), np.zeros((4, 4)))
