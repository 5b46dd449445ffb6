"""Objects paired by overlap, and numbers with their intervals beside them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellabel.errors import InputError
from cellabel.evaluation import match_objects, matched_cells
from cellabel.measurement import measure_objects


@settings(max_examples=40, deadline=None)
@given(
    true=arrays(np.int32, (6, 7), elements=st.integers(0, 3)),
    predicted=arrays(np.int32, (6, 7), elements=st.integers(0, 3)),
)
def test_pairs_are_those_of_brute_force_and_no_object_has_two(true, predicted):
    expected = []
    for left in set(np.unique(true)) - {0}:
        for right in set(np.unique(predicted)) - {0}:
            joint = ((true == left) & (predicted == right)).sum()
            overlap = joint / ((true == left) | (predicted == right)).sum()
            expected += [(left, right, overlap)] if overlap > 0.5 else []
    found = match_objects(true, predicted)
    assert list(zip(found["true"], found["predicted"], strict=True)) == [
        pair[:2] for pair in sorted(expected)
    ]
    assert found["iou"].tolist() == pytest.approx([pair[2] for pair in sorted(expected)])
    assert found["true"].is_unique and found["predicted"].is_unique


def test_a_field_matches_itself_and_an_empty_one_nothing():
    labels = np.zeros((20, 20), np.int32)
    labels[2:6, 2:6], labels[10:15, 10:15] = 70_000, 9
    found = match_objects(labels, labels)
    assert found["true"].tolist() == [9, 70_000] and (found["iou"] == 1).all()
    assert match_objects(labels, np.zeros_like(labels)).empty
    with pytest.raises(InputError, match="one field"):
        match_objects(labels, labels[:5])
    with pytest.raises(InputError, match="two partners"):
        match_objects(labels, labels, least_overlap=0.3)
    with pytest.raises(InputError, match="no whole numbers"):
        match_objects(labels, labels / 2)


def test_matched_cells_lie_row_beside_row():
    true = np.zeros((30, 30), np.int32)
    true[2:8, 2:8], true[15:25, 15:25] = 1, 2
    predicted = np.zeros_like(true)
    predicted[15:25, 15:24], predicted[0:2, 20:25] = 1, 2
    image = np.arange(900.0).reshape(30, 30)
    pairs = match_objects(true, predicted)
    left, right = matched_cells(measure_objects(true, image), measure_objects(predicted, image), pairs)
    assert left["Metadata_ObjectNumber"].tolist() == right["Metadata_ObjectNumber"].tolist() == [2]
    areas = (left["Nuclei_AreaShape_Area"].tolist(), right["Nuclei_AreaShape_Area"].tolist())
    assert areas == ([100], [90])
    assert isinstance(left, pd.DataFrame)
