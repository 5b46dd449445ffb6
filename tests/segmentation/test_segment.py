import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel.errors import InputError
from cellabel.organelles import ORGANELLES, Step
from cellabel.preprocessing import prepare_target
from cellabel.segmentation import clear_border, core_share, segment


def nuclei(seed=0, count=9, shape=(150, 170), noise=4.0, radius=9.0):
    """Round nuclei well inside the field, some of which touch; and their true number."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for _ in range(count):
        cy, cx = rng.uniform(30, shape[0] - 30), rng.uniform(30, shape[1] - 30)
        height, wide = rng.uniform(500, 1100), rng.uniform(0.8, 1.2) * radius
        image = np.maximum(image, height / (1 + np.exp((np.hypot(y - cy, x - cx) - wide) / 0.8)))
    return np.rint(image + 100 + rng.normal(0, noise, shape)).astype(np.uint16)


def two(distance, radius=10.0):
    y, x = np.mgrid[:80, :100]
    image = np.zeros((80, 100))
    for cx in (50 - distance / 2, 50 + distance / 2):
        image = np.maximum(image, 800 / (1 + np.exp(np.hypot(y - 40, x - cx) - radius)))
    return image + np.random.default_rng(1).normal(100, 5, image.shape)


def same_objects(one, other):
    """Whether two label images show the same objects under other numbers."""
    if not np.array_equal(one > 0, other > 0):
        return False
    pairs = np.unique(np.stack([one[one > 0], other[other > 0]]), axis=1)
    return pairs.shape[1] == one.max() == other.max()


@pytest.mark.parametrize("name", list(ORGANELLES))
def test_labels_are_whole_numbers_from_one_without_gaps(name):
    labels = segment(nuclei(), name)
    assert labels.dtype == np.int32 and labels.shape == (150, 170)
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))


@pytest.mark.parametrize("name", list(ORGANELLES))
@pytest.mark.parametrize(
    "empty",
    [
        np.zeros((64, 64), np.float32),
        np.full((64, 64), 700, np.uint16),
        np.random.default_rng(0).normal(100, 5, (256, 256)),
        np.random.default_rng(1).poisson(100, (256, 256)).astype(np.uint16),
        np.random.default_rng(2).poisson(1, (256, 256)).astype(np.uint8),
        np.random.default_rng(3).normal(-5, 1e-6, (100, 100)),
    ],
    ids=["zero", "constant", "normal", "poisson", "8 bit", "tiny"],
)
def test_an_empty_field_has_no_objects(name, empty):
    assert segment(empty, name).max() == 0


def test_one_nucleus_is_one_object_of_about_its_area():
    labels = segment(two(0))
    assert labels.max() == 1
    assert (labels > 0).sum() == pytest.approx(np.pi * 10**2, rel=0.15)


def test_touching_nuclei_are_split_and_overlapping_ones_at_their_waist():
    assert segment(two(19)).max() == 2
    labels = segment(two(16))
    assert labels.max() == 2
    areas = np.bincount(labels.ravel())[1:]
    assert areas.min() > 0.8 * areas.max()
    assert abs(np.argwhere(labels == labels[40, 38])[:, 1].max() - 49) <= 3


def test_a_nucleus_is_not_split_by_its_texture():
    image = two(0)
    texture = np.random.default_rng(4).normal(0, 60, image.shape)
    assert segment(image + texture * (image > 400)).max() == 1


def test_every_object_is_connected():
    import cv2

    labels = segment(nuclei(seed=5, count=25))
    for number in range(1, labels.max() + 1):
        assert cv2.connectedComponents((labels == number).astype(np.uint8), connectivity=8)[0] == 2


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), turns=st.integers(1, 3), count=st.integers(0, 20))
def test_a_turned_image_has_turned_labels(seed, turns, count):
    image = nuclei(seed, count)
    assert same_objects(segment(np.rot90(image, turns).copy()), np.rot90(segment(image), turns))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), down=st.integers(-20, 20), right=st.integers(-20, 20))
def test_a_moved_image_has_moved_labels(seed, down, right):
    image = nuclei(seed)
    image[:22] = image[-22:] = image[:, :22] = image[:, -22:] = 100
    moved = np.roll(image, (down, right), (0, 1))
    assert same_objects(segment(moved), np.roll(segment(image), (down, right), (0, 1)))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000), gain=st.sampled_from([0.01, 0.5, 3.0, 64.0]), offset=st.integers(-3000, 3000)
)
def test_neither_offset_nor_gain_changes_an_area(seed, gain, offset):
    image = nuclei(seed).astype(np.float64)
    labels = segment(image)
    assert same_objects(segment(image + offset), labels)
    scaled = segment(image * gain)
    assert scaled.max() == labels.max()
    assert (scaled > 0).sum() == pytest.approx((labels > 0).sum(), rel=0.002)


def test_targets_smooth_predictions_and_raw_stains_agree_on_the_count():
    import cv2

    image = nuclei(seed=3)
    count = segment(image).max()
    target = prepare_target(image, "nuclei")
    assert segment(target).max() == count
    assert segment(cv2.GaussianBlur(target, (0, 0), 1.2)).max() == count


def test_a_hot_pixel_changes_nothing_and_negative_values_are_allowed():
    image = nuclei(seed=6)
    hot = image.copy()
    hot[3, 3] = 65535
    assert segment(hot).max() == segment(image).max()
    assert same_objects(segment(image.astype(np.int32) - 5000), segment(image))


def test_an_image_smaller_than_every_structuring_element_is_segmented():
    for shape in ((1, 1), (2, 3), (5, 40)):
        for name in ORGANELLES:
            assert segment(np.arange(np.prod(shape), dtype=np.uint16).reshape(shape), name).shape == shape


def test_lengths_follow_the_pixel_size():
    import cv2

    image = nuclei(seed=7, noise=2.0)
    fine = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    assert segment(fine, pixel_size_um=0.325).max() == segment(image, pixel_size_um=0.65).max()
    with pytest.raises(InputError, match="pixel size"):
        segment(image, pixel_size_um=-1)


def test_a_probability_is_cut_at_one_half_and_a_mask_stays_a_mask():
    probability = np.zeros((60, 60), np.float32)
    probability[10:25, 10:25] = 0.9
    probability[35:50, 35:50] = 0.4
    labels = segment(probability, "gfp")
    assert labels.max() == 1 and labels[17, 17] == 1 and labels[42, 42] == 0
    assert same_objects(segment((probability > 0.5).astype(np.uint8), "gfp"), labels)


@pytest.mark.parametrize("bad", [np.full((20, 20), np.nan), np.zeros((3, 20, 20)), np.zeros((0, 5))])
def test_what_is_no_image_is_refused(bad):
    with pytest.raises(InputError):
        segment(bad)


@pytest.mark.parametrize("size", ["a", 0, np.inf])
def test_a_pixel_without_a_size_is_refused(size):
    with pytest.raises(InputError, match="pixel size"):
        segment(np.ones((20, 20)), pixel_size_um=size)


def test_an_unknown_step_is_refused_with_the_known_ones():
    broken = dataclasses.replace(ORGANELLES["nuclei"], segmentation=(Step("magic"),))
    with pytest.raises(InputError, match="split_touching"):
        segment(np.ones((5, 5)), broken)


def test_clearing_the_border_keeps_the_whole_objects_only():
    labels = np.zeros((10, 10), np.int32)
    labels[0:3, 0:3], labels[4:6, 4:6], labels[8:, 5:7] = 1, 2, 3
    cleared = clear_border(labels)
    assert cleared.max() == 1 and cleared[4, 4] == 1 and cleared[0, 0] == 0
    assert clear_border(np.zeros((4, 4), int)).max() == 0


def balls(radius, softness, seed=0, shape=(200, 220)):
    """Round nuclei on a grid: plates where the edge is sharp, balls with a halo where it is soft."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for cy in range(30, shape[0] - 20, 35):
        for cx in range(30, shape[1] - 20, 35):
            beyond = np.minimum((np.hypot(y - cy, x - cx) - radius) / softness, 500)
            image += rng.uniform(600, 900) / (1 + np.exp(beyond))
    return np.rint(image + 100 + rng.normal(0, 4, shape)).astype(np.uint16)


def median_area(image):
    return np.median(np.bincount(segment(image).ravel())[1:])


def test_small_soft_nuclei_are_cut_to_their_core_and_no_others():
    assert median_area(balls(4.2, 1.3)) < 0.9 * np.pi * 4.2**2
    for radius, softness in ((6.0, 0.5), (9.0, 0.5), (9.0, 1.3)):
        assert median_area(balls(radius, softness)) > 0.9 * np.pi * radius**2


def test_a_smooth_prediction_is_cut_to_the_core_that_its_stain_says():
    import cv2

    stain = balls(4.2, 1.3)
    core = core_share(stain)
    assert core == 1.0 and core_share(balls(9.0, 0.5)) == 0.0 and core_share(stain, "er") is None
    blurred = cv2.GaussianBlur(stain.astype(np.float32), (0, 0), 3)
    by_itself, told = (segment(blurred, core=given) for given in (None, core))
    assert by_itself.max() == told.max() == segment(stain).max()
    assert (told > 0).sum() < 0.5 * (by_itself > 0).sum()
    np.testing.assert_array_equal(segment(stain, core=core), segment(stain))
    assert (segment(stain, core=0.0) > 0).sum() > (segment(stain) > 0).sum()


@pytest.mark.parametrize("core", [-0.1, 1.1, np.nan])
def test_a_core_that_is_no_share_is_refused(core):
    with pytest.raises(InputError, match="core"):
        segment(balls(6.0, 0.5), core=core)


def test_a_nucleus_of_two_lobes_is_one_object_and_stays():
    image = balls(4.2, 1.3).astype(float)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    image[:60, :60] = 100 + np.random.default_rng(1).normal(0, 4, (60, 60))
    for column in (27, 33):
        image += 700 / (1 + np.exp(np.minimum((np.hypot(y - 30, x - column) - 2.6) / 0.8, 500)))
    labels = segment(image)
    assert labels[30, 27] > 0 and labels[30, 33] > 0
    assert len(np.unique(labels[20:40, 15:45])) == 2
    assert labels.max() == segment(balls(4.2, 1.3)).max()


def test_a_dim_nucleus_beside_a_very_bright_one_stays_whole():
    y, x = np.mgrid[:90, :120]
    texture = 60 * np.sin(x / 2) * np.sin(y / 2)
    dim = (400 + texture) / (1 + np.exp(np.hypot(y - 45, x - 45) - 14))
    bright = 6000 / (1 + np.exp(np.hypot(y - 45, x - 69) - 7))
    # Others like the dim one say what is typical.
    others = [400 / (1 + np.exp(np.hypot(y - cy, x - 105) - 9)) for cy in (20, 70)]
    labels = segment(dim + bright + sum(others) + np.random.default_rng(0).normal(100, 4, x.shape))
    assert (labels == labels[45, 38]).sum() == pytest.approx(np.pi * 14**2, rel=0.2)


def test_a_crumb_is_dropped_but_the_rest_of_a_cut_nucleus_is_not():
    image = two(0)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    crumb = 800 / (1 + np.exp((np.hypot(y - 12, x - 20) - 2) / 0.4))
    cut = 800 / (1 + np.exp(np.hypot(y - 86, x - 80) - 8))
    assert segment(image + crumb).max() == 1
    assert segment(image + cut).max() == 2


def ripple(height, seed=0):
    """A smooth prediction of an empty field: slow bumps of a few units, zero below."""
    import cv2

    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, (200, 220)), (0, 0), 4)
    return (height * np.maximum(noise / noise.max(), 0)).astype(np.float32)


@pytest.mark.parametrize(
    "name", [name for name, recipe in ORGANELLES.items() if recipe.target == "continuous"]
)
def test_a_smooth_prediction_of_an_empty_field_has_no_objects_above_the_floor(name):
    floor = ORGANELLES[name].floor * 1000
    assert segment(ripple(0.8 * floor), name, floor=floor).max() == 0
    assert segment(ripple(50 * floor), "nuclei", floor=floor).max() > 0


def test_a_floor_that_every_nucleus_passes_changes_nothing_and_one_that_none_passes_leaves_none():
    image = prepare_target(nuclei(seed=3), "nuclei")
    np.testing.assert_array_equal(segment(image, floor=20.0), segment(image))
    assert segment(image, floor=3000.0).max() == 0
    for floor in (-1.0, np.nan):
        with pytest.raises(InputError, match="floor"):
            segment(image, floor=floor)


def stacks(seed=0, shape=(220, 240)):
    """Golgi stacks, a diffuse cytoplasm under them, and the camera's noise."""
    import cv2

    rng = np.random.default_rng(seed)
    light, cytoplasm = np.zeros(shape), np.zeros(shape)
    for cy, cx in rng.uniform(25, shape[0] - 25, (25, 2)):
        cytoplasm[round(cy), round(cx)] += 1
        for dy, dx in rng.normal(0, 2, (6, 2)):
            light[round(cy + dy), round(cx + dx)] += rng.uniform(0.5, 1)
    signal = (
        150
        + 100_000 * cv2.GaussianBlur(cytoplasm, (0, 0), 14)
        + 12_000 * cv2.GaussianBlur(light, (0, 0), 1.3)
    )
    return rng.poisson(signal).astype(np.uint16)


def test_golgi_in_a_stain_and_in_blurred_predictions_of_it_have_one_area():
    import cv2

    image = stacks()
    area, target = (segment(image, "golgi") > 0).sum(), prepare_target(image, "golgi")
    floor = ORGANELLES["golgi"].floor * float(np.percentile(target, 99.9))
    for sigma, tolerance in ((0.0, 0.1), (1.0, 0.2), (1.6, 0.3)):
        predicted = cv2.GaussianBlur(target, (0, 0), sigma) if sigma else target
        assert (segment(predicted, "golgi", floor=floor) > 0).sum() == pytest.approx(area, rel=tolerance)


def test_clearing_the_border_keeps_labels_over_65535():
    labels = np.zeros((8, 8), np.int32)
    labels[3:5, 3:5], labels[0, 0] = 70_000, 70_001
    np.testing.assert_array_equal(clear_border(labels), labels == 70_000)


def test_more_objects_than_16_bits_can_number_are_all_numbered():
    # One bright pixel in nine: a mask passes through the reporter's recipe without its opening.
    image = np.zeros((816, 816), np.uint8)
    image[1::3, 1::3] = 1
    recipe = dataclasses.replace(
        ORGANELLES["gfp"],
        segmentation=(
            ORGANELLES["gfp"].segmentation[0],
            Step("separate", {"min_area_um2": 0.1}),
        ),
    )
    labels = segment(image, recipe)
    assert labels.dtype == np.int32 and labels.max() == image.sum() == 272**2 > 65_535
    assert (np.bincount(labels.ravel())[1:] == 1).all()
