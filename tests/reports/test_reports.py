"""Figures show their data, refuse what cannot be drawn, and leave no global state behind."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cellabel import InputError
from cellabel.reports import (
    Thumbnail,
    agreement_figure,
    bland_altman_figure,
    control_chart_figure,
    drift_timeline_figure,
    embedding_map_figure,
    evidently_report,
    example_figure,
    figure_png,
    gain_figure,
    learning_curve_figure,
    model_card,
    overlay,
    overlay_figure,
    ranking_figure,
    scatter_figure,
)

ENDS = (("", 0.0), ("_ci_lower", -0.1), ("_ci_upper", 0.1))
RNG = np.random.default_rng(0)
CONDITIONS = ("clean", "defocus +1", "defocus +3", "contrast -2", "contrast +4", "lamp × 0.5", "defocus 4 µm")
GAIN = pd.DataFrame(
    [
        {"condition": condition, "metric": metric}
        | {
            f"{side}{end}": size + extra
            for side, size in (("before", 0.4), ("after", 0.2))
            for end, extra in ENDS
        }
        for condition in CONDITIONS
        for metric in ("Nuclei_Count", "Nuclei_TotalArea")
    ]
)
THUMBNAILS = [
    Thumbnail(point, RNG.normal(size=(64, 96)), f"P1/A{point:02d}", heading, 0.65)
    for heading, points in (("farthest", (1, 2, 3)), ("nearest", (4, 5)))
    for point in points
]
TRUE = RNG.normal(100, 20, 24)
PREDICTED = TRUE + RNG.normal(2, 5, 24)
HISTORY = pd.DataFrame(
    {
        "epoch": [0, 1, 2],
        "train_loss": [3.0, 2.0, 1.0],
        "val_pearson": [0.1, np.nan, 0.5],
        "lr": [1.0, 1.0, 0.1],
    }
)
IMAGE = RNG.normal(size=(64, 80))

FIGURES = {
    "scatter": lambda: scatter_figure(TRUE, PREDICTED, "Nuclei_Count", groups=["P1", "P2"] * 12),
    "bland altman": lambda: bland_altman_figure(TRUE, PREDICTED, "Nuclei_Count"),
    "timeline": lambda: drift_timeline_figure([np.nan, 0.1, 0.5], 0.3, ["P1", "P1", "P2"]),
    "curve": lambda: learning_curve_figure(HISTORY),
    "example": lambda: example_figure(IMAGE, IMAGE, IMAGE, title="P1 A01 1", pixel_size_um=0.65),
    "unstained example": lambda: example_figure(IMAGE, None, IMAGE),
    "map": lambda: embedding_map_figure(RNG.normal(size=(9, 2)), list("abcabcabc"), method="PaCMAP"),
    "map of numbers": lambda: embedding_map_figure(RNG.normal(size=(9, 2)), range(9)),
}
FIGURES |= {
    "gain": lambda: gain_figure(GAIN, title="nuclei"),
    "map with thumbnails": lambda: embedding_map_figure(
        RNG.normal(size=(9, 2)), list("aaabbbccc"), title="P1", method="PaCMAP", thumbnails=THUMBNAILS
    ),
}
EMPTY = {
    "gain of nothing": lambda: gain_figure(pd.DataFrame()),
    "gain of clean wells alone": lambda: gain_figure(GAIN[GAIN["condition"] == "clean"]),
    "scatter": lambda: scatter_figure([], [], "Nuclei_Count"),
    "scatter of nothing measured": lambda: scatter_figure([np.nan], [1.0], "Nuclei_Count"),
    "scatter of one well": lambda: scatter_figure([1.0], [1.0], "Nuclei_Count"),
    "bland altman": lambda: bland_altman_figure([], [], "Nuclei_Count"),
    "bland altman of one well": lambda: bland_altman_figure([1.0], [2.0], "Nuclei_Count"),
    "timeline": lambda: drift_timeline_figure([], 1.0),
    "timeline without a verdict": lambda: drift_timeline_figure([np.nan], [np.nan]),
    "curve": lambda: learning_curve_figure(pd.DataFrame({"epoch": []})),
    "example": lambda: example_figure(np.zeros((8, 8)), np.full((8, 8), np.nan), np.zeros((8, 8))),
    "map": lambda: embedding_map_figure(np.empty((0, 2))),
}


def pixels(png):
    return matplotlib.image.imread(io.BytesIO(png))


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_a_png_with_ink_on_it(draw):
    png = draw()
    assert png.startswith(b"\x89PNG") and len(png) < 500_000
    drawn = pixels(png)
    assert min(drawn.shape[:2]) > 200 and drawn[..., :3].std() > 0.02


@pytest.mark.parametrize("draw", EMPTY.values(), ids=EMPTY)
def test_a_figure_of_nothing_says_so_instead_of_failing(draw):
    assert pixels(draw())[..., :3].min() < 0.6


def test_figures_say_what_was_computed(monkeypatch):
    texts = []

    def keep(figure, *_, **__):
        found = [text.get_text() for text in figure.findobj(lambda item: hasattr(item, "get_text"))]
        texts.append(" ".join(found))

    monkeypatch.setattr(Figure, "savefig", keep)
    scatter_figure(TRUE, PREDICTED, "Nuclei_Count")
    bland_altman_figure(TRUE, PREDICTED, "Nuclei_Count")
    r = np.corrcoef(TRUE, PREDICTED)[0, 1]
    difference = PREDICTED - TRUE
    limits = [difference.mean() + sign * 1.96 * difference.std(ddof=1) for sign in (1, -1)]
    assert f"n = 24, r = {r:.3f}, concordance = 0.9" in texts[0]
    for value in (difference.mean(), *limits):
        assert f"{value:.3g}".replace("-", "−") in texts[1]


def test_a_map_names_its_thumbnails_and_a_gain_its_corruptions(monkeypatch):
    texts = []

    def keep(figure, *_, **__):
        texts.append([text.get_text() for text in figure.findobj(lambda item: hasattr(item, "get_text"))])

    monkeypatch.setattr(Figure, "savefig", keep)
    FIGURES["map with thumbnails"]()
    FIGURES["gain"]()
    assert {"farthest", "nearest", "1  P1/A01", "5  P1/A05"} <= set(texts[0])
    assert texts[0].count("3") >= 1, "the number stands at its point too"
    assert {"defocus, severity", "contrast, severity", "lamp × 0.5", "champion", "retrained"} <= set(texts[1])
    assert "brightness, severity" not in texts[1]


def test_figures_leave_no_pyplot_state():
    code = (
        "import sys, cellabel.reports as reports\n"
        "assert not {'matplotlib', 'evidently', 'mlflow', 'torch'} & set(sys.modules)\n"
        "reports.scatter_figure([1, 2, 3], [1, 2, 4], 'x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: scatter_figure([1, 2], [1], "x"),
        lambda: drift_timeline_figure([1, 2], [1, 2, 3]),
        lambda: drift_timeline_figure([1, 2], 1, ["P1"]),
        lambda: embedding_map_figure(np.zeros((3, 5))),
        lambda: embedding_map_figure(np.zeros((3, 2)), ["a"]),
    ],
)
def test_data_that_do_not_match_are_refused(draw):
    with pytest.raises(InputError, match=r"give one|project them"):
        draw()


def test_any_figure_becomes_a_png():
    assert figure_png(Figure(), dpi=20).startswith(b"\x89PNG")


def test_the_model_card_is_on_the_face_of_this_room():
    assert model_card("golgi").startswith("# golgi")


def test_evidently_names_the_column_that_moved_and_skips_what_cannot_be_compared(tmp_path):
    rng = np.random.default_rng(1)
    reference = pd.DataFrame(rng.normal(size=(60, 2)), columns=["Er_Count", "Er_TotalArea"])
    current = pd.DataFrame(rng.normal([0, 3], size=(24, 2)), columns=reference.columns)
    for table in (reference, current):
        table["Metadata_Plate"], table["Metadata_Site"], table["Er_Constant"] = "P1", 1, 1.0
    current["Er_Empty"], reference["Er_Empty"] = np.nan, 1.0
    current.loc[3, "Er_Count"] = np.inf
    found = evidently_report(current, reference, tmp_path / "report.html")
    assert json.loads(json.dumps(found)) == found
    assert {name: column["drifted"] for name, column in found["columns"].items()} == {
        "Er_Count": False,
        "Er_TotalArea": True,
        "Er_Constant": False,
    }
    assert found["drifted"] == 1 and found["skipped"] == ["Er_Empty"]
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert "<html" in (tmp_path / "report.html").read_text()[:2000]


def test_tables_without_a_common_feature_are_refused():
    with pytest.raises(InputError, match="share no numeric feature"):
        evidently_report(pd.DataFrame({"a": [1.0]}), pd.DataFrame({"b": [1.0], "a": [np.nan]}))


def test_stains_add_up_in_their_colours_and_cells_are_outlined():
    nuclei, er = np.zeros((40, 40)), np.zeros((40, 40))
    nuclei[5:15, 5:15], er[5:30, 5:30] = 100.0, 50.0
    picture = overlay({"nuclei": nuclei, "er": er})
    assert picture.shape == (40, 40, 3) and picture.min() == 0 and picture.max() <= 1
    assert picture[35, 35].sum() == 0 and picture[25, 25].argmax() == 0, "er is magenta"
    assert (picture[10, 10] >= picture[25, 25]).all(), "both lie in the nucleus"
    outlined = overlay({"er": er}, (er > 0).astype(int))
    assert (outlined[5, 5:30] > overlay({"er": er})[5, 5:30]).any() and (outlined[35, 35] == 0).all()
    with pytest.raises(InputError, match="one field"):
        overlay({"nuclei": nuclei, "er": er[:5]})


def test_combinations_of_stains_become_panels_and_none_is_said():
    stains = {name: RNG.random((30, 30)) for name in ("nuclei", "er", "gfp")}
    cells = np.zeros((30, 30), int)
    three = matplotlib.image.imread(io.BytesIO(overlay_figure(stains, cells=cells, pixel_size_um=0.65)))
    one = matplotlib.image.imread(io.BytesIO(overlay_figure({"nuclei": stains["nuclei"]})))
    assert three.shape[1] == pytest.approx(3 * one.shape[1], abs=4) and three.std() > 0


def test_agreements_and_rankings_are_drawn_also_of_nothing():
    true = pd.DataFrame({"Metadata_Plate": "P1", "A": TRUE, "B": 1.0})
    predicted = true.assign(A=PREDICTED)
    assert agreement_figure(true, predicted, ["A", "B", "C"]).startswith(b"\x89PNG")
    assert agreement_figure(true.iloc[:0], predicted.iloc[:0], ["A"]).startswith(b"\x89PNG")
    assert agreement_figure(true, predicted, ["C"]).startswith(b"\x89PNG")
    ranking = pd.DataFrame(
        {
            "Metadata_Clone": ["c1", "c2"], "effect": [1.0, -1.0], "effect_lower": [0.5, np.nan],
            "effect_upper": [1.5, np.nan], "raw_effect": [1.2, -1.2], "p_top": [0.9, np.nan], "top": 1,
        }
    )  # fmt: skip
    assert ranking_figure(ranking).startswith(b"\x89PNG")
    assert ranking_figure(ranking.iloc[:0]).startswith(b"\x89PNG")
    levels = {
        "mean": [3.0, 3.1, 5.0],
        "centre": 3.1,
        "lower": 2.8,
        "upper": 3.4,
        "outside": [False, False, True],
    }
    chart = pd.DataFrame({"Metadata_Plate": ["P1", "P2", "P3"], **levels})
    assert control_chart_figure(chart).startswith(b"\x89PNG")
    assert control_chart_figure(chart.assign(lower=np.nan, upper=np.nan)).startswith(b"\x89PNG")
    assert control_chart_figure(chart.iloc[:0]).startswith(b"\x89PNG")
