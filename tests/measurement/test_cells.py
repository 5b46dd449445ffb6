"""Cells joined over stains, their flags, and what wells make of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from cellabel.errors import InputError
from cellabel.measurement import (
    Layer,
    assign_cytoplasm,
    bimodality,
    count_interval,
    flag_cells,
    gfp_threshold,
    join_cells,
    measure_objects,
    positive_probability,
    state_probabilities,
    summarise_wells,
)

SIZE = 96


def disks(centres, radius, size=SIZE):
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    for number, (cy, cx) in enumerate(centres, 1):
        labels[np.hypot(y - cy, x - cx) <= radius] = number
    return labels


CENTRES = [(20, 20), (20, 38), (60, 60), (94, 30)]


def layers(gfp=(1.0, 0.0, 0.0, 0.0)):
    """Two touching cells, one alone, one at the border; an ER that is brightest around each nucleus."""
    nuclei, bodies = disks(CENTRES, 5), disks(CENTRES, 10)
    body = np.maximum.reduce([gaussian_filter((bodies == n).astype(float), 3) for n in range(1, 5)])
    lit = sum(level * (bodies == number) for number, level in enumerate(gfp, 1))
    return {
        "nuclei": Layer(1000.0 * (nuclei > 0), nuclei),
        "er": Layer(500 * body, (bodies > 0).astype(np.int32)),
        "gfp": Layer(lit, (lit > 0.5).astype(np.int32)),
    }


def test_touching_cells_meet_halfway_between_their_nuclei():
    parts = layers()
    cells = assign_cytoplasm(parts["nuclei"].labels, parts["er"].labels, parts["er"].image, smoothing_px=1)
    assert set(np.unique(cells)) == {0, 1, 2, 3, 4}
    assert (cells[parts["nuclei"].labels > 0] == parts["nuclei"].labels[parts["nuclei"].labels > 0]).all()
    border = int(np.flatnonzero(np.diff(cells[20].astype(int)) == 1)[-1])
    assert abs(border - 29) <= 1
    assert (cells > 0).sum() == (parts["er"].labels > 0).sum()


def test_every_cell_has_its_nucleus_its_er_and_its_gfp():
    parts = layers()
    joined = join_cells(parts, pixel_size_um=0.5)
    table = joined.table
    expected = measure_objects(parts["nuclei"].labels, parts["nuclei"].image, pixel_size_um=0.5)
    pd.testing.assert_frame_equal(
        table[expected.columns].drop(columns="Metadata_TouchesBorder"),
        expected.drop(columns="Metadata_TouchesBorder"),
    )
    for number in range(1, 5):
        inside = joined.labels == number
        row = table.iloc[number - 1]
        assert row["Cells_AreaShape_Area"] == inside.sum()
        assert row["Cells_Intensity_IntegratedIntensity_Er"] == pytest.approx(parts["er"].image[inside].sum())
        assert row["Cells_Intensity_MeanIntensity_Gfp"] == pytest.approx(parts["gfp"].image[inside].mean())
        nucleus = (parts["nuclei"].labels == number).sum()
        assert row["Cells_NucleusCytoplasmRatio"] == pytest.approx(nucleus / (inside.sum() - nucleus))
    assert table["Cells_AreaOccupied_Gfp"].gt(0).tolist() == [True, False, False, False]
    assert table["Metadata_TouchesBorder"].tolist() == [False, False, False, True]
    assert set(table["Metadata_CellOutline"]) == {"er"}
    assert joined.area_share == pytest.approx((parts["er"].labels > 0).mean())
    assert joined.orphan_share == 0


def test_without_a_body_a_cell_reaches_a_little_beyond_its_nucleus_and_says_so():
    nuclei = layers()["nuclei"]
    joined = join_cells({"nuclei": nuclei}, pixel_size_um=1.0)
    assert set(joined.table["Metadata_CellOutline"]) == {"nuclei"}
    alone = joined.table.iloc[2]
    assert alone["Cells_AreaShape_DiameterUm"] == pytest.approx(2 * (5 + 5), abs=1.5)


def test_a_body_without_a_nucleus_is_an_orphan_and_a_nucleus_without_a_body_is_a_cell():
    parts = layers()
    lonely = np.where(parts["nuclei"].labels == 3, 0, parts["nuclei"].labels)
    joined = join_cells({**parts, "nuclei": Layer(parts["nuclei"].image, lonely)})
    assert len(joined.table) == 3 and 0.1 < joined.orphan_share < 0.5
    bare = join_cells({**parts, "er": Layer(parts["er"].image, np.zeros_like(parts["er"].labels))})
    assert bare.table["Cells_AreaShape_Area"].tolist() == bare.table["Nuclei_AreaShape_Area"].tolist()
    assert bare.table["Cells_NucleusCytoplasmRatio"].isna().all()


def test_no_nucleus_gives_no_cell_but_the_same_columns():
    parts = layers()
    empty = Layer(parts["nuclei"].image, np.zeros_like(parts["nuclei"].labels))
    joined = join_cells({**parts, "nuclei": empty})
    assert joined.table.empty and list(joined.table.columns) == list(join_cells(parts).table.columns)
    assert joined.orphan_share == 1


def test_labels_beyond_sixteen_bits_with_gaps_are_joined():
    parts = layers()
    far = np.where(parts["nuclei"].labels > 0, 70_000 * parts["nuclei"].labels, 0)
    table = join_cells({**parts, "nuclei": Layer(parts["nuclei"].image, far)}).table
    assert table["Metadata_ObjectNumber"].tolist() == [70_000, 140_000, 210_000, 280_000]
    assert table["Cells_AreaShape_Area"].tolist() == join_cells(parts).table["Cells_AreaShape_Area"].tolist()


def test_what_cannot_be_joined_is_refused():
    parts = layers()
    with pytest.raises(InputError, match="joined by their nuclei"):
        join_cells({"er": parts["er"]})
    with pytest.raises(InputError, match="gfp layer is"):
        join_cells({**parts, "gfp": Layer(np.zeros((3, 3)), np.zeros((3, 3), int))})


@settings(max_examples=10, deadline=None)
@given(gain=st.floats(0.01, 100), turns=st.integers(1, 3))
def test_gain_scales_what_a_cell_holds_and_a_turned_field_has_the_same_cells(gain, turns):
    parts = layers((1.0, 0.5, 0.25, 0.75))
    base = join_cells(parts).table
    brighter = {**parts, "gfp": Layer(parts["gfp"].image * gain, parts["gfp"].labels)}
    total = "Cells_Intensity_IntegratedIntensity_Gfp"
    np.testing.assert_allclose(join_cells(brighter).table[total], base[total] * gain, rtol=1e-9)
    turned = {
        name: Layer(np.rot90(part.image, turns), np.rot90(part.labels, turns)) for name, part in parts.items()
    }
    area = join_cells(turned).table["Cells_AreaShape_Area"]
    assert np.abs(area - base["Cells_AreaShape_Area"]).max() <= 0.02 * area.max()  # ties on the watershed


def population(n=400, seed=0, role="sample"):
    """Joined cells of one plate, as a table: mostly live, some small without ER, some bright and round."""
    rng = np.random.default_rng(seed)
    state = rng.choice(["live", "dead", "mitotic"], n, p=[0.85, 0.1, 0.05])
    dead, mitotic = state == "dead", state == "mitotic"
    area = 100 * np.exp(0.15 * rng.normal(size=n)) * np.where(dead, 0.35, np.where(mitotic, 0.75, 1))
    body = np.where(dead, 45, np.where(mitotic, 150, 330)) * np.exp(0.2 * rng.normal(size=n))
    er = 500 * np.exp(0.2 * rng.normal(size=n)) * np.where(dead, 0.05, np.where(mitotic, 2, 1))
    gfp = np.where(rng.random(n) < 0.5, 200.0, 10.0) * np.exp(0.2 * rng.normal(size=n))
    table = pd.DataFrame(
        {
            "Metadata_Plate": "P1",
            "Metadata_Well": rng.choice(["A01", "A02"], n),
            "Metadata_Site": rng.choice([1, 2], n),
            "Metadata_Role": role,
            "Metadata_TouchesBorder": rng.random(n) < 0.1,
            "Nuclei_AreaShape_AreaUm2": area,
            "Nuclei_Intensity_MeanIntensity": 1000
            * np.where(mitotic, 2.0, 1)
            * np.exp(0.1 * rng.normal(size=n)),
            "Nuclei_Intensity_IntegratedIntensity": 1000 * area,
            "Nuclei_Intensity_StdIntensity": 200 * np.exp(0.1 * rng.normal(size=n)),
            "Nuclei_AreaShape_FormFactor": 0.9 + 0.05 * rng.normal(size=n),
            "Nuclei_AreaShape_Eccentricity": np.where(dead, 0.3, 0.6) + 0.05 * rng.normal(size=n),
            "Cells_Neighbors_FirstClosestRatio": np.exp(0.3 * rng.normal(size=n)) * 1.4,
            "Cells_AreaShape_AreaUm2": body,
            "Cells_AreaShape_DiameterUm": np.sqrt(4 * body / np.pi),
            "Cells_AreaShape_FormFactor": 0.8 + 0.05 * rng.normal(size=n),
            "Cells_NucleusCytoplasmRatio": area / body,
            "Cells_Intensity_MeanIntensity_Er": er,
            "Cells_Intensity_IntegratedIntensity_Er": er * body,
            "Cells_Intensity_MeanIntensity_Gfp": gfp,
            "Cells_Intensity_IntegratedIntensity_Gfp": gfp * body,
        }
    )
    return table, state


def with_parental(seed=0):
    samples, state = population(seed=seed)
    parental, _ = population(200, seed + 1, role="parental")
    parental["Metadata_Well"] = "B01"
    dim = 10 * np.exp(0.2 * np.random.default_rng(seed).normal(size=len(parental)))
    parental["Cells_Intensity_MeanIntensity_Gfp"] = dim
    return pd.concat([samples, parental], ignore_index=True), state


def test_probabilities_add_up_and_tell_the_dead_from_the_living():
    table, state = population()
    told = state_probabilities(table)
    np.testing.assert_allclose(told[["live", "dead", "mitotic"]].sum(axis=1), 1)
    assert told["doublet"].between(0, 1).all()
    assert told["dead"][state == "dead"].mean() > 0.8 and told["dead"][state == "live"].mean() < 0.05
    closer = table.assign(Cells_Neighbors_FirstClosestRatio=np.where(np.arange(len(table)) < 20, 0.4, 1.5))
    pairs = state_probabilities(closer)["doublet"]
    assert pairs[:20].mean() > pairs[20:].mean() + 0.1


def test_without_a_body_the_nuclei_alone_are_asked():
    table, state = population()
    told = state_probabilities(table[[name for name in table if not name.endswith("_Er")]])
    assert told["dead"][state == "dead"].mean() > told["dead"][state == "live"].mean() + 0.2


def test_the_gfp_threshold_is_the_parental_wells_mean_and_three_deviations():
    table, _ = with_parental()
    flagged = flag_cells(table)
    parental = table["Metadata_Role"] == "parental"
    values = table["Cells_Intensity_MeanIntensity_Gfp"][parental & ~flagged["Cells_IsDebris"]]
    threshold = values.mean() + 3 * values.std()
    assert flagged["Metadata_GfpThreshold"].iloc[0] == pytest.approx(threshold)
    positive = flagged["Cells_GfpPositive"].astype("Float64")
    bright = table["Cells_Intensity_MeanIntensity_Gfp"] > 60
    assert positive[~parental].mean() == pytest.approx(bright[~parental].mean(), abs=0.02)
    assert positive[parental].mean() < 0.03
    chance = flagged["Cells_GfpPositiveProbability"]
    assert chance[bright].min() > 0.95 and chance[parental].mean() < 0.05
    dimmer = flag_cells(
        table.assign(Cells_Intensity_MeanIntensity_Gfp=table.filter(like="Mean").iloc[:, -1] / 7)
    )
    assert dimmer["Cells_GfpPositive"].equals(flagged["Cells_GfpPositive"]), "units do not matter"


def test_without_parental_wells_no_cell_is_called_positive_and_the_table_says_why():
    flagged = flag_cells(population()[0])
    assert flagged["Cells_GfpPositive"].isna().all() and flagged["Metadata_GfpThreshold"].isna().all()
    assert flagged["Metadata_GfpReason"].str.contains("parental").all()
    with pytest.raises(InputError, match="3 parental cells"):
        gfp_threshold(np.ones(3))


def test_the_chance_to_be_positive_is_calibrated_and_never_falls():
    rng = np.random.default_rng(0)
    null, positive = rng.normal(10, 2, 3000), rng.random(4000) < 0.3
    values = np.where(positive, rng.normal(16, 3, 4000), rng.normal(10, 2, 4000))
    told = positive_probability(values, null)
    for low, high in ((0.2, 0.5), (0.5, 0.8), (0.8, 1.01)):
        inside = (told >= low) & (told < high)
        assert positive[inside].mean() == pytest.approx(told[inside].mean(), abs=0.12)
    assert (np.diff(told[np.argsort(values)]) >= -1e-12).all()
    assert np.isnan(positive_probability(np.array([np.nan]), null)[0])


def test_debris_is_no_cell_and_only_whole_single_live_cells_are_usable():
    table, _ = population()
    table.loc[:9, "Nuclei_AreaShape_AreaUm2"] = 3.0
    flagged = flag_cells(table)
    assert flagged["Cells_IsDebris"].sum() == 10 and flagged["Cells_IsDebris"][:10].all()
    assert flagged["Cells_LiveProbability"][:10].isna().all()
    usable = flagged[flagged["Cells_IsUsable"]]
    assert not usable["Metadata_TouchesBorder"].any() and not usable["Cells_IsDebris"].any()
    assert usable["Cells_IsLive"].all() and not usable["Cells_IsDoublet"].any()
    nothing = flag_cells(table.iloc[:0])
    assert nothing.empty and list(nothing.columns) == list(flagged.columns)


def fields(wells=("A01", "A02", "B01", "C01")):
    rows = [("P1", well, site, 0.4) for well in wells for site in (1, 2)]
    return pd.DataFrame(rows, columns=["Metadata_Plate", "Metadata_Well", "Metadata_Site", "AreaShare"])


def test_a_well_is_summed_up_from_its_cells():
    table, _ = with_parental()
    flagged = flag_cells(table)
    wells = summarise_wells(flagged, fields()).set_index("Metadata_Well")
    assert list(wells.index) == ["A01", "A02", "B01", "C01"]
    here = flagged[flagged["Metadata_Well"] == "A01"]
    row = wells.loc["A01"]
    assert row["Cells_Count"] == (~here["Cells_IsDebris"]).sum()
    assert row["Cells_LiveCount"] == pytest.approx(here["Cells_LiveProbability"].sum())
    assert row["Cells_LiveCount_Lower"] < row["Cells_LiveCount"] < row["Cells_LiveCount_Upper"]
    assert row["Cells_Viability_Lower"] < row["Cells_Viability"] < row["Cells_Viability_Upper"] <= 1
    assert row["Cells_Viability"] == pytest.approx(0.9, abs=0.06) and row["Cells_Confluence"] == 0.4
    assert row["Cells_GfpPositiveShare"] == pytest.approx(0.5, abs=0.12)
    usable = here[here["Cells_IsUsable"]]
    assert row["Cells_UsableCount"] == len(usable) and row["Cells_FewUsable"]
    total = usable["Cells_Intensity_IntegratedIntensity_Gfp"]
    assert row["Cells_Median_GfpPerCell"] == pytest.approx(total.median())
    assert row["Cells_CV_GfpPerCell"] == pytest.approx(total.std() / total.mean())
    assert row["Cells_MayBeMixed_GfpPerCell"], "half of the cells shine"
    assert not row["Cells_MayBeMixed_NucleusAreaUm2"]


def test_a_well_without_cells_has_counts_of_zero_and_no_shares():
    wells = summarise_wells(flag_cells(with_parental()[0]), fields()).set_index("Metadata_Well")
    row = wells.loc["C01"]
    assert row["Cells_Count"] == row["Cells_LiveCount"] == row["Cells_UsableCount"] == 0
    assert row["Cells_LiveCount_Upper"] == pytest.approx(3.0, abs=0.01), "the rule of three"
    assert np.isnan(row["Cells_Viability"]) and row["Cells_FewUsable"]
    nothing = summarise_wells(flag_cells(with_parental()[0]).iloc[:0], fields())
    assert (nothing["Cells_Count"] == 0).all()


@pytest.mark.parametrize(("mean", "spread"), [(3.0, 0.0), (30.0, 0.0), (40.0, 0.4)])
def test_intervals_of_counts_cover_the_wells_mean(mean, spread):
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(600):
        counts = rng.poisson(mean * np.exp(spread * rng.normal(size=4) - spread**2 / 2))
        lower, upper = count_interval(counts)
        covered.append(lower <= 4 * mean <= upper)
    # Four fields that differ tell their own spread poorly.
    assert (0.88 if spread == 0 else 0.76) <= np.mean(covered) <= 0.97


def test_two_groups_are_told_from_one():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=300), np.concatenate([rng.normal(-3, 1, 150), rng.normal(3, 1, 150)])
    assert bimodality(one) < 5 / 9 < bimodality(two)
    assert np.isnan(bimodality(np.ones(50))) and np.isnan(bimodality(one[:5]))
