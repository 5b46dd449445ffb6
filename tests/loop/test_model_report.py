"""What is written beside a model: tables with intervals, costs, and the card that is made of them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from cellabel.evaluation import CLEAN, error_table
from cellabel.loop.costs import Meter, priced
from cellabel.loop.held_out import HeldOut
from cellabel.loop.model_report import condition_table, plate_table, write_tables
from cellabel.loop.reliability import write_intervals
from cellabel.organelles import organelle
from cellabel.registry import model_card
from cellabel.registry._card import LONGEST, Report
from cellabel.settings import MachinePrice

NUCLEI = organelle("nuclei")


def held_out(errors, *, plates=3, wells=6, seed=0):
    """Measurements whose log errors scatter with a size of their own under each condition."""
    random = np.random.default_rng(seed)
    rows = []
    for plate in range(plates):
        for well in range(wells):
            key = {
                "Metadata_Plate": f"H{plate}",
                "Metadata_Well": f"A{well + 1:02d}",
                "Metadata_Site": 1,
                "Metadata_Clone": f"c{well // 2}",
                "Metadata_Instrument": "scope",
            }
            truth = np.array([50.0, 4000.0, 8e6, 2000.0]) * np.exp(random.normal(0, 0.3))
            features = dict(zip(NUCLEI.primary_metrics, truth, strict=True))
            rows.append({**key, "side": "true", "condition": CLEAN, **features})
            for condition, size in errors.items():
                said = truth * np.exp(random.normal(0, size, 4))
                row = {**key, "side": "predicted", "condition": condition, "pixel_pearson": 0.9 - size}
                row |= {"clipped_share": 0.25, **dict(zip(NUCLEI.primary_metrics, said, strict=True))}
                rows.append(row)
    return HeldOut(pd.DataFrame(rows), pd.DataFrame())


MEASURED = held_out({CLEAN: 0.05, "defocus 2 µm": 0.2, "contrast +3": 0.3})


def test_every_condition_has_an_error_with_an_interval_and_agreement():
    table = condition_table(MEASURED, NUCLEI)
    assert len(table) == 3 * len(NUCLEI.primary_metrics)
    assert table["condition"].unique().tolist() == [CLEAN, "defocus 2 µm", "contrast +3"]
    assert (table["mean_error_ci_lower"] <= table["mean_error"]).all()
    assert (table["mean_error"] <= table["mean_error_ci_upper"]).all()
    means = table.groupby("condition")["mean_error"].mean()
    assert means[CLEAN] < means["defocus 2 µm"] < means["contrast +3"]
    known = table.dropna(subset=["pearson"])  # the mean is total over area, which vary together here
    assert set(known["metric"]) == set(NUCLEI.primary_metrics[:3])
    assert known["pearson"].between(known["pearson_ci_lower"], known["pearson_ci_upper"]).all()
    assert set(table["n_wells"]) == {18} and table["clipped_share"].iloc[0] == 0.25


def test_every_labelled_plate_has_rows_that_say_whether_it_was_trained_on():
    seen = held_out({CLEAN: 0.01}, plates=1)
    table = plate_table({"held out": MEASURED, "trained on": seen}, NUCLEI)
    assert table.groupby(["plate", "side"]).size().to_dict() == {
        ("H0", "held out"): 4,
        ("H0", "trained on"): 4,
        ("H1", "held out"): 4,
        ("H2", "held out"): 4,
    }


def test_an_interval_of_errors_covers_the_truth_nineteen_times_in_twenty():
    covered = 0
    for run in range(200):
        random = np.random.default_rng(run)
        rows = pd.DataFrame({"metric": "m", "plate": np.repeat(list("abcdefgh"), 6), "clone": pd.NA})
        plate = np.repeat(random.normal(0, 0.02, 8), 6)
        rows["log_error"] = 0.2 + plate + random.normal(0, 0.05, 48)
        row = error_table(rows, n_bootstrap=300, seed=run).iloc[0]
        covered += row["mean_error_ci_lower"] <= 0.2 <= row["mean_error_ci_upper"]
    assert covered >= 182


@pytest.fixture
def folder(tmp_path):
    write_tables(tmp_path, MEASURED, None, NUCLEI)
    MEASURED.agreement().to_csv(tmp_path / "agreement.csv", index=False)
    prices = {"a-small-cloud-machine": MachinePrice(per_hour=0.1, speed=2.0)}
    write_intervals(tmp_path, MEASURED)
    cost = priced(120.0, 7200.0, "2 threads", prices, "EUR")
    (tmp_path / "cost.json").write_text(json.dumps(cost))
    (tmp_path / "environment.json").write_text(
        json.dumps({"python": "3.11.9", "packages": {"torch": "2.13"}})
    )
    (tmp_path / "example.png").write_bytes(b"png")
    (tmp_path / "embeddings.parquet").write_bytes(b"")
    return tmp_path


def test_the_numbers_of_a_report_are_names_that_mlflow_takes(tmp_path):
    metrics = write_tables(tmp_path, MEASURED, None, NUCLEI)
    assert metrics["error clean Nuclei_Count"] < metrics["error defocus 2 um Nuclei_Count"]
    assert "error contrast 3 Nuclei_Count" in metrics and "error on H1 Nuclei_Count" in metrics
    assert metrics["pearson_Nuclei_Count_lower"] < metrics["pearson_Nuclei_Count_upper"]
    assert all(name.isascii() and not set(name) & set("+×") for name in metrics)


def test_a_card_tells_everything_that_lies_beside_the_weights(folder):
    tags = {"git_commit": "abc", "gate_reason": "Not promoted: worse.", "detector.scope": "epoch n-v1-1, f00"}
    card = model_card("nuclei", config={"target": "continuous"}, tags=tags, report=Report.read(folder))
    for part in (
        "**Commit:** `abc`",
        "120 s on 2 threads; 2 Wh; 0.00167 EUR on a-small-cloud-machine",
        "Python 3.11.9, torch 2.13",
        "**Gate:** Not promoted: worse.",
        "| Nuclei_Count |",
        "| defocus 2 µm | 18 |",
        "| H1 | held out | 6 |",
        "| 90%, these plates |",
        "Drift detector on scope: epoch n-v1-1, f00",
        "`embeddings.parquet`",
        "`example.png`",
    ):
        assert part in card, part


def test_a_card_is_cut_to_what_mlflow_keeps_and_says_so(folder):
    many = held_out({CLEAN: 0.05} | {f"defocus {k} µm": 0.1 for k in range(1, 60)}, plates=4)
    write_tables(folder, many, None, NUCLEI)
    report = Report.read(folder)
    whole, cut = model_card("nuclei", report=report), model_card("nuclei", report=report, longest=LONGEST)
    assert len(whole) > LONGEST >= len(cut) and "more rows" in cut and "more rows" not in whole
    assert cut.rstrip().endswith("Not for diagnosis.")


def test_time_and_energy_are_measured_where_the_platform_counts_them(tmp_path):
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("10000000")
    (package / "energy_uj").write_text("9000000")
    with Meter(tmp_path) as meter:
        (package / "energy_uj").write_text("1000000")  # the counter has gone round
    assert meter.joules == pytest.approx(2.0) and meter.seconds >= 0
    with Meter(tmp_path / "nothing") as meter:
        pass
    assert meter.joules is None


def test_a_cost_without_prices_or_energy_says_so():
    cost = priced(60.0, None, "a card", {}, "USD")
    assert cost["energy_kwh"] is None and cost["money"] == {}
    card = model_card("er", report=Report(cost=cost))
    assert "60 s on a card; energy not told by the platform" in card
