import dataclasses

import pytest

from cellabel.errors import InputError
from cellabel.organelles import ORGANELLES, Step, organelle
from cellabel.preprocessing import STEPS as PREPROCESSING_STEPS
from cellabel.segmentation import STEPS as SEGMENTATION_STEPS

RECIPES = list(ORGANELLES.values())


def test_the_six_stains_of_the_method_have_a_recipe():
    assert list(ORGANELLES) == ["nuclei", "er", "golgi", "gfp", "actin", "nucleoli"]
    assert [recipe.prefix for recipe in RECIPES] == ["Nuclei", "Er", "Golgi", "Gfp", "Actin", "Nucleoli"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_step_of_a_recipe_exists(recipe):
    assert {step.function for step in recipe.preprocessing} <= set(PREPROCESSING_STEPS)
    assert {step.function for step in recipe.segmentation} <= set(SEGMENTATION_STEPS)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_losses_suit_the_target_and_a_correlation_never_stands_alone(recipe):
    correlations = {"pcc", "batch_pcc"}
    assert set(recipe.losses) <= ({"bce"} if recipe.target == "binary" else {"mse", "mae", *correlations})
    assert not set(recipe.losses) <= correlations


def test_gfp_is_binary_and_judged_by_its_expected_area_alone():
    assert ORGANELLES["gfp"].target == "binary"
    assert ORGANELLES["gfp"].primary_metrics == ("Gfp_ExpectedArea",)
    assert ORGANELLES["nuclei"].primary_metrics == (
        "Nuclei_Count",
        "Nuclei_TotalArea",
        "Nuclei_TotalIntensity",
        "Nuclei_MeanIntensity",
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_plausible_ranges_are_in_order_and_carry_the_prefix(recipe):
    assert recipe.plausible
    assert all(lower < upper for lower, upper in recipe.plausible.values())
    assert all(name.startswith(f"{recipe.prefix}_") for name in recipe.plausible)


def test_an_unknown_organelle_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="gfp, golgi, nuclei"):
        organelle("mitochondria")
    with pytest.raises(InputError, match="gfp, golgi, nuclei"):
        organelle(["nuclei"])


def test_a_recipe_passes_through_and_cannot_be_changed_in_place():
    recipe = ORGANELLES["er"]
    assert organelle(recipe) is recipe
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.name = "other"
    with pytest.raises(TypeError):
        Step("fill_holes", {"max_area_um2": 1.0}).parameters["max_area_um2"] = 2.0
