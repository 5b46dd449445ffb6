"""The wave optics against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, ndimage

from cellabel.simulation import condenser_points, dic_image, fluorescence_transfer, pupil

PIXEL_UM = 0.16


def smooth_phase(n: int = 96, seed: int = 0, strength: float = 1.0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((n, n))
    smooth = ndimage.gaussian_filter(noise, 5, mode="wrap")
    return (strength * smooth / smooth.std()).astype(np.float32)


def shifted(image: np.ndarray, dy_um: float, dx_um: float) -> np.ndarray:
    """image(r + d), exactly for a periodic image, in float64."""
    fy = fft.fftfreq(image.shape[0], PIXEL_UM)[:, None]
    fx = fft.fftfreq(image.shape[1], PIXEL_UM)[None, :]
    return fft.ifft2(fft.fft2(image.astype(complex)) * np.exp(2j * np.pi * (fy * dy_um + fx * dx_um)))


@settings(max_examples=15, deadline=None)
@given(
    shear_um=st.floats(0.1, 0.4),
    bias_deg=st.floats(20, 140),
    azimuth_deg=st.floats(0, 180),
    seed=st.integers(0, 99),
)
def test_without_pupil_and_condenser_it_is_the_sine_of_the_sheared_phase(
    shear_um, bias_deg, azimuth_deg, seed
):
    phase = smooth_phase(seed=seed)
    image = dic_image(
        phase, pixel_size_um=PIXEL_UM, shear_um=shear_um, bias_deg=bias_deg, azimuth_deg=azimuth_deg
    )
    half = shear_um / 2
    dy, dx = half * np.sin(np.radians(azimuth_deg)), half * np.cos(np.radians(azimuth_deg))
    difference = (shifted(phase, dy, dx) - shifted(phase, -dy, -dx)).real
    expected = np.sin((difference + np.radians(bias_deg)) / 2) ** 2
    np.testing.assert_allclose(image, expected, atol=2e-3)


def test_an_empty_field_shows_the_bias_and_the_extinction():
    image = dic_image(
        np.zeros((64, 64), np.float32),
        pixel_size_um=PIXEL_UM,
        shear_um=0.25,
        bias_deg=70.0,
        numerical_aperture=0.75,
        source=condenser_points(9, 0.4, 0.546),
        extinction=0.02,
        defocus_um=1.5,
    )
    np.testing.assert_allclose(image, np.sin(np.radians(35)) ** 2 + 0.02, atol=1e-4)


def test_the_sum_over_the_condenser_is_the_equation_written_out():
    phase, shear_um, bias, z, aperture, wavelength = smooth_phase(64), 0.25, np.radians(80), 1.2, 0.6, 0.546
    source = [(0.0, 0.0, 0.3), (0.35, 0.1, 0.5), (-0.2, 0.45, 0.2)]  # of no symmetry, which hides signs
    image = dic_image(
        phase,
        pixel_size_um=PIXEL_UM,
        shear_um=shear_um,
        bias_deg=80.0,
        azimuth_deg=45.0,
        numerical_aperture=aperture,
        wavelength_um=wavelength,
        source=source,
        defocus_um=z,
    )
    n = len(phase)
    fy, fx = fft.fftfreq(n, PIXEL_UM)[:, None], fft.fftfreq(n, PIXEL_UM)[None, :]
    y, x = np.indices((n, n)) * PIXEL_UM
    expected = np.zeros((n, n))
    for sy, sx, weight in source:
        sy, sx = (round(s * n * PIXEL_UM) / (n * PIXEL_UM) for s in (sy, sx))
        f2 = fy**2 + fx**2
        psi = 2 * np.pi * z / wavelength * (np.sqrt(np.maximum(1 - wavelength**2 * f2, 0)) - 1)
        passed = (f2 <= (aperture / wavelength) ** 2) * np.exp(1j * psi)
        prism = 1j * np.sin(np.pi * shear_um * ((fx - sx) + (fy - sy)) / np.sqrt(2) + bias / 2)
        tilted = np.exp(1j * phase.astype(float)) * np.exp(2j * np.pi * (sy * y + sx * x))
        expected += weight * np.abs(fft.ifft2(passed * prism * fft.fft2(tilted))) ** 2
    np.testing.assert_allclose(image, expected, atol=1e-4)


def test_focus_above_and_below_differ():
    arguments = {"pixel_size_um": PIXEL_UM, "shear_um": 0.25, "bias_deg": 70.0, "numerical_aperture": 0.75}
    source = condenser_points(9, 0.45, 0.546)
    above = dic_image(smooth_phase(), source=source, defocus_um=2.0, **arguments)
    below = dic_image(smooth_phase(), source=source, defocus_um=-2.0, **arguments)
    focused = dic_image(smooth_phase(), source=source, **arguments)
    assert np.abs(above - below).max() > 0.2 * np.ptp(focused)


def test_a_reversed_shear_reverses_the_relief():
    phase = smooth_phase(strength=0.1)
    arguments = {"pixel_size_um": PIXEL_UM, "shear_um": 0.25, "bias_deg": 90.0}
    forward = dic_image(phase, azimuth_deg=45.0, **arguments) - 0.5
    backward = dic_image(phase, azimuth_deg=225.0, **arguments) - 0.5
    assert np.corrcoef(forward.ravel(), backward.ravel())[0, 1] < -0.99


@pytest.mark.parametrize("n", [1, 9, 21])
def test_condenser_points_fill_the_disk_evenly(n):
    points = np.array(condenser_points(n, 0.5, 0.5, offset=0.1))
    assert len(points) == n
    assert points[:, 2].sum() == pytest.approx(1)
    np.testing.assert_allclose(points[:, :2].mean(0), [0, 0.2], atol=1e-12)
    assert np.hypot(points[:, 0], points[:, 1] - 0.2).max() <= 1.0
    if n > 1:
        # a uniform disk of radius 1 has a mean squared radius of a half
        assert ((points[:, 0] ** 2 + (points[:, 1] - 0.2) ** 2).mean()) == pytest.approx(0.5, abs=0.02)


def test_the_pupil_has_the_phase_of_its_defocus():
    f, z, wavelength = 0.8, 1.7, 0.546
    passed = pupil(
        np.array([[0.0]]),
        np.array([[f, 2.0]]),
        numerical_aperture=0.75,
        wavelength_um=wavelength,
        defocus_um=z,
    )
    psi = 2 * np.pi * z / wavelength * (np.sqrt(1 - (wavelength * f) ** 2) - 1)
    np.testing.assert_allclose(passed, [[np.exp(1j * psi), 0]], atol=1e-5)


def test_the_transfer_in_focus_is_the_autocorrelation_of_a_disk():
    table = fluorescence_transfer(0.75, 0.51, 0.0)
    r = np.linspace(0, 1, len(table))
    expected = 2 / np.pi * (np.arccos(r) - r * np.sqrt(1 - r**2))
    np.testing.assert_allclose(table, expected, atol=0.02)


def test_defocus_lowers_the_transfer_and_knows_no_sign():
    sharp, above, below = (fluorescence_transfer(0.75, 0.51, z) for z in (0.0, 1.5, -1.5))
    assert above[300] < 0.5 * sharp[300]
    np.testing.assert_allclose(above, below, atol=1e-4)
