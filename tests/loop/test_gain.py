"""Champion against retrained model, by condition."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cellabel.evaluation import CLEAN
from cellabel.loop import training
from cellabel.loop.gain import corruption_gain
from cellabel.loop.held_out import HeldOut
from cellabel.organelles import organelle

NUCLEI = organelle("nuclei")


def held_out(sizes, *, wells=6, seed=0, clipped=0.1):
    """Log errors that scatter with a size of their own under each condition."""
    random, rows = np.random.default_rng(seed), []
    for plate in range(3):
        for well in range(wells):
            truth = np.array([50.0, 4e3, 8e6, 2e3]) * (1 + well)
            key = {"Metadata_Plate": f"H{plate}", "Metadata_Well": f"A{well + 1:02d}", "Metadata_Site": 1}
            key |= {"Metadata_Clone": f"c{well // 2}", "Metadata_Instrument": "scope"}
            named = dict(zip(NUCLEI.primary_metrics, truth, strict=True))
            rows.append({**key, "side": "true", "condition": CLEAN, **named})
            for condition, size in sizes.items():
                said = dict(
                    zip(NUCLEI.primary_metrics, truth * np.exp(random.normal(0, size, 4)), strict=True)
                )
                row = {**key, "side": "predicted", "condition": condition, "pixel_pearson": 0.9}
                lost = 0.9 if condition == "brightness -5" else clipped
                rows.append(row | {"clipped_share": lost, **said})
    return HeldOut(pd.DataFrame(rows), pd.DataFrame())


BEFORE = {CLEAN: 0.05, "defocus +3": 0.6, "brightness -5": 0.9, "contrast +1": 0.1}
AFTER = {CLEAN: 0.06, "defocus +3": 0.1, "brightness -5": 0.1, "lamp × 2": 0.1}


def test_conditions_that_both_were_measured_under_are_compared_clean_first():
    table = corruption_gain(held_out(BEFORE), held_out(AFTER, seed=1), NUCLEI)
    assert table["condition"].unique().tolist() == [CLEAN, "defocus +3"]
    assert len(table) == 2 * len(NUCLEI.primary_metrics)
    defocus = table[table["condition"] == "defocus +3"]
    assert (defocus["gain_ci_lower"] > 0).all() and (defocus["n_wells"] == 18).all()
    known = defocus.dropna(subset=["pearson_after"])  # the mean intensity is the same in all wells here
    assert len(known) == 3 and (known["pearson_after"] > known["pearson_before"]).all()
    assert (known["pearson_ci_lower_after"] <= known["pearson_after"]).all()


def test_conditions_measured_on_other_wells_are_left_out():
    assert corruption_gain(held_out(BEFORE), held_out(AFTER, wells=5), NUCLEI).empty


@pytest.fixture
def retrained(tmp_path):
    """A registry with a champion, a retrained result, and how its dataset is asked for."""
    for name, sizes in (("champion", BEFORE), ("new", AFTER)):
        (tmp_path / name).mkdir()
        held_out(sizes).keep(tmp_path / name)
    sample = SimpleNamespace(plate_id="H0", well="A01", site=1)
    dataset = SimpleNamespace(organelle="nuclei", test=[sample])
    version = SimpleNamespace(version=3, tags={"test_set": training.held_out_hash(dataset.test)})
    registry = SimpleNamespace(
        champion=lambda name: version, folder=lambda name, which: tmp_path / "champion", version=version
    )
    return registry, dataset, SimpleNamespace(folder=tmp_path / "new")


def test_a_retrained_model_carries_what_it_has_gained_over_the_champion(retrained):
    registry, dataset, result = retrained
    training._compare_with_champion(registry, dataset, result)
    assert set(pd.read_csv(result.folder / "gain.csv")["condition"]) == {CLEAN, "defocus +3"}
    assert (result.folder / "gain.png").read_bytes().startswith(b"\x89PNG")


def test_other_held_out_wells_or_no_champion_are_not_compared(retrained):
    registry, dataset, result = retrained
    registry.version.tags["test_set"] = "another"
    training._compare_with_champion(registry, dataset, result)
    registry.champion = lambda name: None
    training._compare_with_champion(registry, dataset, result)
    assert not (result.folder / "gain.csv").exists()
