"""Light by photons: how it scales, scatters and saturates."""

import numpy as np
import pytest

from cellabel import InputError
from cellabel.corruptions import exposure

FLAT = np.full((200, 200), 20_000, np.uint16)


def test_less_light_scales_the_mean_and_leaves_the_shot_noise_of_binomial_thinning():
    thin = exposure(FLAT, 0.25).astype(float)
    assert thin.mean() == pytest.approx(5000, rel=1e-3)
    oracle = np.random.default_rng(1).binomial(20_000, 0.25, FLAT.shape)
    assert thin.std() == pytest.approx(oracle.std(), rel=0.03)


def test_noise_follows_the_instruments_range_so_that_8_bits_are_as_clean_as_16():
    deep = exposure(FLAT.astype(float), 0.3, full_scale=65_535)
    shallow = exposure(FLAT / 257.0, 0.3, full_scale=255)
    np.testing.assert_allclose(shallow * 257, deep)


def test_more_light_saturates_and_adds_no_noise():
    bright = exposure(np.array([[10_000, 40_000]], np.uint16), 2.0)
    assert bright.tolist() == [[20_000, 65_535]] and bright.dtype == np.uint16


def test_the_same_light_changes_nothing():
    np.testing.assert_array_equal(exposure(FLAT, 1.0), FLAT)


@pytest.mark.parametrize("share", [0, -1.0, float("nan")])
def test_no_light_is_refused(share):
    with pytest.raises(InputError, match="share of"):
        exposure(FLAT, share)


def test_pixels_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match="NaN or infinite"):
        exposure(np.full((4, 4), np.nan), 0.5, full_scale=1.0)
