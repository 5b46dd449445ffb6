"""Which witness is believed about the cause of a drift."""

from __future__ import annotations

import numpy as np
import pytest

from cellabel.drift import Diagnosis
from cellabel.loop.diagnosis import (
    SIDES,
    _as_deep_as_networks_say,
    _believed_exposure,
    _cross_examined,
    _depth,
    _known_corruptions,
    _Look,
)
from cellabel.plates import import_plate
from cellabel.settings import load_settings
from cellabel.simulation import simulate_plate
from cellabel.stores import open_home

BLUR = Diagnosis("defocus", 2.0, 0.99, "looks like defocus", 0.1, "defocus", {"defocus": 0.1})
EXPOSURE = Diagnosis("exposure", 4.0, 1.0, "looks like exposure", 0.04, "contrast", {"exposure": 0.04})


def look(diagnosis: Diagnosis) -> _Look:
    return _Look(None, ["A01"], np.zeros((1, 1)), 0, diagnosis)  # type: ignore[arg-type]


def features(left: dict[str, float]) -> _Look:
    return look(Diagnosis(None, None, 1.0, "", left=left))


@pytest.mark.parametrize(
    ("left", "believed"),
    [
        ({"defocus": 0.2, "exposure": 0.95}, True),
        ({"defocus": 0.8, "exposure": 0.25}, False),  # dead cells and vibration
        ({"defocus": 0.17, "exposure": 0.68}, True),
        ({"defocus": 0.15, "exposure": 0.5}, False),  # exposure explains half of it too
        ({"defocus": 0.45, "exposure": 0.98}, False),  # dust
        ({"defocus": 0.3}, True),  # nothing of exposure left the images readable
        ({}, False),  # the features have not moved at all
    ],
)
def test_a_networks_defocus_must_show_in_the_acquisition_features(left, believed):
    said = _cross_examined(look(BLUR), features(left)).diagnosis
    assert (said.kind == "defocus") is believed
    if not believed:
        assert said.severity is None and "none of the known causes" in said.sentence


def test_features_tell_the_cause_and_the_network_that_it_explains_best_its_severity():
    known = Diagnosis(
        "defocus", 1.2, 0.97, "", 0.1, "defocus", {"defocus": 0.1, "exposure": 0.9}, {"defocus": 1.2}
    )
    networks = [
        look(Diagnosis(None, None, 1.0, "", left={"defocus": share}, nearest={"defocus": severity}))
        for share, severity in ((0.7, 2.0), (0.4, 4.6), (0.9, 9.0))
    ]
    said = _as_deep_as_networks_say(look(known), networks).diagnosis
    assert (said.kind, said.severity, said.confidence) == ("defocus", 4.6, 0.97)
    assert "severity 4.6" in said.sentence
    assert _as_deep_as_networks_say(look(known), [look(Diagnosis(None, None, 1.0, ""))]).diagnosis == known
    assert _as_deep_as_networks_say(look(EXPOSURE), networks).diagnosis == EXPOSURE


def test_a_defocus_is_told_in_the_unit_of_the_knob(tmp_path):
    home = open_home(load_settings(home=tmp_path / "home"))
    simulate_plate(tmp_path / "P", plate_id="P", wells=1, sites=1, size=64, stains=(), preset="10x")
    import_plate(tmp_path / "P", home.plates)
    assert _depth(home, "P", BLUR.with_severity(6.0)) == ", about 6 µm from focus"
    assert _depth(home, "P", EXPOSURE) == ""


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


@pytest.mark.parametrize("modality", ["dic", "other"])
def test_defocus_is_tried_as_the_modality_shows_it(tmp_path, modality):
    home = open_home(load_settings(home=tmp_path / "home", models={"training": {"modality": modality}}))
    images = [np.random.default_rng(k).integers(2000, 3000, (96, 96)).astype(np.uint16) for k in range(4)]
    every = _known_corruptions(home, images, 0.65, defocus_alone=False)
    alone = _known_corruptions(home, images, 0.65, defocus_alone=True)
    sides = {"dic": {f"defocus ({side})" for side in SIDES}, "other": {"defocus", "defocus (pupil)"}}
    assert set(alone) == sides[modality]
    assert set(every) == sides[modality] | {"contrast", "brightness"}
    for made in alone.values():
        assert list(made) == sorted(made), "severities rise with the depth"
        assert all((change(images[0]) != images[0]).any() for change in made.values())
    if modality == "dic":
        one, other = (alone[f"defocus ({side})"] for side in SIDES)
        assert list(one) == list(other)
        deepest = max(one)
        assert (one[deepest](images[0]) != other[deepest](images[0])).any()
