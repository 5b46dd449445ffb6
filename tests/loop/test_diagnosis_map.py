"""The map that goes with a diagnosis."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import cellabel.reports
from cellabel.loop import diagnosis
from cellabel.loop.streams import Epoch
from cellabel.stores import TableStore

WIDTH = 24
WELLS = [f"{row}{column:02d}" for row in "AB" for column in range(1, 7)]


@pytest.fixture
def home(tmp_path):
    return SimpleNamespace(
        tables=TableStore(str(tmp_path)), settings=SimpleNamespace(models=SimpleNamespace(seed=0))
    )


@pytest.fixture
def drawn(monkeypatch):
    """What the figure was asked to draw."""
    asked = {}

    def figure(points, labels, *, title, method):
        asked.update(points=points, labels=labels, title=title, method=method)
        return b"PNG"

    monkeypatch.setattr(cellabel.reports, "embedding_map_figure", figure)
    return asked


def keep(home, plate, *, wells=WELLS, seed=0):
    rows = np.random.default_rng(seed).normal(size=(len(wells), WIDTH))
    table = pd.DataFrame(rows, columns=[f"e{k:03d}" for k in range(WIDTH)])
    table.insert(0, "Metadata_Plate", plate)
    table.insert(1, "Metadata_Well", wells)
    home.tables.write(table, "embeddings", "nuclei", "v1", plate)


def look(rows, plates=("P1", "P2", "P3")):
    standard = np.zeros(WIDTH), np.ones(WIDTH)
    epoch = Epoch("nuclei", "nuclei-v1-1", None, "", True, 1, plates, *standard, None)
    return diagnosis._Look(epoch, WELLS[: len(rows)], rows, 0, SimpleNamespace())


def rows(drifted, count=12):
    found = np.random.default_rng(9).normal(size=(count, WIDTH))
    found[count - drifted :] += 3.0
    return found


def test_drifted_wells_are_drawn_as_a_new_group_among_the_reference(home, drawn):
    for seed, plate in enumerate(("P1", "P2", "P3")):
        keep(home, plate, seed=seed)

    assert diagnosis._map(home, look(rows(drifted=8)), "P9") == b"PNG"

    assert drawn["labels"] == ["reference"] * 36 + ["P9"] * 4 + ["P9, new group (8 wells)"] * 8
    assert drawn["title"] == "P9, nuclei: 8 of 12 wells in a group of their own"
    assert drawn["points"].shape == (48, 2)
    assert drawn["method"] == "PaCMAP"


def test_wells_like_the_reference_are_no_new_group(home, drawn):
    for seed, plate in enumerate(("P1", "P2", "P3")):
        keep(home, plate, seed=seed)

    diagnosis._map(home, look(rows(drifted=0)), "P9")

    assert drawn["labels"] == ["reference"] * 36 + ["P9"] * 12


def test_reference_plates_without_embeddings_are_left_out(home, drawn):
    keep(home, "P2")

    diagnosis._map(home, look(rows(drifted=8)), "P9")

    assert drawn["labels"].count("reference") == 12


def test_without_any_embeddings_of_the_reference_there_is_no_map(home):
    assert diagnosis._map(home, look(rows(drifted=8)), "P9") is None


def test_too_few_wells_for_a_map_are_no_error(home):
    keep(home, "P1", wells=WELLS[:4])

    assert diagnosis._map(home, look(rows(4, count=4)), "P9") is None


def test_the_map_is_a_figure(home):
    keep(home, "P1")

    assert diagnosis._map(home, look(rows(drifted=8)), "P9").startswith(b"\x89PNG")
