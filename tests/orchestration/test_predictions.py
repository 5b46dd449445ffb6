"""Tables, cells and ranking of a plate whose predictions are its own stains, with their checks."""

from __future__ import annotations

from types import SimpleNamespace

import dagster as dg
import pytest

from cellabel.loop import take_in
from cellabel.loop.predictions import PREDICTED
from cellabel.loop.stains import stained
from cellabel.organelles import organelle
from cellabel.plates import PlateWriter
from cellabel.simulation import simulate_plate
from orchestration.assets.predictions import cell_table, clone_ranking, prediction_table
from orchestration.checks.predictions import agreement, plausible
from orchestration.resources import Models, Stores

NAMES = ("nuclei", "er")
RECIPES = [organelle(name) for name in NAMES]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "S1"
    simulate_plate(
        folder, plate_id="S1", wells=4, sites=1, size=192, seed=1, stains=NAMES, preset="10x", workers=1
    )
    return folder


def store_stains(home, plate):
    """A prediction that is right in every pixel."""
    for recipe in RECIPES:
        with home.predictions.write(f"S1/{recipe.name}", "v1-x", {"model_version": 1}) as folder:
            fields = list(plate.fields())
            places = [(field.well, field.site) for field in fields]
            with PlateWriter(
                folder / PREDICTED, "S1", fields=places, channels=[recipe.name], pixel_size_um=0.65
            ) as writer:
                for field in fields:
                    truth = stained(field, plate, recipe)
                    labels = {recipe.name: truth.labels}
                    writer.write_field(field.well, field.site, {recipe.name: truth.target}, labels=labels)


@pytest.fixture
def result(instance, home, exported, monkeypatch, tmp_path):
    monkeypatch.setattr(Models, "open", lambda self: SimpleNamespace(folder=lambda *which: tmp_path))
    store_stains(home, take_in(home, "S1", exported).plate)
    instance.add_dynamic_partitions("plates", ["S1"])
    tables = [prediction_table(recipe) for recipe in RECIPES]
    checks = [check(recipe) for recipe in RECIPES for check in (plausible, agreement)]
    return dg.materialize(
        [*tables, *checks, cell_table(RECIPES), clone_ranking(RECIPES)],
        partition_key="S1",
        instance=instance,
        resources={"stores": Stores(), "models": Models()},
    )


def metadata(result, key):
    (made,) = [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key.to_user_string() == key
    ]
    return made.metadata


def is_figure(value):
    return value.value.startswith("![") and "data:image/png;base64," in value.value


def test_tables_cells_and_ranking_are_made_shown_and_checked(result, home):
    assert result.success
    table = metadata(result, "nuclei/prediction_table")
    assert is_figure(table["predicted_against_stained"]) and table["intervals"].value == "not calibrated"
    assert "| cell |" in table["agreement_with_the_stain"].value
    assert "Nuclei_Count" in table["agreement_with_exact_truth"].value
    cells = metadata(result, "cell_table")
    assert is_figure(cells["overlays"]) and cells["predicted_by"].value == "nuclei v1, er v1"
    assert cells["cells"].value == len(home.tables.read("cells", "S1")) > 20
    wells = home.tables.read("wells", "S1")
    assert wells["Cells_LiveCount"].sum() > 10 and "Cells_Median_ErPerCell" in wells
    ranking = metadata(result, "clone_ranking")
    assert is_figure(ranking["clones"]) and is_figure(ranking["plate"])
    checks = {
        f"{one.asset_key.to_user_string()}:{one.check_name}": one.passed
        for one in result.get_asset_check_evaluations()
    }
    assert len(checks) == 4
    assert checks["nuclei/prediction_table:downstream_metrics"], "the stain agrees with itself"
