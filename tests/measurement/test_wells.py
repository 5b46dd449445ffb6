import numpy as np
import pandas as pd
import pytest

from cellabel.errors import InputError
from cellabel.measurement import measure_field, measure_well


def fields():
    rng = np.random.default_rng(0)
    rows = []
    for well in ("A02", "A01"):
        for site in (1, 2):
            labels = np.zeros((30, 30), np.int32)
            labels[5 : 5 + 3 * site, 5:10] = 1
            if well == "A01":
                labels[20:25, 20:25] = 2
            row = measure_field(labels, rng.uniform(1, 9, labels.shape))
            rows.append(row.assign(Metadata_Plate="P1", Metadata_Well=well, Metadata_Site=site))
    return pd.concat(rows, ignore_index=True)


def test_numbers_add_up_and_means_are_taken_anew():
    table = fields()
    wells = measure_well(table)
    assert wells["Metadata_Well"].tolist() == ["A01", "A02"]
    assert wells["Nuclei_Count"].tolist() == [4, 2]
    assert wells["Metadata_FieldCount"].tolist() == [2, 2]
    one = table[table["Metadata_Well"] == "A01"]
    expected = one["Nuclei_TotalIntensity"].sum() / one["Nuclei_TotalArea"].sum()
    assert wells["Nuclei_MeanIntensity"][0] == pytest.approx(expected)
    assert wells["Nuclei_MeanIntensity"][0] != pytest.approx(one["Nuclei_MeanIntensity"].mean())
    assert wells["Nuclei_AreaShare"][0] == pytest.approx(one["Nuclei_AreaShare"].mean())


def test_a_well_without_objects_counts_zero_and_has_no_mean():
    empty = measure_field(np.zeros((5, 5), int), np.ones((5, 5)))
    well = measure_well(empty.assign(Metadata_Plate="P", Metadata_Well="A01")).iloc[0]
    assert well["Nuclei_Count"] == 0 and np.isnan(well["Nuclei_MeanIntensity"])


def test_model_versions_are_kept_apart():
    table = pd.concat([fields().assign(Metadata_ModelVersion=version) for version in ("1", "2")])
    assert len(measure_well(table)) == 4


def test_a_field_that_occurs_twice_and_a_missing_column_are_refused():
    table = fields()
    with pytest.raises(InputError, match="A02"):
        measure_well(pd.concat([table, table.iloc[:1]]))
    with pytest.raises(InputError, match="Metadata_Plate"):
        measure_well(table.drop(columns="Metadata_Plate"))
    assert len(measure_well(table.drop(columns="Metadata_Plate"), by="Metadata_Well")) == 2


def test_the_expected_area_of_a_binary_organelle_is_the_sum_of_its_probabilities():
    image = np.full((20, 30), 0.25, np.float32)
    image[5:10, 5:10] = 0.75
    labels = (image > 0.5).astype(np.int32)
    row = measure_field(labels, image, organelle="gfp", pixel_size_um=2.0).iloc[0]
    assert row["Gfp_ExpectedArea"] == pytest.approx(25 * 0.75 + 575 * 0.25)
    assert row["Gfp_ExpectedAreaUm2"] == pytest.approx(4 * row["Gfp_ExpectedArea"])
    mask = measure_field(labels, labels, organelle="gfp").iloc[0]
    assert mask["Gfp_ExpectedArea"] == mask["Gfp_TotalArea"] == 25
    assert "Nuclei_ExpectedArea" not in measure_field(labels, image, organelle="nuclei")
    fields = pd.concat([row.to_frame().T, row.to_frame().T], ignore_index=True).astype(float)
    fields = fields.assign(Metadata_Plate="P", Metadata_Well="A01", Metadata_Site=[1, 2])
    assert measure_well(fields)["Gfp_ExpectedArea"].item() == pytest.approx(2 * row["Gfp_ExpectedArea"])
