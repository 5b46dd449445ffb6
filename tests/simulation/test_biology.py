"""Plans, clones, cells and variance components, drawn without an image."""

import numpy as np
import pandas as pd
import pytest

from cellabel.simulation import VARIANCE_COMPONENTS, Culture, Microscope
from cellabel.simulation._cells import FieldBiology, draw_cells
from cellabel.simulation._clones import draw_clone
from cellabel.simulation._conditions import draw_conditions, draw_instrument
from cellabel.simulation._physics import FAMILIES
from cellabel.simulation._plan import draw_plan, plate_format, well_names

PHYSICS = FAMILIES["a"]
BIOLOGY = FieldBiology(
    extent_um=400, confluence=0.5, dead=0.03, rounded=0.07, doublets=0.1, area_factor=1.0, index_factor=1.0,
    motion_um_min=0.0, well_log_gfp=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def population() -> pd.DataFrame:
    tables = []
    for i in range(30):
        clone = draw_clone(f"CL{i:03d}", "sample", "a", PHYSICS)
        cells = draw_cells(np.random.default_rng(i), clone, BIOLOGY, PHYSICS)
        tables.append(cells.assign(clone=clone.name, field=i))
    return pd.concat(tables, ignore_index=True)


def test_the_plan_of_24_wells_has_controls_and_randomised_clones():
    plan = draw_plan(well_names(24), Culture(), seed=0)
    assert plan["role"].value_counts().to_dict() == {"sample": 19, "parental": 2, "reference": 2, "blank": 1}
    assert list(plan["Metadata_Well"][:7]) == ["A01", "A02", "A03", "A04", "A05", "A06", "B01"]
    assert list(plan["order"]) == list(range(1, 25))
    samples = plan[plan["role"] == "sample"]
    assert samples["clone"].nunique() == 6
    assert not samples["clone"].is_monotonic_increasing
    assert (
        samples.groupby("clone")["replicate"].apply(lambda r: sorted(r) == list(range(1, len(r) + 1)))
    ).all()
    assert not plan.equals(draw_plan(well_names(24), Culture(), seed=1))


def test_a_confounded_plan_fills_columns_clone_by_clone():
    plan = draw_plan(well_names(24), Culture(confounded=True, parental=0, reference=0, blanks=0), seed=0)
    columns = plan.assign(column=plan["Metadata_Well"].str[1:].astype(int)).groupby("clone")["column"]
    assert (columns.max() - columns.min()).max() <= 1


@pytest.mark.parametrize(
    ("n", "size"), [(1, (1, 1)), (12, (3, 4)), (24, (4, 6)), (60, (8, 12)), (384, (16, 24))]
)
def test_wells_fill_the_smallest_plate(n, size):
    names = well_names(n)
    assert len(set(names)) == n
    assert plate_format(well_names(size[0] * size[1])) == size


def test_well_names_are_put_in_plate_order():
    assert well_names(["C05", "A10", "A02"]) == ["A02", "A10", "C05"]


def test_a_clone_is_its_name():
    assert draw_clone("CL001", "sample", "a", PHYSICS) == draw_clone("CL001", "sample", "a", PHYSICS)
    assert draw_clone("CL001", "sample", "a", PHYSICS) != draw_clone("CL002", "sample", "a", PHYSICS)
    assert not draw_clone("CHO-K1", "parental", "a", PHYSICS).producing


def test_dna_runs_from_2n_to_4n_and_correlates_with_the_nucleus(population):
    adherent = population[population["state"] == "adherent"]
    assert adherent["dna"].between(1.75, 4.6).all()
    assert np.corrcoef(adherent["dna"], adherent["nucleus_um2"])[0, 1] == pytest.approx(0.6, abs=0.1)


def test_areas_heights_and_nuclei_have_their_ranges(population):
    adherent = population[population["state"] == "adherent"]
    assert adherent["area_um2"].median() == pytest.approx(350, rel=0.05)
    within = adherent.groupby("clone")["area_um2"].agg(lambda a: a.std() / a.mean()).mean()
    assert within == pytest.approx(0.35, abs=0.04)
    assert adherent["height_um"].between(4, 8).all()
    assert adherent["nucleus_um2"].between(30, 150).all()


def test_visible_morphology_explains_a_fifth_to_two_fifths_of_the_expression(population):
    r2 = np.corrcoef(population["visible"], population["log_gfp"])[0, 1] ** 2
    assert 0.2 <= r2 <= 0.4


def test_negative_cells_are_5_to_60_percent_of_a_clone():
    assert all(0.05 <= draw_clone(f"C{i}", "sample", "a", PHYSICS).negative <= 0.60 for i in range(200))


def test_states_and_doublets_have_their_shares(population):
    shares = population["state"].value_counts(normalize=True)
    assert shares["dead"] == pytest.approx(0.03, abs=0.01)
    assert shares["mitotic"] + shares["rounded"] == pytest.approx(0.97 * 0.07, abs=0.015)
    assert 0.05 <= population["doublet"].mean() <= 0.20


def test_cells_keep_their_distance(population):
    for _, cells in population.groupby("field"):
        at = cells.loc[~cells["doublet"], ["x_um", "y_um"]].to_numpy()
        apart = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(at))
        assert np.median(apart.min(0)) > 12


def test_confluence_decides_the_number_of_cells():
    clone = draw_clone("REF-1", "reference", "a", PHYSICS)
    sparse, dense = (
        len(
            draw_cells(
                np.random.default_rng(0), clone, FieldBiology(**{**vars(BIOLOGY), "confluence": c}), PHYSICS
            )
        )
        for c in (0.2, 0.8)
    )
    assert dense / sparse == pytest.approx(4, rel=0.2)


def test_productivity_is_half_to_four_fifths_explained_by_gfp_and_er():
    names = [f"CL{i:03d}" for i in range(120)]
    rows = []
    for i, name in enumerate(names):
        clone = draw_clone(name, "sample", "a", PHYSICS)
        cells = draw_cells(
            np.random.default_rng(i), clone, FieldBiology(**{**vars(BIOLOGY), "extent_um": 150}), PHYSICS
        )
        shown = 0.7 * np.log(max(cells["gfp"].mean(), 1e-3)) + 0.5 * np.log(cells["er"].mean())
        hidden = (
            clone.log_productivity
            + PHYSICS.productivity_noise[1] * np.random.default_rng(i).standard_normal()
        )
        rows.append((shown, shown + hidden))
    shown, productivity = np.array(rows).T
    assert 0.5 <= np.corrcoef(shown, productivity)[0, 1] ** 2 <= 0.8


def conditions(seed: int, instrument: str = "scope-1") -> pd.DataFrame:
    culture = Culture()
    plan = draw_plan(well_names(["B02", "B03", "C02", "C03", "D05", "E06"]), culture, 0)
    return draw_conditions(plan, 3, Microscope(instrument=instrument), culture, (), seed)


def test_variance_components_are_those_declared():
    table = pd.concat([conditions(seed).assign(plate=seed) for seed in range(40)])
    log_yield = np.log(table["yield_er"] / 0.965 ** (table["Metadata_Site"] - 1))
    declared = VARIANCE_COMPONENTS["stain_yield"]
    plate_means = log_yield.groupby(table["plate"]).mean()
    well_means = log_yield.groupby([table["plate"], table["Metadata_Well"]]).mean()
    assert plate_means.std() == pytest.approx(np.hypot(declared.plate, declared.well / np.sqrt(6)), rel=0.3)
    assert well_means.groupby("plate").std().mean() == pytest.approx(declared.well, rel=0.2)
    focus = table.groupby(["plate", "Metadata_Well"])["focus_um"].std().mean()
    assert focus == pytest.approx(0.886 * VARIANCE_COMPONENTS["focus_um"].site, rel=0.15)


def test_an_instrument_is_its_name_and_given_constants_replace_drawn_ones():
    first, again = (draw_instrument(Microscope(), PHYSICS) for _ in range(2))
    other = draw_instrument(Microscope(instrument="scope-2"), PHYSICS)
    given = draw_instrument(Microscope(bias_deg=77.0), PHYSICS)
    assert first == again != other
    assert given.bias_deg == 77.0
    assert given.shear_um == first.shear_um
    assert 43 <= first.azimuth_deg <= 47


def test_plates_of_one_instrument_share_its_term():
    means = [
        [conditions(s, name)["lamp"].mean() for s in range(4)] for name in ("scope-1", "scope-2", "scope-3")
    ]
    assert np.std([np.mean(m) for m in means]) > 0
    assert not conditions(0).equals(conditions(1))
