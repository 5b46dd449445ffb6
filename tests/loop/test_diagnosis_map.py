"""The map that goes with a diagnosis."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import cellabel.reports
from cellabel.errors import InputError
from cellabel.loop import diagnosis
from cellabel.loop.embeddings import embedding_matrix
from cellabel.loop.streams import Epoch
from cellabel.stores import TableStore

WIDTH = 24
WELLS = [f"{row}{column:02d}" for row in "AB" for column in range(1, 7)]


class Imaged:
    """A plate whose images are as grey as their well's place: enough to tell which was shown."""

    pixel_size_um = 0.65

    def __init__(self, number):
        self.wells = {
            well: SimpleNamespace(fields={1: SimpleNamespace(image=partial(self.image, number, place))})
            for place, well in enumerate(WELLS)
        }

    @staticmethod
    def image(number, place, role):
        assert role == "transmitted"
        image = np.full((300, 400), 1000 * number + place)
        image[:, :60] = image[:20] = -1  # beyond the middle that is shown
        return image


@pytest.fixture
def home(tmp_path, monkeypatch):
    plates = {name: Imaged(int(name[1])) for name in ("P1", "P2", "P3", "P9")}

    def open_plate(store, name):
        if name not in plates:
            raise InputError(f"There is no plate {name!r}.")
        return plates[name]

    monkeypatch.setattr(diagnosis, "open_plate", open_plate)
    return SimpleNamespace(
        plates=plates,
        tables=TableStore(str(tmp_path)),
        settings=SimpleNamespace(models=SimpleNamespace(seed=0)),
    )


@pytest.fixture
def drawn(monkeypatch):
    """What the figure was asked to draw."""
    asked = {}

    def figure(points, labels, *, title, method, thumbnails):
        asked.update(points=points, labels=labels, title=title, method=method, thumbnails=thumbnails)
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


def by_heading(thumbnails):
    found = {}
    for one in thumbnails:
        found.setdefault(one.heading, []).append(one)
    return found


def test_the_farthest_and_the_nearest_wells_are_shown_beside_reference_wells(home, drawn):
    for seed, plate in enumerate(("P1", "P2", "P3")):
        keep(home, plate, seed=seed)
    new = rows(drifted=0)
    new[[1, 4, 7]] += [[5.0], [9.0], [7.0]]
    new[2] = embedding_matrix(home.tables.read("embeddings", "nuclei", "v1", "P2"))[5]

    diagnosis._map(home, look(new), "P9")

    far, near, beside = by_heading(drawn["thumbnails"]).values()
    assert [one.name for one in far] == [f"P9/{WELLS[place]}" for place in (4, 7, 1)]
    assert [one.point for one in far] == [36 + 4, 36 + 7, 36 + 1]
    assert near[0].name == f"P9/{WELLS[2]}" and len(near) == 3
    assert beside[0].name == f"P2/{WELLS[5]}" and beside[0].point == 12 + 5
    for one in drawn["thumbnails"]:
        plate, well = one.name.split("/")
        assert np.array_equal(one.image, np.full((256, 256), 1000 * int(plate[1]) + WELLS.index(well)))


def test_no_well_is_both_the_nearest_and_the_farthest(home, drawn):
    keep(home, "P1")
    for count in (1, 2, 5):
        diagnosis._map(home, look(rows(0, count=count)), "P9")
        new = [one.name for one in drawn["thumbnails"] if one.name.startswith("P9")]
        assert len(set(new)) == len(new) == min(count, 6)


def test_a_map_stands_without_images_that_are_gone(home, drawn):
    keep(home, "P1")
    home.plates.pop("P9")
    diagnosis._map(home, look(rows(drifted=8)), "P9")
    assert {one.heading for one in drawn["thumbnails"]} == {diagnosis.BESIDE}
    home.plates.clear()
    assert diagnosis._map(home, look(rows(drifted=8)), "P9") and drawn["thumbnails"] == []


def test_the_map_is_a_figure(home):
    keep(home, "P1")

    assert diagnosis._map(home, look(rows(drifted=8)), "P9").startswith(b"\x89PNG")
