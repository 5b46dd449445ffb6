import dataclasses

import numpy as np
import pytest

from cellabel.errors import InputError
from cellabel.organelles import ORGANELLES, Step
from cellabel.preprocessing import binary_mask, clip_intensities, in_pixels, prepare_target


def stain(height=800.0, radius=8.0, background=150.0, noise=4.0, seed=0, shape=(200, 220)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = background + 0.02 * x + np.random.default_rng(seed).normal(0, noise, shape)
    for cy, cx in ((50, 50), (60, 150), (150, 90)):
        image += height / (1 + np.exp(np.hypot(y - cy, x - cx) - radius))
    return np.clip(np.rint(image), 0, 65535).astype(np.uint16)


@pytest.mark.parametrize("name", list(ORGANELLES))
def test_targets_are_finite_never_negative_and_empty_where_nothing_is(name):
    target = prepare_target(stain(), name)
    assert target.dtype == np.float32 and target.shape == (200, 220)
    assert np.isfinite(target).all() and target.min() >= 0 and target.max() > 0
    empty = prepare_target(np.random.default_rng(2).normal(150, 4, (200, 220)), name)
    assert (empty > 0).mean() < 0.005
    assert not prepare_target(np.full((30, 30), 12, np.uint8), name).any()


def test_intensities_stay_in_the_stains_units_above_the_background():
    target = prepare_target(stain(), "nuclei")
    assert target[50, 50] == pytest.approx(800, rel=0.05)
    assert (target[100:120, 180:200] == 0).mean() > 0.9


def test_twice_the_stain_is_twice_the_target_and_another_cell_does_not_change_it():
    one, two = prepare_target(stain(400.0), "nuclei"), prepare_target(stain(800.0), "nuclei")
    assert two[50, 50] / one[50, 50] == pytest.approx(2, rel=0.03)
    brighter = stain(400.0).astype(float)
    brighter[140:160, 80:100] *= 20
    assert prepare_target(brighter, "nuclei")[50, 50] == pytest.approx(one[50, 50], rel=0.03)


def test_the_gfp_mask_is_zero_or_one_and_keeps_the_dim_cell_beside_the_bright_one():
    image = stain(4_000.0).astype(float)
    image[20:30, 180:190] += 300
    target = prepare_target(image, "gfp")
    assert set(np.unique(target)) == {0.0, 1.0}
    assert target[50, 50] == 1 and target[25, 185] == 1
    np.testing.assert_array_equal(binary_mask(target), target)
    brighter = stain(40_000.0).astype(np.float32)
    brighter[20:30, 180:190] += 100
    assert binary_mask(brighter)[25, 185] == 1  # the noise alone decides where it is not told otherwise
    assert binary_mask(brighter, above_mean=True)[25, 185] == 0


def test_an_absolute_threshold_from_parental_wells_overrides_the_noise():
    assert binary_mask(stain().astype(np.float32), threshold=1e5).sum() == 0


def test_clipping_sets_the_floor_to_zero_and_the_ceiling_to_itself():
    np.testing.assert_array_equal(
        clip_intensities(np.array([[1, 5, 9]], np.float32), low=2, high=7), [[0, 5, 7]]
    )


def test_lengths_and_areas_become_pixels():
    turned = in_pixels({"radius_um": 1.3, "area_um2": 4.225, "share": 0.5}, 0.65)
    assert turned == pytest.approx({"radius": 2.0, "area": 10.0, "share": 0.5})
    assert in_pixels({"radius_um": 1.3}, None) == pytest.approx({"radius": 2.0})
    with pytest.raises(InputError, match="pixel size"):
        in_pixels({}, 0.0)


def test_bad_images_and_unknown_steps_are_refused():
    with pytest.raises(InputError, match="NaN"):
        prepare_target(np.full((9, 9), np.nan), "er")
    broken = dataclasses.replace(ORGANELLES["er"], preprocessing=(Step("sharpen"),))
    with pytest.raises(InputError, match="sharpen"):
        prepare_target(stain(), broken)


def test_negative_values_are_allowed():
    shifted = stain().astype(np.float32) - 1000
    np.testing.assert_allclose(prepare_target(shifted, "nuclei"), prepare_target(stain(), "nuclei"), atol=2)


@pytest.mark.parametrize("name", list(ORGANELLES))
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 60)])
def test_an_image_smaller_than_every_structuring_element_has_a_target(name, shape):
    target = prepare_target(np.arange(np.prod(shape), dtype=np.uint16).reshape(shape), name)
    assert target.shape == shape and np.isfinite(target).all()
