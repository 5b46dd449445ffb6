import numpy as np
import pandas as pd
import pytest

from cellabel.errors import InputError
from cellabel.selection import rank_clones, score_wells


def wells(clones=20, plates=2, replicates=2, seed=0, spread=0.6, noise=0.3):
    rng = np.random.default_rng(seed)
    effect = rng.normal(0, spread, clones)
    rows = []
    for plate in range(plates):
        level = rng.normal(0, 0.3)
        for clone in range(clones):
            for _ in range(replicates):
                count = int(rng.poisson(300))
                gfp = count * np.exp(effect[clone] + level + rng.normal(0, noise))
                rows.append((f"P{plate}", f"W{len(rows):03}", f"c{clone:02}", count, gfp, 1000.0 * count))
    names = ["Metadata_Plate", "Metadata_Well", "Metadata_Clone", "Nuclei_Count", "Gfp_TotalIntensity"]
    return pd.DataFrame(rows, columns=[*names, "Er_TotalIntensity"]), effect - effect.mean()


def test_clones_come_out_in_their_true_order():
    table, effect = wells(noise=0.05)
    ranked = rank_clones(table)
    assert ranked["rank"].tolist() == list(range(1, 21))
    order = ranked["Metadata_Clone"].str[1:].astype(int).to_numpy()
    assert np.corrcoef(effect[order], ranked["effect"])[0, 1] > 0.99
    assert ranked["factor"].to_numpy() == pytest.approx(np.exp(ranked["effect"]))


def test_intervals_cover_true_effects_as_often_as_they_promise():
    covered = []
    for seed in range(25):
        table, effect = wells(seed=seed)
        ranked = rank_clones(table, level=0.9, draws=1000)
        true = effect[ranked["Metadata_Clone"].str[1:].astype(int)]
        covered += list((ranked["effect_lower"] <= true) & (true <= ranked["effect_upper"]))
    assert 0.85 <= np.mean(covered) <= 0.96


def test_a_clone_with_fewer_wells_is_pulled_more_and_less_certain():
    table, _ = wells()
    best = rank_clones(table).iloc[0]["Metadata_Clone"]
    fewer = table.drop(table.index[table["Metadata_Clone"] == best][1:])
    one, all_of_them = (rank_clones(part).set_index("Metadata_Clone").loc[best] for part in (fewer, table))
    assert one["n_wells"] == 1 and all_of_them["n_wells"] == 4
    width = one["effect_upper"] - one["effect_lower"]
    assert width > all_of_them["effect_upper"] - all_of_them["effect_lower"]
    assert abs(one["effect"]) < abs(one["raw_effect"])


def test_clones_that_do_not_differ_are_pulled_together():
    table, _ = wells(spread=0.0, seed=4)
    ranked = rank_clones(table)
    assert ranked["effect"].abs().max() < 0.5 * ranked["raw_effect"].abs().max()


def test_the_chances_to_be_among_the_best_add_up_to_how_many_those_are():
    table, _ = wells()
    for top in (1, 3):
        ranked = rank_clones(table, top=top)
        assert ranked["p_top"].sum() == pytest.approx(top)
        assert ranked["p_top"].iloc[0] == ranked["p_top"].max()
    assert rank_clones(table)["top"].unique() == [2]


def test_a_plates_level_is_not_a_clones_merit():
    table, _ = wells(noise=0.05)
    shifted = table.assign(
        Gfp_TotalIntensity=table["Gfp_TotalIntensity"] * np.where(table["Metadata_Plate"] == "P1", 50, 1)
    )
    pd.testing.assert_series_equal(rank_clones(table)["effect"], rank_clones(shifted)["effect"], atol=1e-6)


def test_without_clones_wells_stand_for_them_and_the_table_says_so():
    table, _ = wells(plates=1, replicates=1)
    with pytest.warns(UserWarning, match="wells stand for them"):
        ranked = rank_clones(table.drop(columns="Metadata_Clone"))
    assert (ranked["ranked_unit"] == "well").all()
    assert ranked["reason"].str.contains("no interval").all()
    assert ranked["effect_lower"].isna().all() and ranked["p_top"].isna().all()
    assert ranked["Metadata_Well"].iloc[0].startswith("P0/")


def test_controls_are_left_out_where_roles_are_known():
    table, _ = wells()
    roles = np.where(table["Metadata_Clone"] == "c00", "parental", "sample")
    ranked = rank_clones(table.assign(Metadata_Role=roles))
    assert "c00" not in set(ranked["Metadata_Clone"])
    with pytest.raises(InputError, match="roles"):
        rank_clones(table.assign(Metadata_Role="blank"))


def test_scores_can_be_named_taken_from_a_column_or_mixed():
    table, _ = wells()
    np.testing.assert_allclose(
        score_wells(table, "gfp_per_cell"), np.log(table["Gfp_TotalIntensity"] / table["Nuclei_Count"])
    )
    np.testing.assert_allclose(score_wells(table, "Er_TotalIntensity"), np.log(table["Er_TotalIntensity"]))
    mixed = rank_clones(table, score={"gfp_per_cell": 1.0, "gfp_per_er": 0.5, "count": 0.1})
    assert mixed["factor"].isna().all() and mixed["effect"].notna().all()
    with pytest.raises(InputError, match="Golgi_Count"):
        score_wells(table, "Golgi_Count")
    with pytest.raises(InputError, match="gfp_per_cell"):
        score_wells(table, {})


def test_a_well_without_gfp_is_low_and_one_without_nuclei_is_missing():
    table = pd.DataFrame({"Gfp_TotalIntensity": [0.0, 10.0, 20.0], "Nuclei_Count": [5, 5, 0]})
    score = score_wells(table, "gfp_per_cell")
    assert score[0] == pytest.approx(np.log(1.0)) and np.isnan(score[2])


def test_few_cells_are_flagged():
    table, _ = wells()
    ranked = rank_clones(table.assign(Nuclei_Count=30)).set_index("Metadata_Clone")
    assert ranked["few_cells"].all()
    assert not rank_clones(table)["few_cells"].any()


def test_a_missing_plate_column_is_refused():
    with pytest.raises(InputError, match="Metadata_Plate"):
        rank_clones(wells()[0].drop(columns="Metadata_Plate"))
