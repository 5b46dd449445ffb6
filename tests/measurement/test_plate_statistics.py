"""Windows, edges, rows and columns of a plate, and the reference clone over plates."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel.errors import InputError
from cellabel.measurement import assay_window, edge_effect, median_polish, plate_statistics, reference_chart


def plate(rows=8, columns=12, seed=0):
    rng = np.random.default_rng(seed)
    names = [f"{chr(65 + row)}{column + 1:02d}" for row in range(rows) for column in range(columns)]
    return pd.DataFrame({"Metadata_Well": names, "F": rng.normal(100, 5, len(names))})


def test_z_prime_needs_eight_wells_of_each_control():
    rng = np.random.default_rng(0)
    high, low = rng.normal(100, 5, 8), rng.normal(10, 5, 8)
    found = assay_window(high, low)
    expected = 1 - 3 * (high.std(ddof=1) + low.std(ddof=1)) / abs(high.mean() - low.mean())
    assert found["window"] == "Z'" and found["value"] == pytest.approx(expected) and found["reason"] == ""
    few = assay_window(high[:7], low)
    ssmd = (high[:7].mean() - low.mean()) / np.hypot(high[:7].std(ddof=1), low.std(ddof=1))
    assert few["window"] == "SSMD" and few["value"] == pytest.approx(ssmd) and "needs 8" in few["reason"]


@pytest.mark.parametrize(
    ("high", "low"), [([1.0], [2.0, 3.0]), ([], []), ([5.0] * 9, [5.0] * 9), ([np.nan] * 9, [1.0, 2.0])]
)
def test_a_window_that_cannot_be_computed_says_so(high, low):
    found = assay_window(np.array(high), np.array(low))
    assert found["window"] == "not computable" and np.isnan(found["value"]) and found["reason"]


def test_the_outermost_wells_are_compared_with_the_others():
    table = plate()
    row = table["Metadata_Well"].str[0]
    column = table["Metadata_Well"].str[1:].astype(int)
    edge = row.isin(["A", "H"]) | column.isin([1, 12])
    found = edge_effect(table.assign(F=table["F"] * np.where(edge, 0.8, 1.0)), "F")
    assert found["n_edge"] == 36 and found["n_interior"] == 60
    assert found["ratio"] == pytest.approx(0.8, abs=0.03) and found["p_value"] < 1e-6
    assert edge_effect(table, "F")["p_value"] > 0.01
    assert "fewer than 3" in edge_effect(plate(2, 3), "F")["reason"]


def test_rows_and_columns_are_polished_away():
    table = plate()
    rows = table["Metadata_Well"].str[0].map(lambda letter: 10.0 * (ord(letter) - 65)).to_numpy()
    columns = 3.0 * table["Metadata_Well"].str[1:].astype(int).to_numpy()
    shifted = table.assign(F=table["F"] + rows + columns)
    found = median_polish(shifted, "F")
    np.testing.assert_allclose(found["row_effect"], rows - np.median(rows), atol=4)
    assert np.corrcoef(found["residual"], rows)[0, 1] == pytest.approx(0, abs=0.15)
    assert found["polished"].std() < 6 < shifted["F"].std()


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_parts_of_a_polished_plate_add_up_whatever_is_missing(data):
    table = plate(3, 4, seed=data.draw(st.integers(0, 99)))
    gone = data.draw(st.lists(st.integers(0, 11), max_size=8))
    table.loc[gone, "F"] = np.nan
    found = median_polish(table, "F")
    total = found["polished"] + found["row_effect"] + found["column_effect"]
    np.testing.assert_allclose(total[found["value"].notna()], found["value"].dropna(), rtol=1e-9)
    assert found["residual"].isna().equals(found["value"].isna())


def test_a_plate_is_judged_feature_by_feature():
    table = plate().assign(Metadata_Role="sample", G=1.0)
    table.loc[:8, "Metadata_Role"], table.loc[:8, "F"] = "high_producer", 300 + np.arange(9.0)
    table.loc[20:28, "Metadata_Role"] = "parental"
    found = plate_statistics(table, ["F", "G"]).set_index("feature")
    assert found.loc["F", "window"] == "Z'" and found.loc["F", "window_value"] > 0.5
    assert found.loc["G", "window"] == "not computable" and found.loc["G", "row_spread"] == 0
    bare = plate_statistics(plate(), ["F"]).iloc[0]
    assert bare["window"] == "not computable" and bare["n_wells"] == 96


def test_the_reference_clone_is_charted_over_plates():
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {
                "Metadata_Plate": f"P{number}",
                "Metadata_Role": ["reference"] * 3 + ["sample"] * 5,
                "F": np.exp(rng.normal(3 if number != 12 else 5, 0.05, 8)),
            }
        )
        for number in range(13)
    ]
    chart = reference_chart(pd.concat(parts), "F")
    assert chart["Metadata_Plate"].tolist() == [f"P{number}" for number in range(13)]
    assert chart.set_index("Metadata_Plate")["outside"].to_dict() == {f"P{n}": n == 12 for n in range(13)}
    assert reference_chart(pd.concat(parts[:2]), "F")["lower"].isna().all()
    with pytest.raises(InputError, match="reference"):
        reference_chart(parts[0].assign(Metadata_Role="sample"), "F")


def test_what_is_no_well_is_refused():
    with pytest.raises(InputError, match="'Z9'"):
        edge_effect(pd.DataFrame({"Metadata_Well": ["Z9"], "F": [1.0]}), "F")
