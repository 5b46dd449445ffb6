"""Defocus in interference contrast, against the microscope's whole equation."""

import numpy as np
import pytest

from cellabel.corruptions import interference_defocus, pupil_defocus
from cellabel.errors import InputError
from cellabel.simulation import condenser_points, dic_image

OPTICS = {"pixel_size_um": 0.65, "numerical_aperture": 0.45}
DIC = {"shear_um": 0.25, "bias_deg": 80.0, "wavelength_um": 0.546, "numerical_aperture": 0.45}


def cells(height_rad, n=160, seed=3):
    """Round phase objects of 8–20 px on a grid of 0.65 µm."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((n, n))
    phase = np.zeros((n, n))
    for _ in range(12):
        row, column, radius = rng.uniform(20, n - 20), rng.uniform(20, n - 20), rng.uniform(4, 10)
        phase += height_rad * np.exp(-((((y - row) ** 2 + (x - column) ** 2) / radius**2) ** 2))
    return phase.astype(np.float32)


def microscope(phase, defocus_um, azimuth_deg=45.0):
    source = condenser_points(21, 0.6 * 0.45, 0.546)
    image = dic_image(
        phase, pixel_size_um=0.65, azimuth_deg=azimuth_deg, source=source, defocus_um=defocus_um, **DIC
    )
    return image.astype(np.float64)


def likeness(one, other):
    inner = (slice(16, -16), slice(16, -16))
    return float(np.corrcoef(one[inner].ravel(), other[inner].ravel())[0, 1])


@pytest.mark.parametrize("azimuth", [45.0, 135.0])
@pytest.mark.parametrize("depth", [-8.0, -4.0, 4.0, 8.0])
def test_a_weak_phase_object_defocuses_as_by_the_microscopes_equation(depth, azimuth):
    phase = cells(0.05)
    focused, true = microscope(phase, 0.0, azimuth), microscope(phase, depth, azimuth)
    made = interference_defocus(focused, depth, shear_axis_degrees=azimuth, **OPTICS)
    assert likeness(made, true) > 0.9
    assert likeness(made, true) > likeness(pupil_defocus(focused, depth, **OPTICS), true) + 0.05
    assert likeness(made - focused, true - focused) > 0.85


@pytest.mark.parametrize("depth", [-6.0, 6.0])
def test_cells_of_a_radian_are_met_better_than_by_a_blur(depth):
    phase = cells(1.2)
    focused, true = microscope(phase, 0.0), microscope(phase, depth)
    made = interference_defocus(focused, depth, **OPTICS)
    assert likeness(made, true) > likeness(pupil_defocus(focused, depth, **OPTICS), true) + 0.05


def test_the_two_sides_of_focus_differ_and_focus_changes_nothing():
    image = (1000 * microscope(cells(0.8), 0.0)).astype(np.uint16)
    above, below = (interference_defocus(image, z, **OPTICS) for z in (5.0, -5.0))
    assert above.dtype == image.dtype
    assert above.shape == image.shape
    assert likeness(above, below) < 0.9
    assert (interference_defocus(image, 0.0, **OPTICS) == image).all()


def test_an_empty_field_stays_as_it_is():
    field = np.full((64, 48), 700.0)
    np.testing.assert_allclose(interference_defocus(field, 6.0, **OPTICS), field, rtol=1e-9)


def test_a_transposed_image_is_transposed_after_defocus_too():
    image = microscope(cells(0.5), 0.0)[:, :120]
    made = interference_defocus(image, 5.0, **OPTICS)
    np.testing.assert_allclose(interference_defocus(image.T, 5.0, **OPTICS).T, made, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "changes"),
    [
        (np.zeros((3, 4, 4)), {}),
        (np.full((4, 4), np.nan), {}),
        (np.zeros((4, 4)), {"numerical_aperture": 1.2}),
        (np.zeros((4, 4)), {"shear_um": 0.0}),
        (np.zeros((4, 4)), {"bias_degrees": 180.0}),
        (np.zeros((4, 4)), {"condenser_ratio": 0.0}),
    ],
)
def test_impossible_optics_are_refused(image, changes):
    with pytest.raises(InputError, match=r"^[^\n]+\.$"):
        interference_defocus(image, 1.0, **(OPTICS | changes))
