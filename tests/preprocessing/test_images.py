import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.filters import threshold_li, threshold_otsu, threshold_triangle

from cellabel.errors import InputError
from cellabel.preprocessing import (
    background_and_noise,
    global_threshold,
    local_threshold,
    normalise,
    prepare_input,
    project,
    require_image,
)

images = arrays(np.uint16, (24, 31), elements=st.integers(0, 4000))


@pytest.fixture
def field():
    rng = np.random.default_rng(0)
    image = rng.normal(200, 6, (96, 128))
    image[20:40, 30:60] += 400
    return image.astype(np.uint16)


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (np.zeros((4, 4, 3)), "project the z-steps"),
        (np.zeros((0, 4)), "shape"),
        ([[1, 2], [3]], "several lengths"),
        (np.array([["a"]]), "type"),
        (np.full((4, 4), np.nan), "16 of 16"),
        (np.array([[0.0, np.inf]]), "infinite"),
    ],
)
def test_what_is_no_image_is_refused_with_a_remedy(image, word):
    with pytest.raises(InputError, match=word):
        require_image(image)
    with pytest.raises(InputError):
        prepare_input(image)


@settings(max_examples=40, deadline=None)
@given(image=images, gain=st.sampled_from([0.25, 2.0, 8.0]), offset=st.sampled_from([0.0, 512.0]))
def test_the_input_forgets_the_lamp_and_is_never_nan(image, gain, offset):
    prepared = prepare_input(image)
    assert prepared.dtype == np.float32 and prepared.shape == image.shape
    assert np.isfinite(prepared).all()
    np.testing.assert_allclose(prepare_input(image * gain), prepared, atol=1e-4)


def test_the_input_of_a_constant_image_is_zero(field):
    assert not prepare_input(np.full((8, 8), 77, np.uint8)).any()
    assert abs(np.median(prepare_input(field))) < 1e-6


def test_the_noise_of_a_blank_well_is_not_blown_up_to_the_size_of_cells():
    blank = np.random.default_rng(1).normal(1000, 1, (64, 64))
    assert np.abs(prepare_input(blank)).max() < 1


def test_percentiles_become_zero_and_one(field):
    scaled = normalise(field, lower=0, upper=100)
    assert scaled.min() == 0 and scaled.max() == 1
    assert np.median(normalise(field, "robust_z")) == pytest.approx(0, abs=1e-6)
    assert not normalise(np.ones((5, 5))).any()
    with pytest.raises(InputError, match="robust_z"):
        normalise(field, "other")
    with pytest.raises(InputError, match="out of order"):
        normalise(field, lower=9, upper=3)


def test_background_is_the_level_and_spread_of_the_noise_whatever_lies_on_it(field):
    for image in (field, field.astype(np.float64)):
        level, noise = background_and_noise(image)
        assert level == pytest.approx(200, abs=2)
        assert noise == pytest.approx(6, rel=0.25)
    assert background_and_noise(np.full((6, 6), 9)) == (9, 0)


@pytest.mark.parametrize(
    ("method", "oracle"), [("otsu", threshold_otsu), ("li", threshold_li), ("triangle", threshold_triangle)]
)
def test_global_thresholds_agree_with_scikit_image(field, method, oracle):
    ours, theirs = global_threshold(field, method), oracle(field)
    assert ((field > ours) != (field > theirs)).mean() < 0.02


def test_the_mean_threshold_is_the_mean_and_a_constant_has_nothing_above_it(field):
    assert global_threshold(field, "mean") == pytest.approx(field.mean())
    for method in ("otsu", "mean", "li", "triangle"):
        assert global_threshold(np.full((5, 5), 3.0), method) == 3.0
    with pytest.raises(InputError, match="otsu"):
        global_threshold(field, "yen")


def test_local_thresholds_follow_the_neighbourhood(field):
    for method in ("mean", "gaussian", "midrange"):
        level = local_threshold(field, 21, method=method)
        assert level.shape == field.shape and level[30, 45] > level[80, 100]
    assert (local_threshold(field, 11, offset=5) == local_threshold(field, 11) - 5).all()
    with pytest.raises(InputError, match="median"):
        local_threshold(field, 11, method="median")
    with pytest.raises(InputError, match="no pixel"):
        local_threshold(field, 0)


def test_projections_take_the_planes_they_name():
    rng = np.random.default_rng(2)
    stack = rng.integers(0, 99, (3, 20, 30)).astype(np.uint16)
    np.testing.assert_array_equal(project(stack), stack.max(0))
    np.testing.assert_allclose(project(stack, "mean"), stack.mean(0), rtol=1e-6)
    np.testing.assert_array_equal(project(stack, "middle"), stack[1])
    flat = np.full((2, 20, 30), 50.0)
    flat[1] = stack[1]
    np.testing.assert_array_equal(project(flat, "focus"), flat[1])
    with pytest.raises(InputError, match="planes"):
        project(stack[0])
    with pytest.raises(InputError, match="focus"):
        project(stack, "min")
    with pytest.raises(InputError, match="NaN"):
        project(np.full((2, 3, 3), np.nan))
