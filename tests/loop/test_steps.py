"""The steps that make plates, datasets, predictions and champions, on the smallest things that will do."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from upath import UPath

from cellabel.alerts import AlertLedger
from cellabel.datasets import build_dataset
from cellabel.drift.incidents import Incident, Retraining
from cellabel.errors import InputError
from cellabel.evaluation import CLEAN
from cellabel.loop import (
    build_current_dataset,
    check_dataset,
    current_dataset,
    exact_truth,
    follow_champion,
    implausible_wells,
    incidents,
    join_plate,
    judge_challenger,
    measure_prediction,
    plate_status,
    plates_for_training,
    rank_plate,
    refresh_intervals,
    report_prediction,
    stain_errors,
    stale_predictions,
    store_prediction,
    take_in,
)
from cellabel.loop.held_out import HeldOut, LabelledField, evaluate_model
from cellabel.loop.predictions import PREDICTED
from cellabel.loop.promotion import _champion_on
from cellabel.loop.reliability import write_intervals
from cellabel.loop.shadow import _controls, _shadow
from cellabel.loop.stains import stained
from cellabel.loop.streams import ACQUISITION, followed_champion, open_epoch
from cellabel.loop.training import _cross_validate, _parted_alike, held_out_hash
from cellabel.loop.training import judge as judge_model
from cellabel.measurement import Layer
from cellabel.networks import OrganelleModel, UNet, save_model
from cellabel.organelles import organelle
from cellabel.plates import open_plate, read_plate
from cellabel.registry import ModelRegistry
from cellabel.stores import write_json
from cellabel.training import TrainingResult

NUCLEI = organelle("nuclei")
WELLS = tuple(f"{row}0{column}" for row in "AB" for column in (1, 2, 3))
SIZE = 64


def cells(seed, size=SIZE):
    """A transmitted-light image and its nuclei."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    blobs = sum(
        np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 20) for cy, cx in random.uniform(8, size - 8, (4, 2))
    )
    light = 20_000 - 6000 * blobs + random.normal(0, 60, (size, size))
    stain = 200 + 3000 * blobs + random.normal(0, 5, (size, size))
    return light.astype(np.uint16), np.maximum(stain, 0).astype(np.uint16)


def export(folder, plate="P1", *, wells=WELLS, seed=0, stained=True, instrument="scope"):
    """A plate as a microscope would leave it."""
    folder.mkdir(parents=True)
    for number, well in enumerate(wells):
        for channel, pixels in enumerate(cells(100 * seed + number)[: 1 + stained], start=1):
            tifffile.imwrite(folder / f"{plate}_{well}_s1_w{channel}.tif", pixels)
    rows = [f"{well},clone{plate}{number},sample,{len(wells) - number}" for number, well in enumerate(wells)]
    (folder / "plate_plan.csv").write_text("\n".join(["Metadata_Well,clone,role,order", *rows]))
    record = {
        "plate_id": plate,
        "acquired_at": "2025-03-03T08:00:00+00:00",
        "instrument": instrument,
        "pixel_size_um": 0.65,
        "channels": {"1": "transmitted", "2": "nuclei"} if stained else {"1": "transmitted"},
    }
    (folder / "acquisition.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def home(make_lab):
    drift = {"window": 2, "false_alarms_per_plate": 0.9, "min_reference_wells": 12}
    return make_lab(organelles=("nuclei",), drift=drift).home


@pytest.fixture(scope="session")
def stocked(tmp_path_factory):
    """Four small stained plates, imported once: folders that tests copy."""
    root = tmp_path_factory.mktemp("stock")
    for seed, plate in enumerate(("P1", "P2", "P3", "P4")):
        export(root / plate, plate, seed=seed)
    return root


def test_an_export_becomes_a_plate_with_a_table_of_quality_in_the_order_of_imaging(home, stocked):
    taken = take_in(home, "P1", stocked / "P1")
    assert list(taken.plate.wells) == list(WELLS) and len(taken.quality) == len(WELLS)
    features = home.tables.read(ACQUISITION, "P1")
    assert features["Metadata_Well"].tolist() == list(reversed(WELLS)), "the plan's column order says so"
    assert features.drop(columns=["Metadata_Plate", "Metadata_Well"]).notna().all(axis=None)
    record = home.plates.record("P1")
    assert record["source"] == str((stocked / "P1").resolve()) and record["first_seen"]
    assert plate_status(home, "P1").status == "accepted"


def test_taking_in_again_needs_no_folder_and_keeps_when_it_was_first_seen(home, stocked):
    take_in(home, "P1", stocked / "P1")
    before = home.plates.record("P1")
    assert take_in(home, "P1").plate.content_hash == before["content_hash"]
    assert home.plates.record("P1") == before


def test_a_plate_without_a_known_folder_is_refused(home):
    with pytest.raises(InputError, match="No folder is known for plate P9"):
        take_in(home, "P9")


def test_a_plate_whose_images_are_bad_is_quarantined_and_keeps_its_folder(home, tmp_path):
    folder = export(tmp_path / "bad", "P1")
    for well in WELLS[:3]:
        (folder / f"P1_{well}_s1_w1.tif").write_bytes(b"no image")
    with pytest.raises(InputError, match="Plate P1 is quarantined: 3 of 6 fields"):
        take_in(home, "P1", folder)
    assert plate_status(home, "P1").status == "quarantined"
    assert home.plates.record("P1")["source"] == str(folder.resolve())
    assert not home.tables.has(ACQUISITION, "P1")


@pytest.fixture
def labelled(home, stocked):
    for plate in ("P1", "P2", "P3"):
        take_in(home, plate, stocked / plate)
    return home


def places(samples):
    return {(sample.plate_id, sample.well) for sample in samples}


def test_the_held_out_wells_are_frozen_across_versions(labelled, stocked):
    first = build_current_dataset(labelled, NUCLEI)
    assert check_dataset(labelled, NUCLEI) == []
    assert build_current_dataset(labelled, NUCLEI).version == first.version
    take_in(labelled, "P4", stocked / "P4")
    second = build_current_dataset(labelled, NUCLEI)
    assert second.version != first.version and "P4" in second.manifest()["plates"]
    assert places(second.test) == places(first.test)
    assert not places(second.test) & places([*second.train, *second.validation])
    assert current_dataset(labelled, NUCLEI).version == second.version


def test_a_fold_that_is_parted_as_the_whole_takes_the_model_to_keep(labelled, tmp_path, monkeypatch):
    trained = []

    def train(fold, config, **_):
        trained.append(fold)
        return TrainingResult(untrained(), {}, pd.DataFrame(), tmp_path)

    monkeypatch.setattr("cellabel.training.train", train)
    dataset = build_dataset([open_plate(labelled.plates, "P1")], NUCLEI, folds=3)
    folds = [dataset.fold(index) for index in range(3)]
    assert _parted_alike(dataset, dataset) and not _parted_alike(folds[0], folds[1])
    kept = TrainingResult(untrained(), {}, pd.DataFrame(), tmp_path)
    told = []
    arguments = labelled, folds[1], None, tmp_path / "model"
    folds[1].folds, folds[1].fold = 3, dataset.fold
    found = _cross_validate(*arguments, kept, told.append)
    assert [places(one.test) for one in trained] == [places(folds[0].test), places(folds[2].test)]
    assert sorted(found.wells("predicted")["Metadata_Well"]) == sorted(WELLS)
    assert [sentence[:11] for sentence in told] == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    trained.clear()
    _cross_validate(*arguments, None, None)
    assert len(trained) == 3


def test_only_accepted_stained_plates_train(labelled, tmp_path):
    take_in(labelled, "U1", export(tmp_path / "U1", "U1", stained=False))
    labelled.plates.update_record("P2", status="quarantined")
    assert plates_for_training(labelled, NUCLEI) == ["P1", "P3"]
    with pytest.raises(InputError, match="No accepted plate shows a stain of golgi"):
        build_current_dataset(labelled, organelle("golgi"))


def test_a_drifted_plate_stays_out_until_a_person_accepts_it(labelled):
    write_json(labelled.detectors / "incidents" / "i.json", {"plates": ["P3"]})
    assert plates_for_training(labelled, NUCLEI) == ["P1", "P2"]
    assert set(build_current_dataset(labelled, NUCLEI).manifest()["plates"]) == {"P1", "P2"}
    labelled.plates.update_record("P3", accepted_for_training=True)
    assert plates_for_training(labelled, NUCLEI) == ["P1", "P2", "P3"]


def untrained(seed=0):
    torch.manual_seed(seed)
    network = UNet(base_channels=4, depth=2)
    config = {
        "network": network.config,
        "organelle": "nuclei",
        "target": "continuous",
        "target_scale": 3000.0,
        "pixel_size_um": 0.65,
        "intensity_units": "stain",
    }
    return OrganelleModel(network, config, name="cellabel-nuclei", version="1").eval()


def test_a_prediction_is_stored_once_with_one_embedding_a_well(home, stocked):
    plate = take_in(home, "P1", stocked / "P1").plate
    model = untrained()
    record = store_prediction(home, plate, model, 1)
    assert record["n_fields"] == len(WELLS) and record["version"].startswith("v1-")
    table = home.tables.read("embeddings", "nuclei", "v1", "P1")
    assert table["Metadata_Well"].tolist() == list(WELLS)
    assert table.shape[1] == 2 + 2 * model.network.embedding_length
    folder = home.predictions.path("P1/nuclei")
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = store_prediction(home, plate, model, 1)
    assert again["version"] == record["version"] and again["n_fields"] == record["n_fields"]
    assert written == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("pixel_size_um", [0.325, 0.65, 1.3])
def test_a_model_is_judged_by_what_plates_are_predicted_as(home, stocked, pixel_size_um):
    """At any pixel size, the gate, the card and the reference see the very numbers of the product."""
    model = untrained()
    taken = take_in(home, "P1", stocked / "P1").plate
    taken = replace(taken, pixel_size_um=pixel_size_um)
    store_prediction(home, taken, model, 1)
    fields = [LabelledField.of(taken, one.well, one.site) for one in taken.fields()]
    judged = evaluate_model(model, fields, {CLEAN: None})
    table = home.tables.read("embeddings", "nuclei", "v1", "P1").set_index("Metadata_Well")
    names = [name for name in table if name.startswith("e")]
    ours = judged.embeddings.set_index("Metadata_Well").loc[table.index, names]
    np.testing.assert_allclose(ours, table[names], rtol=1e-4, atol=1e-6)
    predicted = read_plate(home.predictions.path("P1/nuclei") / PREDICTED)
    for one in fields:
        image = predicted.wells[one.field.well].fields[1].image("nuclei")
        truth = stained(one.field, taken, NUCLEI).target
        row = judged.measured.query("side == 'predicted' and Metadata_Well == @one.field.well").iloc[0]
        assert row["pixel_pearson"] == pytest.approx(
            np.corrcoef(truth.ravel(), image.ravel())[0, 1], abs=1e-4
        )


def test_the_truth_lies_where_it_is_learnt(home, stocked):
    taken = take_in(home, "P1", stocked / "P1").plate
    offset = {"nuclei": {"dy": 3.0, "dx": -2.0, "reliable": True}}
    moved = replace(taken, attributes={**taken.attributes, "registration": offset})
    field = next(iter(taken.fields()))
    here, there = (stained(field, one, NUCLEI).target for one in (taken, moved))
    np.testing.assert_allclose(there[8:-8, 8:-8], np.roll(here, (3, -2), (0, 1))[8:-8, 8:-8], atol=20)
    learnt = build_dataset([moved], NUCLEI)
    sample = next(s for s in (*learnt.train, *learnt.validation, *learnt.test) if s.well == field.well)
    np.testing.assert_allclose(learnt.stain(sample), there, atol=1e-3)


def test_a_new_version_becomes_current_while_the_old_one_stays_and_may_come_back(home, stocked):
    plate = take_in(home, "P1", stocked / "P1").plate
    old = store_prediction(home, plate, untrained(0), 1)["version"]
    assert [one.plate_id for one in stale_predictions(home, {"nuclei": 2})] == ["P1"]
    new = store_prediction(home, plate, untrained(1), 2)["version"]
    assert home.predictions.record("P1/nuclei")["version"] == new
    assert home.predictions.has("P1/nuclei", old) and home.tables.has("embeddings", "nuclei", "v1", "P1")
    assert stale_predictions(home, {"nuclei": 2}) == []
    store_prediction(home, plate, untrained(0), 1)
    record = home.predictions.record("P1/nuclei")
    assert (record["version"], record["model_version"]) == (old, 1)


def test_a_stained_plate_keeps_its_prediction_where_a_site_has_only_others_predicted_again(home, stocked):
    plate = take_in(home, "P1", stocked / "P1").plate
    left = home.settings.model_copy(
        update={"models": home.settings.models.model_copy(update={"predict_again": "unlabelled"})}
    )
    here = replace(home, settings=left)
    assert [one.organelles for one in stale_predictions(here, {"nuclei": 1})] == [("nuclei",)]
    store_prediction(home, plate, untrained(0), 1)
    assert stale_predictions(here, {"nuclei": 2}) == []
    assert [one.plate_id for one in stale_predictions(home, {"nuclei": 2})] == ["P1"]
    home.plates.update_record("P1", channels=["transmitted"])
    assert [one.plate_id for one in stale_predictions(here, {"nuclei": 2})] == ["P1"]


def test_a_prediction_that_fails_leaves_the_old_one(home, stocked, monkeypatch):
    plate = take_in(home, "P1", stocked / "P1").plate
    old = store_prediction(home, plate, untrained(0), 1)["version"]
    monkeypatch.setattr("cellabel.prediction.predict_plate", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store_prediction(home, plate, untrained(1), 2)
    assert home.predictions.record("P1/nuclei")["version"] == old


def test_what_is_measured_carries_its_origin_and_the_plan(home, stocked):
    plate = take_in(home, "P1", stocked / "P1").plate
    with pytest.raises(InputError, match="Plate P1 has no prediction of nuclei"):
        measure_prediction(home, "P1", NUCLEI)
    store_prediction(home, plate, untrained(), 3)
    measured = measure_prediction(home, "P1", NUCLEI)
    wells = home.tables.read("wells", "nuclei", "P1")
    assert wells["Metadata_Well"].tolist() == list(WELLS) and len(measured.fields) == len(WELLS)
    assert set(wells["Metadata_ModelVersion"]) == {3} and set(wells["Metadata_Organelle"]) == {"nuclei"}
    assert wells["Metadata_Clone"].tolist() == [f"cloneP1{number}" for number in range(len(WELLS))]
    assert wells["Nuclei_Count"].sum() == len(measured.cells)
    assert home.tables.read("versions", "nuclei", "v3", "P1").equals(wells)
    assert measured.agreement is not None and home.tables.has("stained", "nuclei", "P1")
    errors = stain_errors(home, "P1", NUCLEI)
    assert set(errors["metric"]) == set(NUCLEI.primary_metrics)
    assert list(implausible_wells(home, "P1", NUCLEI).columns)[:3] == ["well", "feature", "value"]


def test_an_unstained_plate_has_nothing_to_agree_with(home, tmp_path):
    plate = take_in(home, "U1", export(tmp_path / "U1", "U1", stained=False)).plate
    store_prediction(home, plate, untrained(), 1)
    assert measure_prediction(home, "U1", NUCLEI).agreement is None
    assert stain_errors(home, "U1", NUCLEI) is None


def test_agreement_is_told_by_field_well_and_cell_and_kept(home, stocked):
    plate = take_in(home, "P1", stocked / "P1").plate
    store_prediction(home, plate, untrained(), 1)
    found = measure_prediction(home, "P1", NUCLEI).agreements
    assert found.objects["matched"] <= min(found.objects["true"], found.objects["predicted"])
    assert {"field", "well"} <= set(found.table["level"])
    kept = home.tables.read("agreement", "nuclei", "P1")
    assert kept["feature"].tolist() == found.table["feature"].tolist()
    assert found.true["Metadata_Well"].tolist() == found.predicted["Metadata_Well"].tolist() == list(WELLS)


def test_exact_truth_is_compared_where_the_acquisition_brings_it(home, tmp_path):
    folder = export(tmp_path / "P1", "P1")
    (folder / "truth").mkdir()
    truth = pd.DataFrame(
        [(well, 1, 50 + n, True, 90) for n, well in enumerate(WELLS) for _ in range(4)],
        columns=["Metadata_Well", "Metadata_Site", "nucleus_area_px", "gfp_positive", "area_px"],
    )
    truth.to_csv(folder / "truth" / "cells.csv", index=False)
    store_prediction(home, take_in(home, "P1", folder).plate, untrained(), 1)
    exact = exact_truth(home, "P1", NUCLEI)
    assert exact["Nuclei_Count"].tolist() == [4] * len(WELLS)
    assert exact["Nuclei_TotalArea"].tolist() == [4 * (50 + n) for n in range(len(WELLS))]
    found = measure_prediction(home, "P1", NUCLEI).with_truth
    assert set(found["feature"]) == {"Nuclei_Count", "Nuclei_TotalArea"}
    assert "constant" in found.set_index("feature").loc["Nuclei_Count", "reason"]
    assert exact_truth(home, "P1", organelle("er")) is None
    reporter = exact_truth(home, "P1", organelle("gfp"))
    assert (reporter["Gfp_ExpectedArea"] == reporter["Gfp_TotalArea"]).all()


def test_a_plates_cells_are_joined_flagged_and_summed_up(home, stocked, monkeypatch):
    plate = take_in(home, "P1", stocked / "P1").plate
    with pytest.raises(InputError, match="no prediction of nuclei, by which cells are joined"):
        join_plate(home, "P1")
    store_prediction(home, plate, untrained(), 2)

    def layers(predicted, field):
        truth = stained(plate.wells[field.well].fields[field.site], plate, NUCLEI)
        return {"nuclei": Layer(truth.target, truth.labels)}

    monkeypatch.setattr("cellabel.loop.cells._layers", layers)
    joined = join_plate(home, "P1")
    assert joined.organelles == {"nuclei": 2} and joined.figure.startswith(b"\x89PNG")
    wells = home.tables.read("wells", "P1")
    assert wells["Metadata_Well"].tolist() == list(WELLS) and "Metadata_Clone" in wells
    assert wells["Cells_Count"].sum() == (~joined.cells["Cells_IsDebris"]).sum() > 0
    assert home.tables.read("cells", "P1")["Cells_DeadProbability"].between(0, 1).all()
    assert home.tables.read("statistics", "P1")["window"].eq("not computable").all()


def test_a_plate_without_any_cell_is_summed_up_as_such(home, stocked, monkeypatch):
    store_prediction(home, take_in(home, "P1", stocked / "P1").plate, untrained(), 1)
    empty = Layer(np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE), int))
    monkeypatch.setattr("cellabel.loop.cells._layers", lambda predicted, field: {"nuclei": empty})
    joined = join_plate(home, "P1")
    assert joined.cells.empty and joined.wells["Cells_Count"].eq(0).all()
    assert "Cells_IsDead" in home.tables.read("cells", "P1")


def test_intervals_come_from_the_version_and_are_void_while_the_verdict_is_drift(
    home, stocked, enter, registry
):
    plate = take_in(home, "P1", stocked / "P1").plate
    version = enter(intervals=True).version
    store_prediction(home, plate, untrained(), version)
    wells = measure_prediction(home, "P1", NUCLEI, registry).wells
    assert "within these plates" in wells["Metadata_IntervalNote"].iloc[0]
    assert wells["Nuclei_Count_IntervalUpper"].notna().all()
    verdict = home.detectors / "verdicts" / "P1.json"
    write_json(verdict, {"drift": True})
    assert refresh_intervals(home, "P1") == ["nuclei"] and refresh_intervals(home, "P1") == []
    void = home.tables.read("wells", "nuclei", "P1")
    assert void["Metadata_IntervalNote"].eq("not valid: the plate has drifted").all()
    assert void["Nuclei_Count_IntervalUpper"].isna().all()
    assert measure_prediction(home, "P1", NUCLEI).wells["Nuclei_Count_IntervalUpper"].isna().all()
    write_json(verdict, {"drift": False})
    assert refresh_intervals(home, "P1") == ["nuclei"]
    assert home.tables.read("wells", "nuclei", "P1")["Nuclei_Count_IntervalUpper"].notna().all()


def test_clones_are_ranked_over_the_plates_that_share_them(home):
    random = np.random.default_rng(0)
    for name in ("P1", "P2"):
        home.plates.update_record(name, status="accepted", acquired_at="2025-03-03T08:00:00+00:00")
        home.predictions.update_record(f"{name}/nuclei", model_version=1)
        table = pd.DataFrame({"Metadata_Plate": name, "Metadata_Well": WELLS, "Metadata_Role": "sample"})
        table["Metadata_Clone"] = [f"c{number}" for number in range(len(WELLS))]
        table["Nuclei_Count"] = random.poisson(50 * np.arange(1, len(WELLS) + 1))
        home.tables.write(table, "wells", "nuclei", name)
    ranked = rank_plate(home, "P2")
    assert ranked.plates == ("P2", "P1") and (ranked.table["n_plates"] == 2).all()
    assert ranked.table["Metadata_Clone"].iloc[0] == "c5" and ranked.table["p_top"].notna().all()
    assert ranked.forest.startswith(b"\x89PNG")
    write_json(home.detectors / "verdicts" / "P1.json", {"drift": True})
    with pytest.warns(UserWarning, match="nothing is pooled"):
        assert rank_plate(home, "P2").plates == ("P2",)
    home.predictions.update_record("P1/nuclei", model_version=2)
    write_json(home.detectors / "verdicts" / "P1.json", {"drift": False})
    with pytest.warns(UserWarning, match="nothing is pooled"):
        assert rank_plate(home, "P2").plates == ("P2",), "another model's numbers are not pooled"


def test_evidently_compares_a_plate_with_the_training_plates_that_were_measured(home):
    def measure(plate, factor):
        values = factor * np.random.default_rng(len(plate)).normal(100, 5, 40)
        table = pd.DataFrame(
            {"Metadata_Plate": plate, "Nuclei_Count": values, "Nuclei_TotalArea": 9 + values}
        )
        home.tables.write(table, "fields", "nuclei", plate)

    measure("P1", 2.0)
    home.datasets.update_record("nuclei", plates=["P1", "P20", "P300"])
    assert report_prediction(home, "P1", NUCLEI) is None
    measure("P20", 1.0)
    page, numbers = report_prediction(home, "P1", NUCLEI)
    assert numbers["training_plates"] == "P20" and numbers["drifted"] == 2 and numbers["share"] == 1
    assert "Nuclei_Count" in numbers["unlike_training"] and b"<html" in page.read_bytes()


def test_a_version_beyond_its_recipes_limits_is_not_promoted(home, registry, enter):
    enter(error=0.4)
    decision = judge_challenger(home, registry, AlertLedger(home.alerts), NUCLEI)
    assert not decision.promote and "the recipe allows 0.25" in decision.reason
    assert registry.champion("nuclei") is None


CONDITIONS = {CLEAN: 0.0, "defocus 2 µm": 2.0, "defocus +3": 3.0, "brightness -2": 1.0}


def held_out(*, error=0.02, corrupted=0.5, plates=("H1", "H2", "H3", "H4"), wells=6, instrument="scope"):
    """What a training leaves of its held-out fields: log errors on clean wells and on corrupted ones."""
    random = np.random.default_rng(0)
    measured, embeddings = [], []
    for plate in plates:
        for number in range(wells):
            key = {
                "Metadata_Plate": plate,
                "Metadata_Well": f"A{number + 1:02d}",
                "Metadata_Site": 1,
                "Metadata_Clone": f"c{number}",
                "Metadata_Instrument": instrument,
            }
            truth = np.array([50.0, 4000.0, 8e6, 2000.0]) * np.exp(random.normal(0, 0.2))
            own = random.normal(size=4)
            features = dict(zip(NUCLEI.primary_metrics, truth, strict=True))
            measured.append({**key, "side": "true", "condition": CLEAN, **features})
            for condition, distance in CONDITIONS.items():
                wrong = error * (1 + 0.1 * random.random()) if condition == CLEAN else corrupted
                said = dict(zip(NUCLEI.primary_metrics, truth * np.exp(wrong), strict=True))
                row = {**key, "side": "predicted", "condition": condition, **said, "pixel_pearson": 0.9}
                measured.append(row)
                columns = {f"e{k:03d}": own[k] + 3 * distance for k in range(4)}
                embeddings.append({**key, "condition": condition, **columns})
    return pd.DataFrame(measured), pd.DataFrame(embeddings)


@pytest.fixture
def enter(registry, tmp_path):
    """Register a tiny untrained model with what was measured of it."""
    count = [0]

    def register(tags=None, *, intervals=False, **qualities):
        count[0] += 1
        folder = tmp_path / f"model{count[0]}"
        folder.mkdir()
        save_model(untrained(count[0]), folder)
        measured, embeddings = held_out(**qualities)
        measured.to_parquet(folder / "measured.parquet", index=False)
        embeddings.to_parquet(folder / "embeddings.parquet", index=False)
        (folder / "metrics.json").write_text("{}")
        if intervals:
            write_intervals(folder, HeldOut(measured, embeddings))
        return registry.register(folder, "nuclei", tags={"test_set": "t1", **(tags or {})})

    return register


@pytest.fixture
def ledger(home):
    return AlertLedger(home.alerts)


@pytest.fixture
def judge(home, registry, ledger):
    return lambda: judge_challenger(home, registry, ledger, NUCLEI)


@pytest.fixture
def retraining(home):
    """An incident with a retraining under way."""
    moment = datetime(2025, 3, 3, tzinfo=UTC)
    under_way = Retraining("i1", "scope", "defocus", moment)
    incident = Incident("i1", "scope", moment, status="retraining", plates=("P9",), retrainings=(under_way,))
    write_json(home.detectors / "incidents" / "i1.json", incident.to_dict())
    return lambda: json.loads((home.detectors / "outcomes" / "i1.json").read_text())


def test_without_a_challenger_nothing_is_judged(judge, ledger):
    assert judge() is None and ledger.alerts() == []


def test_a_plausible_first_model_is_promoted_and_told_once(judge, enter, registry, ledger):
    enter()
    decision = judge()
    assert decision.promote and registry.champion("nuclei").version == 1
    assert registry.challenger("nuclei") is None
    tags = registry.version("nuclei", 1).tags
    assert tags["gate_promote"] == "true" and tags["gate_reason"] == decision.reason
    (alert,) = ledger.alerts()
    assert (alert.kind, alert.title) == ("promotion", "nuclei version 1 is the champion")
    assert judge() is None and len(ledger.alerts()) == 1


def test_an_implausible_first_model_is_refused_on_record(judge, enter, registry, ledger):
    enter(error=1.5)
    assert not judge().promote and registry.champion("nuclei") is None
    assert registry.version("nuclei", 1).tags["gate_promote"] == "false"
    assert ledger.alerts()[0].title == "nuclei version 1 was refused"
    assert judge() is None, "it has been judged"


def test_a_robust_challenger_wins_and_the_incident_hears_of_it(judge, enter, registry, retraining):
    enter()
    judge()
    enter({"corruption": "defocus 2 3", "incident": "i1"}, corrupted=0.1)
    assert judge().promote and registry.champion("nuclei").version == 2
    assert registry.previous_champion("nuclei").version == 1
    assert retraining() == {"turn": 1, "outcome": "promoted", "version": 2}


def test_a_challenger_that_is_worse_on_clean_wells_loses_and_the_incident_hears_of_it(
    judge, enter, registry, retraining
):
    enter()
    judge()
    enter({"corruption": "defocus 2 3", "incident": "i1"}, error=0.2, corrupted=0.1)
    assert not judge().promote and registry.champion("nuclei").version == 1
    assert retraining()["outcome"] == "lost"


def seeing():
    """An untrained model that is bright where the light is dark: it happens to find nuclei."""
    model = untrained(3)
    *_, weight, bias = model.network.parameters()
    with torch.no_grad():
        weight.neg_()
        bias.neg_()
    return model


def bare(folder, model):
    """A folder with a model and nothing that was measured of it."""
    folder.mkdir()
    save_model(model, folder)
    (folder / "metrics.json").write_text("{}")
    return folder


def test_a_champion_of_other_test_wells_is_measured_on_those_of_the_challenger(labelled, registry, tmp_path):
    dataset = build_current_dataset(labelled, NUCLEI)
    registry.register(bare(tmp_path / "one", seeing()), "nuclei", tags={"test_set": "other wells"})
    champion = registry.promote("nuclei", 1, reason="first")
    folder = bare(tmp_path / "two", untrained(2))
    write_json(UPath(folder / "dataset.json"), dataset.manifest())
    new = judge_model(labelled, untrained(2), dataset, test_only=True)
    new.keep(folder)
    challenger = registry.register(folder, "nuclei", tags={"test_set": held_out_hash(dataset.test)})
    found = _champion_on(labelled, registry, NUCLEI, champion, challenger, new)
    expected = judge_model(labelled, seeing(), dataset, test_only=True)
    pd.testing.assert_frame_equal(found.measured, expected.measured)
    assert found.wells("predicted")["Nuclei_Count"].gt(0).all() and len(found.conditions) > 2
    assert found.conditions == new.conditions


def test_the_old_champion_measures_control_wells_as_it_did_when_it_was_champion(home, registry, tmp_path):
    folder = export(tmp_path / "P1", "P1")
    plan = (folder / "plate_plan.csv").read_text()
    (folder / "plate_plan.csv").write_text(plan.replace(",sample,", ",parental,", 2))
    plate = take_in(home, "P1", folder).plate
    version = registry.register(bare(tmp_path / "one", seeing()), "nuclei")
    store_prediction(home, plate, registry.load("nuclei", 1), 1)
    measure_prediction(home, "P1", NUCLEI)
    controls = _controls(home.tables.read("versions", "nuclei", "v1", "P1"), ["parental"])
    found = _shadow(home, registry, NUCLEI, "P1", version, controls)
    assert found["Metadata_Well"].tolist() == list(WELLS[:2]) == controls["Metadata_Well"].tolist()
    same = ["Metadata_Role", "Metadata_Clone"]
    assert found[same].to_numpy().tolist() == controls[same].to_numpy().tolist()
    for metric in NUCLEI.primary_metrics:
        assert controls[metric].gt(0).all(), "nothing would be compared"
        np.testing.assert_allclose(found[metric].astype(float), controls[metric].astype(float), rtol=1e-3)


def test_the_uses_of_a_test_set_are_counted(judge, enter):
    enter()
    assert judge().alpha == pytest.approx(0.05)
    enter(corrupted=0.1)
    assert judge().alpha == pytest.approx(0.025)


def test_an_incident_that_nobody_knows_does_not_stop_a_promotion(judge, enter, registry, ledger):
    enter({"incident": "gone"})
    assert judge().promote and len(ledger.alerts()) == 1


@pytest.mark.parametrize("last", ["record_verdict", "promote", "tell"])
def test_a_judgement_that_is_cut_short_is_finished_by_the_next_run(
    judge, enter, registry, ledger, retraining, monkeypatch, last
):
    enter()
    judge()
    enter({"corruption": "defocus 2 3", "incident": "i1"}, corrupted=0.1)

    class Killed(BaseException):
        pass

    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        if last == "record_verdict":
            patch.setattr(ModelRegistry, "promote", die)
        elif last == "promote":
            patch.setattr("cellabel.loop.promotion.record_outcome", die)
        else:
            patch.setattr(type(ledger), "write", die)
        with pytest.raises(Killed):
            judge()
    judge()
    assert registry.champion("nuclei").version == 2
    assert retraining() == {"turn": 1, "outcome": "promoted", "version": 2}
    assert [alert.title for alert in ledger.alerts()] == [
        "nuclei version 1 is the champion",
        "nuclei version 2 is the champion",
    ]


def test_a_refusal_that_is_cut_short_is_told_by_the_next_run(judge, enter, ledger, retraining, monkeypatch):
    enter()
    judge()
    enter({"incident": "i1"}, error=0.2)
    with monkeypatch.context() as patch:
        patch.setattr("cellabel.loop.promotion.record_outcome", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            judge()
    assert judge() is None and retraining()["outcome"] == "lost"
    assert ledger.alerts()[-1].title == "nuclei version 2 was refused"


def test_a_champion_starts_its_streams_with_a_margin_and_harm(home, enter, judge, registry):
    assert follow_champion(home, registry, NUCLEI).empty
    enter()
    judge()
    summary = follow_champion(home, registry, NUCLEI)
    assert summary["epoch"].tolist() == ["nuclei-v1-1"] and summary["verdicts"].tolist() == ["provisional"]
    epoch = open_epoch(home, "scope", "nuclei")
    assert epoch.detector is not None and epoch.margin >= 1 and epoch.plates == ("H1", "H2", "H3", "H4")
    assert epoch.harm.estimate(np.full((3, 4), 9.0) / epoch.spread).verdict == "harmful"
    followed = followed_champion(home, "nuclei")
    assert (followed.version, followed.turn) == (1, 1)
    follow_champion(home, registry, NUCLEI)
    assert followed_champion(home, "nuclei") == followed, "the same champion begins nothing anew"
    assert open_epoch(home, "scope", "nuclei").detector.fingerprint == epoch.detector.fingerprint


def test_a_new_champion_begins_an_epoch_whose_reference_holds_what_it_withstands(
    home, enter, judge, registry
):
    enter()
    judge()
    follow_champion(home, registry, NUCLEI)
    plain = open_epoch(home, "scope", "nuclei")
    enter({"corruption": "defocus 2 3"}, corrupted=0.1)
    judge()
    follow_champion(home, registry, NUCLEI)
    robust = open_epoch(home, "scope", "nuclei")
    assert (robust.epoch, robust.model_version) == ("nuclei-v2-2", 2)
    assert robust.spread.mean() > 1.5 * plain.spread.mean(), "clean wells and defocused ones"
    registry.rollback("nuclei", reason="a person wants the old one")
    assert follow_champion(home, registry, NUCLEI)["epoch"].tolist() == ["nuclei-v1-3"]


def test_too_few_wells_are_not_calibrated_with_the_reason(home, enter, judge, registry):
    enter(plates=("H1",), wells=5)
    judge()
    summary = follow_champion(home, registry, NUCLEI)
    assert summary["verdicts"].tolist() == ["5 reference wells are too few (at least 12)"]
    epoch = open_epoch(home, "scope", "nuclei")
    assert epoch.detector is None and epoch.harm is None and epoch.reason in summary["verdicts"].tolist()


def test_a_champion_that_came_without_a_reference_is_followed_and_not_calibrated(
    home, enter, judge, registry, tmp_path
):
    enter()
    judge()
    follow_champion(home, registry, NUCLEI)
    folder = tmp_path / "bare"
    folder.mkdir()
    save_model(untrained(9), folder)
    (folder / "metrics.json").write_text("{}")
    bare = registry.register(folder, "nuclei", tags={"test_set": "t1"})
    registry.promote("nuclei", bare.version, reason="by hand")
    summary = follow_champion(home, registry, NUCLEI)
    assert summary["verdicts"].tolist()[0].startswith("version 2 of nuclei came without embeddings")
    epoch = open_epoch(home, "scope", "nuclei")
    assert (epoch.epoch, epoch.detector, epoch.model_version) == ("nuclei-v2-2", None, 2)
    assert followed_champion(home, "nuclei").version == 2


def test_where_harm_cannot_be_learnt_drift_is_watched_all_the_same(home, enter, judge, registry, monkeypatch):
    def refuse(*args, **kwargs):
        raise InputError("Harm needs at least 10 reference and 10 corrupted wells; add wells.")

    enter(plates=("H1", "H2"))
    judge()
    monkeypatch.setattr("cellabel.drift.HarmModel.fit", refuse)
    follow_champion(home, registry, NUCLEI)
    epoch = open_epoch(home, "scope", "nuclei")
    assert epoch.detector is not None and epoch.harm is None


def test_the_acquisition_stream_keeps_its_first_reference(home, enter, judge, registry):
    random = np.random.default_rng(1)
    for plate in ("H1", "H2", "H3", "H4"):
        table = pd.DataFrame(random.normal(size=(6, 3)), columns=["level", "noise", "spread"])
        table.insert(0, "Metadata_Plate", plate)
        table.insert(1, "Metadata_Well", [f"A{number:02d}" for number in range(1, 7)])
        home.tables.write(table, ACQUISITION, plate)
    enter()
    judge()
    follow_champion(home, registry, NUCLEI)
    anchor = open_epoch(home, "scope", ACQUISITION)
    assert anchor.epoch == "acquisition-anchor" and anchor.plates == ("H1", "H2", "H3", "H4")
    home.tables.write(home.tables.read(ACQUISITION, "H1").assign(level=99.0), ACQUISITION, "H1")
    enter(corrupted=0.1)
    judge()
    follow_champion(home, registry, NUCLEI)
    assert open_epoch(home, "scope", ACQUISITION).detector.fingerprint == anchor.detector.fingerprint


def test_every_instrument_has_streams_of_its_own(home, enter, judge, registry, monkeypatch):
    tables = [held_out(instrument=name) for name in ("left scope", "right")]
    both = tuple(pd.concat(parts, ignore_index=True) for parts in zip(*tables, strict=True))
    for frame in both:
        frame.loc[frame["Metadata_Instrument"] == "right", "Metadata_Plate"] += "r"
    monkeypatch.setitem(globals(), "held_out", lambda: both)
    enter()
    judge()
    assert follow_champion(home, registry, NUCLEI)["instrument"].tolist() == ["left-scope", "right"]
    assert open_epoch(home, "right", "nuclei").plates == ("H1r", "H2r", "H3r", "H4r")
    assert incidents(home) == []
