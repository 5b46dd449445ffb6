"""Which witness is believed about the cause of a drift."""

from __future__ import annotations

import numpy as np
import pytest

from cellabel.drift import Diagnosis
from cellabel.loop.diagnosis import _believed_exposure, _cross_examined, _Look

BLUR = Diagnosis("defocus", 2.0, 0.99, "looks like defocus", 0.1, "defocus", {"defocus": 0.1})
EXPOSURE = Diagnosis("exposure", 4.0, 1.0, "looks like exposure", 0.04, "contrast", {"exposure": 0.04})


def look(diagnosis: Diagnosis) -> _Look:
    return _Look(None, ["A01"], np.zeros((1, 1)), 0, diagnosis)  # type: ignore[arg-type]


def features(left: dict[str, float]) -> _Look:
    return look(Diagnosis(None, None, 1.0, "", left=left))


@pytest.mark.parametrize(
    ("left", "believed"),
    [
        ({"defocus": 0.3, "exposure": 0.95}, True),
        ({"defocus": 0.6, "exposure": 0.25}, False),  # dead cells and vibration
        ({"defocus": 0.7, "exposure": 0.94}, True),
        ({"defocus": 0.86, "exposure": 0.98}, False),
        ({"defocus": 0.5}, True),  # nothing of exposure left the images readable
        ({}, False),  # the features have not moved at all
    ],
)
def test_a_networks_defocus_must_show_in_the_acquisition_features(left, believed):
    said = _cross_examined(look(BLUR), features(left)).diagnosis
    assert (said.kind == "defocus") is believed
    if not believed:
        assert said.severity is None and "none of the known causes" in said.sentence


def test_without_features_the_network_is_believed():
    assert _cross_examined(look(BLUR), None).diagnosis == BLUR


def test_what_is_no_defocus_is_not_asked_about():
    unknown = look(Diagnosis(None, None, 1.0, "looks like none of the known causes"))
    assert _cross_examined(unknown, features({"defocus": 0.9, "exposure": 0.1})) is unknown


def test_exposure_is_believed_where_it_explains_nearly_all_and_the_encoder_is_blind_to_it():
    assert _believed_exposure(EXPOSURE, encoder_moved=False) is EXPOSURE
    moved = _believed_exposure(EXPOSURE, encoder_moved=True)
    assert moved.kind is None and "exposure leaves alone" in moved.sentence
    half = Diagnosis("exposure", 1.0, 1.0, "looks like exposure", 0.29, "contrast", {"exposure": 0.29})
    rest = _believed_exposure(half, encoder_moved=False)
    assert rest.kind is None and "exposure comes closest and leaves 29%" in rest.sentence
