"""The camera's statistics."""

import numpy as np
import pytest

from cellabel.simulation import Camera, camera_counts, illumination


def flat_camera(n: int = 200, **constants: float) -> Camera:
    return Camera(np.ones((n, n), np.float32), np.zeros((n, n), np.float32), **constants)


@pytest.mark.parametrize("electrons", [50.0, 1000.0, 12_000.0])
def test_variance_is_shot_noise_plus_read_noise(electrons):
    camera = flat_camera(read_noise_electrons=2.0)
    counts = camera_counts(np.full((200, 200), electrons, np.float32), camera, np.random.default_rng(1))
    signal = (counts.astype(float) - 100) * 0.46
    assert signal.mean() == pytest.approx(electrons, rel=0.01, abs=0.2)
    assert signal.var() == pytest.approx(electrons + 4 + 0.46**2 / 12, rel=0.04)


def test_the_full_well_and_16_bit_clip():
    camera = flat_camera(n=16)
    counts = camera_counts(np.full((16, 16), 1e6, np.float32), camera, np.random.default_rng(0))
    assert counts.dtype == np.uint16
    assert abs(counts.mean() - (30_000 / 0.46 + 100)) < 5
    deep = camera_counts(
        np.full((16, 16), 1e6, np.float32),
        flat_camera(n=16, full_well_electrons=9e5),
        np.random.default_rng(0),
    )
    assert (deep == 65535).all()


def test_no_light_leaves_the_offset_and_the_dark_current():
    camera = Camera(np.ones((64, 64), np.float32), np.full((64, 64), 46.0, np.float32))
    counts = camera_counts(np.zeros((64, 64), np.float32), camera, np.random.default_rng(0))
    assert counts.mean() == pytest.approx(200, abs=1)


def test_the_response_scales_the_signal_only():
    response = np.ones((100, 100), np.float32)
    response[:, :50] = 0.8
    camera = Camera(response, np.zeros((100, 100), np.float32))
    counts = camera_counts(np.full((100, 100), 4600.0, np.float32), camera, np.random.default_rng(0)).astype(
        float
    )
    assert counts[:, :50].mean() - 100 == pytest.approx(8000, rel=0.01)
    assert counts[:, 50:].mean() - 100 == pytest.approx(10_000, rel=0.01)


def test_illumination_falls_to_the_corners_about_a_mean_of_one():
    flat = illumination(101, 0.2, (0.0, 0.0))
    assert flat.mean() == pytest.approx(1, abs=0.01)
    assert flat[50, 50] - flat[0, 0] == pytest.approx(0.2, abs=1e-3)
    tilted = illumination(101, 0.0, (0.1, 0.0))
    assert tilted[-1, 50] - tilted[0, 50] == pytest.approx(0.1, abs=1e-3)
