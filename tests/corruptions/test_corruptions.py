import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel import InputError
from cellabel.corruptions import (
    KINDS,
    SEVERITIES,
    clipped_share,
    corrupt,
    defocus_kernel,
    depth_of_severity,
    equivalent_radius_px,
    pupil_defocus,
    severity_of_radius,
)

CASES = [(kind, severity) for kind in KINDS for severity in SEVERITIES[kind]]


def noise(dtype, shape=(33, 47), seed=0):
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    return rng.random(shape).astype(dtype)


@pytest.mark.parametrize(("kind", "severity"), CASES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_shape_and_dtype_stay_and_the_input_is_left_alone(kind, severity, dtype):
    image = noise(dtype)
    before = image.copy()
    result = corrupt(image, kind, severity, full_scale=1.0 if image.dtype.kind == "f" else None)
    assert result.shape == image.shape and result.dtype == image.dtype and result is not image
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_bytes_does_not_matter(kind):
    image = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    swapped = corrupt(image.astype(">u2"), kind, 3)
    assert swapped.dtype == np.dtype(">u2")
    np.testing.assert_array_equal(swapped, corrupt(image, kind, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_severity_zero_changes_nothing_even_above_the_full_scale(kind):
    image = noise(np.uint16)
    np.testing.assert_array_equal(corrupt(image, kind, 0, full_scale=4095), image)


@pytest.mark.parametrize(("kind", "severity"), [c for c in CASES if c[1] != 0])
def test_every_other_severity_changes_something(kind, severity):
    image = noise(np.uint16) // 2
    assert not np.array_equal(corrupt(image, kind, severity), image)


@given(
    st.integers(0, 255),
    st.sampled_from([c for c in CASES if c[0] != "defocus"]),
    st.sampled_from([np.uint8, np.uint16]),
)
@settings(max_examples=80, deadline=None)
def test_contrast_and_brightness_act_about_zero_clip_and_round(grey, case, dtype):
    kind, severity = case
    unit = 1 if dtype == np.uint8 else 257
    amount = SEVERITIES[kind][severity]
    x, top = grey * unit, 255 * unit
    expected = amount * x if kind == "contrast" else x + amount * top / 255
    result = corrupt(np.full((2, 2), x, dtype), kind, severity)
    np.testing.assert_array_equal(result, np.rint(min(max(expected, 0), top)))


def test_a_float_image_is_judged_by_the_scale_it_is_given():
    image = np.array([[0.0, 0.2, 0.5, 1.0]])
    np.testing.assert_allclose(
        corrupt(image, "brightness", 1, full_scale=1.0), np.minimum(image + 50 / 255, 1)
    )
    np.testing.assert_allclose(corrupt(image, "contrast", -4, full_scale=2.0), np.minimum(3 * image, 2))


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_the_kernel_equals_a_finely_sampled_disk_seen_by_square_pixels(radius):
    n, half = 400, defocus_kernel(radius).shape[0] // 2
    fine = (np.arange(-(half + 1) * n, (half + 1) * n) + 0.5) / n
    disk = (fine[:, None] ** 2 + fine[None, :] ** 2 <= radius**2).astype(float)
    triangle = np.clip(1 - np.abs(np.arange(-half, half + 1)[:, None] - fine), 0, None)
    oracle = triangle @ disk @ triangle.T
    np.testing.assert_allclose(defocus_kernel(radius), oracle / oracle.sum(), atol=1e-4)


def test_the_smallest_defocus_spreads_the_centre_pixel():
    kernel = defocus_kernel(0.5)
    assert kernel[1, 1] == pytest.approx(1 - 8 * 0.5 / (3 * np.pi) + 0.25 / (2 * np.pi), abs=1e-6)
    point = np.zeros((9, 9))
    point[4, 4] = 1
    assert corrupt(point, "defocus", 1, full_scale=1)[4, 4] < 0.95


@pytest.mark.parametrize("severity", range(1, 6))
def test_defocus_keeps_the_light_and_reflects_the_borders(severity):
    image = noise(np.float64)
    blurred = corrupt(image, "defocus", severity, full_scale=1)
    assert blurred.mean() == pytest.approx(image.mean(), rel=1e-12)
    flipped = corrupt(image[::-1, ::-1].copy(), "defocus", severity, full_scale=1)
    np.testing.assert_allclose(flipped[::-1, ::-1], blurred, atol=1e-12)
    flat = np.full((5, 6), 77, np.uint8)
    np.testing.assert_array_equal(corrupt(flat, "defocus", severity), flat)


def test_defocus_blurs_more_with_each_severity():
    image = noise(np.uint16)
    spreads = [corrupt(image, "defocus", s).std() for s in range(6)]
    assert all(later < earlier for earlier, later in itertools.pairwise(spreads))


def test_a_stack_is_corrupted_image_by_image():
    stack = noise(np.uint8, (3, 20, 30))
    for kind in KINDS:
        each = np.stack([corrupt(image, kind, 4) for image in stack])
        np.testing.assert_array_equal(corrupt(stack, kind, 4), each)


@pytest.mark.parametrize(
    ("kind", "severity", "scale", "image"),
    [
        (["defocus"], 1, None, np.zeros((4, 4), np.uint8)),
        ("fog", 1, None, np.zeros((4, 4), np.uint8)),
        ("defocus", -1, None, np.zeros((4, 4), np.uint8)),
        ("defocus", 6, None, np.zeros((4, 4), np.uint8)),
        ("contrast", 1.5, None, np.zeros((4, 4), np.uint8)),
        ("contrast", "1", None, np.zeros((4, 4), np.uint8)),
        ("contrast", True, None, np.zeros((4, 4), np.uint8)),
        ("contrast", [1], None, np.zeros((4, 4), np.uint8)),
        ("brightness", 1, None, np.zeros((4, 4))),
        ("defocus", 1, None, np.zeros((4, 4), np.float32)),
        ("brightness", 1, 0, np.zeros((4, 4))),
        ("brightness", 1, float("nan"), np.zeros((4, 4))),
        ("brightness", 1, 65535, np.zeros((4, 4), np.uint8)),
        ("brightness", 1, 1, np.full((4, 4), np.nan)),
        ("brightness", 1, 1, np.zeros((4, 4), bool)),
        ("brightness", 1, 1, np.zeros(4)),
        ("brightness", 1, 1, np.zeros((0, 4))),
    ],
)
def test_bad_input_is_told_in_one_sentence(kind, severity, scale, image):
    with pytest.raises(InputError, match=r"^[^\n]+\.$"):
        corrupt(image, kind, severity, full_scale=scale)


def test_the_clipped_share_counts_what_is_cut_off():
    image = np.array([[0, 49, 50, 51, 200, 255]], np.uint8)
    assert clipped_share(image, "brightness", -1) == pytest.approx(2 / 6)
    assert clipped_share(image, "brightness", 1) == pytest.approx(1 / 6)
    assert clipped_share(image, "contrast", -5) == pytest.approx(2 / 6)
    assert clipped_share(image, "contrast", 5) == clipped_share(image, "defocus", 5) == 0
    assert clipped_share(image, "brightness", 0) == 0


OPTICS = {"pixel_size_um": 0.325, "numerical_aperture": 0.75}


def test_pupil_defocus_of_zero_changes_nothing_and_sign_does_not_matter():
    image = noise(np.uint16, (64, 80))
    np.testing.assert_array_equal(pupil_defocus(image, 0, **OPTICS), image)
    np.testing.assert_array_equal(pupil_defocus(image, 2, **OPTICS), pupil_defocus(image, -2, **OPTICS))


def test_pupil_defocus_keeps_the_light_and_blurs_more_the_farther_it_is():
    image = noise(np.float64, (96, 96))
    blurred = [pupil_defocus(image, z, **OPTICS) for z in (0, 0.5, 1, 2, 4)]
    spreads = [b.std() for b in blurred]
    assert all(later < earlier for earlier, later in itertools.pairwise(spreads))
    # borders reflected: the light that leaves comes back, up to the tails of the kernel
    assert all(b.mean() == pytest.approx(image.mean(), rel=5e-3) for b in blurred)


def test_pupil_defocus_equals_the_point_spread_function_by_fourier_optics():
    n, z, pixel = 256, 1.5, 0.1625
    f = np.fft.fftfreq(n, pixel)
    f2 = f[:, None] ** 2 + f[None, :] ** 2
    na, wavelength = 0.75, 0.546
    inside = f2 <= (na / wavelength) ** 2
    focus = 2 * np.pi * z / wavelength * (np.sqrt(np.clip(1 - wavelength**2 * f2, 0, None)) - 1)
    otf = [np.fft.fft2(np.abs(np.fft.ifft2(inside * np.exp(1j * p))) ** 2) for p in (0 * focus, focus)]
    sharp = np.fft.fftshift(np.fft.ifft2(otf[0] / otf[0][0, 0]).real)
    blurred = np.fft.fftshift(np.fft.ifft2(otf[1] / otf[1][0, 0]).real)
    ours = pupil_defocus(sharp, z, pixel_size_um=pixel, numerical_aperture=na, wavelength_um=wavelength)
    np.testing.assert_allclose(ours, blurred, atol=0.01 * blurred.max())


def test_pupil_defocus_is_another_kernel_than_the_disk():
    point = np.zeros((65, 65))
    point[32, 32] = 1
    disk = corrupt(point, "defocus", 5, full_scale=1)
    pupil = pupil_defocus(point, 0.86, **OPTICS)
    assert np.abs(disk - pupil).sum() > 0.1


@pytest.mark.parametrize(
    ("image", "changes"),
    [
        (np.zeros((3, 4, 4)), {}),
        (np.full((4, 4), np.inf), {}),
        (np.zeros((4, 4)), {"numerical_aperture": 1.2}),
        (np.zeros((4, 4)), {"pixel_size_um": 0}),
    ],
)
def test_impossible_optics_are_refused(image, changes):
    with pytest.raises(InputError, match=r"^[^\n]+\.$"):
        pupil_defocus(image, 1.0, **(OPTICS | changes))


def test_the_room_needs_numpy_and_scipy_alone():
    code = (
        "import sys, cellabel.corruptions; "
        "bad = {'torch', 'skimage', 'cv2', 'pandas', 'mlflow'} & set(sys.modules); "
        "sys.exit(', '.join(bad) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_pupil_blurs_like_a_disk_whose_radius_grows_with_its_defocus():
    optics = {"pixel_size_um": 0.65, "numerical_aperture": 0.45}
    radii = [equivalent_radius_px(depth, **optics) for depth in (0.0, 1.0, 2.0, 4.0, 6.5, 10.0)]
    assert radii[0] == 0 and radii == sorted(radii)
    assert equivalent_radius_px(-4.0, **optics) == radii[3]
    slope = 0.45 / np.sqrt(1 - 0.45**2) / 0.65  # of geometric optics, px a µm
    assert 0.5 * slope < radii[3] / 4 < slope
    spot = np.zeros((65, 65))
    spot[32, 32] = 1.0
    pupil = pupil_defocus(spot, 6.5, **optics)
    y, x = np.mgrid[-32:33, -32:33]
    width = np.sqrt((pupil * (x**2 + y**2)).sum() / pupil.sum())  # a disk's is its radius over √2
    assert width == pytest.approx(radii[4] / np.sqrt(2), rel=0.35)
    with pytest.raises(InputError, match="No air objective"):
        equivalent_radius_px(1.0, pixel_size_um=0.65, numerical_aperture=1.4)


@pytest.mark.parametrize("optics", [(0.65, 0.45), (0.325, 0.75)])
def test_a_severity_and_its_depth_are_told_from_each_other(optics):
    optics = dict(zip(("pixel_size_um", "numerical_aperture"), optics, strict=True))
    depths = [depth_of_severity(severity, **optics) for severity in (1, 2, 3, 4, 5, 6.5)]
    assert depths == sorted(depths) and depths[0] > 0
    for severity, depth in zip((1, 2, 3, 4, 5, 6.5), depths, strict=True):
        assert severity_of_radius(equivalent_radius_px(depth, **optics)) == pytest.approx(severity, abs=0.25)
    assert severity_of_radius(3.0) == 5 and severity_of_radius(4.0) == 6
    for severity in (0, -1, 60):
        with pytest.raises(InputError, match="No defocus up to"):
            depth_of_severity(severity, **optics)
