"""The gate in the loop: what it judges by, what it refuses untouched, and the trial after a promotion."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest
import torch

from cellabel.alerts import AlertLedger
from cellabel.errors import InputError
from cellabel.evaluation import CLEAN
from cellabel.loop import judge_challenger, tell_missing_champion, watch_new_champion
from cellabel.loop.held_out import HeldOut, LabelledField, meant_for, sample_of_wells
from cellabel.loop.shadow import control_chart
from cellabel.networks import OrganelleModel, UNet, save_model
from cellabel.organelles import organelle
from cellabel.registry import ModelRegistry

NUCLEI = organelle("nuclei")
TRUTH = np.array([50.0, 4000.0, 8e6, 2000.0])
CONDITIONS = (CLEAN, "defocus 2 µm", "defocus +3", "contrast -2")


@pytest.fixture
def home(make_lab):
    return make_lab(organelles=("nuclei",)).home


@pytest.fixture
def ledger(home):
    return AlertLedger(home.alerts)


def measured(errors, *, plates=4, wells=6, clipped=None):
    """Log errors by condition → what a training measures of its held-out wells."""
    random = np.random.default_rng(0)
    rows = []
    for plate in range(plates):
        for well in range(wells):
            key = {
                "Metadata_Plate": f"H{plate}",
                "Metadata_Well": f"A{well + 1:02d}",
                "Metadata_Site": 1,
                "Metadata_Clone": f"c{well}",
                "Metadata_Instrument": "scope",
            }
            truth = TRUTH * np.exp(random.normal(0, 0.2))
            features = dict(zip(NUCLEI.primary_metrics, truth, strict=True))
            rows.append({**key, "side": "true", "condition": CLEAN, **features})
            for condition, error in errors.items():
                wrong = truth * np.exp(error * (1 + 0.1 * random.random()))
                said = dict(zip(NUCLEI.primary_metrics, wrong, strict=True))
                more = {"pixel_pearson": 0.9, "clipped_share": (clipped or {}).get(condition, 0.0)}
                rows.append({**key, "side": "predicted", "condition": condition, **said, **more})
    return pd.DataFrame(rows)


@pytest.fixture
def enter(registry, tmp_path):
    """Register a tiny model with what was measured of it: log errors clean, and under each corruption."""
    count = [0]

    def register(clean=0.02, tags=None, clipped=None, **corrupted):
        count[0] += 1
        folder = tmp_path / f"model{count[0]}"
        folder.mkdir()
        torch.manual_seed(count[0])
        network = UNet(base_channels=4, depth=2)
        config = {
            "network": network.config, "organelle": "nuclei", "target": "continuous", "target_scale": 3000.0,
            "pixel_size_um": 0.65, "intensity_units": "stain",
        }  # fmt: skip
        save_model(OrganelleModel(network, config).eval(), folder)
        errors = {name: corrupted.get(name.split(" ")[0], 0.5) for name in CONDITIONS} | {CLEAN: clean}
        table = measured(errors, clipped=clipped)
        table.to_parquet(folder / "measured.parquet", index=False)
        table[["Metadata_Plate", "condition"]].to_parquet(folder / "embeddings.parquet", index=False)
        return registry.register(folder, "nuclei", tags={"test_set": "t1", **(tags or {})})

    return register


@pytest.fixture
def judge(home, registry, ledger):
    return lambda: judge_challenger(home, registry, ledger, NUCLEI)


AGAINST_DEFOCUS = {"corruption": "defocus 2 3"}


def test_robustness_against_one_corruption_is_not_bought_with_another(enter, judge, registry):
    enter()
    judge()
    enter(tags=AGAINST_DEFOCUS, defocus=0.1, contrast=0.7)
    decision = judge()
    assert not decision.promote and "on contrast -2 Nuclei_Count is worse" in decision.reason
    assert registry.champion("nuclei").version == 1


def test_a_condition_that_destroyed_the_images_is_not_judged(enter, judge):
    enter(clipped={"contrast -2": 0.8})
    judge()
    enter(tags=AGAINST_DEFOCUS, defocus=0.1, contrast=0.7, clipped={"contrast -2": 0.8})
    decision = judge()
    assert decision.promote and "contrast -2" not in set(decision.table["condition"])


def test_improvement_is_asked_of_the_other_implementation_only(enter, judge):
    enter()
    judge()
    enter(tags=AGAINST_DEFOCUS, defocus=0.1)
    judged = set(judge().table["condition"])
    assert "defocus 2 µm" in judged and "defocus +3" not in judged and "contrast -2" in judged


def test_what_a_training_was_meant_for_is_read_from_its_kind():
    known = ["defocus 2 µm", "defocus +3", "brightness -2", "contrast +1", "exposure × 0.3"]
    assert meant_for("defocus", known) == ["defocus 2 µm", "defocus +3"]
    assert meant_for("contrast", known) == ["contrast +1", "exposure × 0.3"]
    assert meant_for("brightness", known) == ["brightness -2", "exposure × 0.3"]
    assert meant_for("", known) == []


def test_two_judgements_at_once_promote_once(enter, home, registry, ledger):
    enter()
    said, starts = [], threading.Barrier(2)

    def work():
        own = ModelRegistry(registry._connection.uri)
        starts.wait(30)
        said.append(judge_challenger(home, own, ledger, NUCLEI))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(decision is None for decision in said) == [False, True]
    assert registry.champion("nuclei").version == 1 and len(ledger.alerts("promotion")) == 1


def test_a_champion_that_appears_while_the_wells_are_measured_is_compared_with(
    enter, judge, registry, monkeypatch
):
    enter()
    judge()
    enter(clean=0.001)
    enter(clean=0.015)
    from cellabel.loop import promotion

    original = promotion._champion_on

    def slow(*arguments):
        monkeypatch.setattr(promotion, "_champion_on", original)
        registry.promote("nuclei", 2, reason="a person, meanwhile")
        return original(*arguments)

    monkeypatch.setattr(promotion, "_champion_on", slow)
    decision = judge()
    assert not decision.promote, "better than version 1, worse than version 2"
    assert registry.champion("nuclei").version == 2


def test_a_champion_whose_stain_was_measured_otherwise_is_measured_again(enter, judge, monkeypatch):
    with monkeypatch.context() as formerly:
        formerly.setitem(globals(), "TRUTH", 1.1 * TRUTH)
        enter()
    judge()
    again = []

    def measured_again(home, model, dataset, **_):
        again.append(model)
        return HeldOut(measured({name: 0.5 for name in CONDITIONS} | {CLEAN: 0.02}), pd.DataFrame())

    monkeypatch.setattr("cellabel.loop.promotion.judge", measured_again)
    monkeypatch.setattr("cellabel.datasets.Dataset.from_manifest", lambda *_: None)
    enter(clean=0.001)
    assert judge().promote and len(again) == 1


@pytest.mark.parametrize("fault", ["corrupted", "incomplete", "half logged"])
def test_a_challenger_whose_files_are_not_whole_is_refused_and_the_champion_stays(
    enter, judge, registry, fault
):
    enter()
    judge()
    folder = registry.folder("nuclei", enter(clean=0.001).version)
    if fault == "corrupted":
        (folder / "weights.safetensors").write_bytes(b"x")
    elif fault == "incomplete":
        (folder / "measured.parquet").unlink()
    else:
        client = registry._connection.client
        client.create_model_version("cellabel-nuclei", source=folder.as_uri())
        client.set_registered_model_alias("cellabel-nuclei", "challenger", "3")
    with pytest.raises(InputError, match=fault):
        judge()
    assert registry.champion("nuclei").version == 1


def test_without_its_champion_a_challenger_is_not_taken_for_a_first_model(enter, judge, registry, ledger):
    enter()
    judge()
    registry._connection.client.delete_model_version("cellabel-nuclei", "1")
    enter()
    decision = judge()
    assert not decision.promote and "was deleted in MLflow" in decision.reason
    assert registry.champion("nuclei") is None and registry.challenger("nuclei").version == 2
    judge()
    (asked,) = ledger.alerts("person_needed")
    assert "models promote nuclei --version" in asked.body
    registry.promote("nuclei", 2, reason="a person's choice")
    assert tell_missing_champion(ledger, registry, NUCLEI) == ""


def move_alias(registry, alias, version):
    """What a person does in MLflow's page."""
    registry._connection.client.set_registered_model_alias("cellabel-nuclei", alias, str(version))


@pytest.fixture
def by_command(home, registry, tmp_path, monkeypatch):
    """`cellabel models promote nuclei`, without what follows from it."""
    from cellabel.cli._models import _by_gate

    monkeypatch.setenv("CELLABEL_HOME", str(tmp_path / "home"))
    return lambda dry_run=False: _by_gate(registry, NUCLEI, dry_run)


@pytest.mark.parametrize("moved", ["champion", "challenger"])
def test_a_champion_is_not_judged_against_itself(enter, judge, registry, ledger, by_command, moved):
    enter()
    judge()
    told = len(ledger.alerts())
    enter(clean=0.001)
    number = 2 if moved == "champion" else 1
    move_alias(registry, moved, number)
    known = dict(registry.champion("nuclei").tags)
    assert by_command(dry_run=True) == by_command() | {"reason": "it already is the champion"}
    move_alias(registry, moved, number)
    move_alias(registry, "challenger", number)
    assert judge() is None and registry.challenger("nuclei") is None
    assert registry.champion("nuclei").version == number and len(ledger.alerts()) == told
    tags = registry.champion("nuclei").tags
    assert tags.get("gate_reason") == known.get("gate_reason")


@pytest.mark.parametrize("who", ["loop", "command"])
def test_a_version_that_was_accepted_and_not_promoted_is_promoted_by_the_next_call(
    enter, judge, registry, by_command, monkeypatch, who
):
    enter()
    judge()
    enter(clean=0.001)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ModelRegistry, "promote", die)
        judge()
    assert registry.challenger("nuclei").tags["gate_promote"] == "true"
    assert by_command()["promoted"] if who == "command" else judge().promote
    assert registry.champion("nuclei").version == 2


@pytest.mark.parametrize("fate", ["refused", "rolled back"])
def test_what_was_refused_or_rolled_back_is_not_judged_again(enter, judge, registry, by_command, fate):
    enter()
    judge()
    enter(clean=0.001 if fate == "rolled back" else 0.2)
    judge()
    if fate == "rolled back":
        registry.rollback("nuclei", reason="too bright")
        move_alias(registry, "challenger", 2)
    assert judge() is None and registry.champion("nuclei").version == 1
    with pytest.raises(InputError, match=rf"was {fate} already \((too bright|Not promoted)"):
        by_command()


def test_wells_of_a_condition_are_compared_with_their_own_stain_only():
    table = measured({CLEAN: 0.1, "contrast -2": 0.3})
    part = table[~((table["condition"] == "contrast -2") & (table["Metadata_Plate"] != "H0"))]
    held_out = HeldOut(part, pd.DataFrame())
    assert set(held_out.errors(["Nuclei_Count"], "contrast -2")["plate"]) == {"H0"}
    assert held_out.conditions == [CLEAN, "contrast -2"] and held_out.destroyed == []


def test_a_sample_of_wells_is_spread_over_plates_whole_and_always_the_same():
    class Place:
        def __init__(self, plate_id, well, site):
            self.plate_id, self.well, self.site = plate_id, well, site

    fields = [
        LabelledField(Place(plate, f"A{well:02d}", site), None, "")
        for plate in ("P1", "P2")
        for well in range(1, 7)
        for site in (1, 2)
    ]
    chosen = sample_of_wells(fields, 8)
    wells = [(one.field.plate_id, one.field.well) for one in chosen]
    assert len(chosen) == 8 and all(wells.count(well) == 2 for well in wells)
    assert sum(plate == "P1" for plate, _ in wells) == 4
    assert [one.field for one in sample_of_wells(fields[::-1], 8)] and set(wells) == {
        (one.field.plate_id, one.field.well) for one in sample_of_wells(fields[::-1], 8)
    }
    assert sample_of_wells(fields, 0) == [] and len(sample_of_wells(fields, 99)) == 24
    of_each = sample_of_wells(fields, 1, every_plate=True)
    assert [one.field.plate_id for one in of_each] == ["P1", "P1", "P2", "P2"]
    assert sample_of_wells(fields, 0, every_plate=True) == []


def controls(level=1.0, *, n=3, seed=0, spread=0.05):
    """Control wells of two groups; counts scatter by `spread` about their group's level."""
    random = np.random.default_rng(seed)
    rows = []
    for role, clone, usual in (("parental", "CHO", 100.0), ("reference", "REF-1", 160.0)):
        for _ in range(n):
            rows.append([role, clone, usual * level * np.exp(random.normal(0, spread))])
    return pd.DataFrame(rows, columns=["Metadata_Role", "Metadata_Clone", "Nuclei_Count"])


def test_controls_at_their_level_stay_inside_and_shifted_ones_leave_the_chart():
    history = pd.concat([controls(seed=seed) for seed in range(6)])
    same, low = (control_chart(history, controls(x, seed=9), ["Nuclei_Count"], limit=3.0) for x in (1.0, 0.8))
    assert same["verdict"].tolist() == ["inside"] and low["verdict"].tolist() == ["outside"]
    assert low["deviation"].iloc[0] == pytest.approx(np.log(0.8) / 0.05, rel=0.25)
    assert (same["n_history"].iloc[0], same["n_controls"].iloc[0]) == (36, 6)


def test_controls_without_enough_history_have_no_chart():
    few = control_chart(controls(n=2), controls(), ["Nuclei_Count"], limit=3.0)
    assert few["verdict"].tolist() == ["no chart"]
    strangers = controls().assign(Metadata_Clone="other")
    history = pd.concat([controls(seed=seed) for seed in range(6)])
    assert control_chart(history, strangers, ["Nuclei_Count"], limit=3.0)["verdict"].tolist() == ["no chart"]


def test_a_false_alarm_of_a_chart_is_rare():
    outside = 0
    for seed in range(200):
        history = pd.concat([controls(seed=1000 * seed + k) for k in range(4)])
        chart = control_chart(history, controls(seed=1000 * seed + 99, n=1), ["Nuclei_Count"], limit=3.0)
        outside += chart["verdict"].tolist() == ["outside"]
    assert outside <= 2


def wells_table(plate, seed, level=1.0):
    """Wells of a plate as a version measured them: three controls of each of two groups, and a sample."""
    table = controls(level, seed=seed)
    for metric in NUCLEI.primary_metrics[1:]:
        table[metric] = 50 * table["Nuclei_Count"]
    table.loc[len(table)] = ["sample", "CL1", 10.0, 500.0, 500.0, 500.0]
    table.insert(0, "Metadata_Plate", plate)
    table.insert(1, "Metadata_Well", [f"A{k + 1:02d}" for k in range(len(table))])
    return table


@pytest.fixture
def trial(home, registry, enter, ledger, monkeypatch):
    """Version 2 has just replaced version 1; both measured four plates. `new` lands a plate with levels."""
    for version in (1, 2):
        enter()
        registry.promote("nuclei", version, reason="better")
        for seed in range(4):
            home.tables.write(wells_table(f"P{seed}", seed), "versions", "nuclei", f"v{version}", f"P{seed}")
    levels = {}

    def shadow(home, registry, organelle, plate_id, version, new):
        return wells_table(plate_id, 50, levels[plate_id]).iloc[:-1]

    def new(plate, champion=1.0, predecessor=1.0):
        home.plates.update_record(plate, status="accepted", acquired_at=f"2026-01-0{plate[1]}T00:00:00+00:00")
        levels[plate] = predecessor
        home.tables.write(wells_table(plate, 60, champion), "versions", "nuclei", "v2", plate)
        return watch_new_champion(home, registry, ledger, NUCLEI)

    monkeypatch.setattr("cellabel.loop.shadow._shadow", shadow)
    return new


def test_a_champion_whose_controls_hold_is_watched_for_five_plates_and_no_more(trial, registry):
    for number in range(4, 10):
        assert not trial(f"P{number}").rolled_back
    assert registry.champion("nuclei").tags["shadowed_plates"] == "P4 P5 P6 P7 P8"
    assert not trial("P9", champion=0.5).rolled_back, "the trial is over"


def test_controls_that_leave_the_new_chart_alone_roll_back_with_the_reason_and_an_alert(
    trial, registry, ledger, home
):
    trial("P4")
    found = trial("P5", champion=0.7)
    assert found.rolled_back and registry.champion("nuclei").version == 1
    assert "control wells of P5 left version 2's chart (Nuclei_Count -" in found.sentence
    assert registry.version("nuclei", 2).tags["rollback_reason"] == found.sentence.removeprefix(
        "rolled back: "
    )
    assert [alert.title for alert in ledger.alerts("promotion")] == ["nuclei version 2 was rolled back to 1"]
    assert home.tables.has("shadow", "nuclei", "v2", "P5")
    assert watch_new_champion(home, registry, ledger, NUCLEI).sentence == "no new champion is on trial"


class Killed(BaseException):
    """Nothing catches it, as nothing catches a SIGKILL."""


def die(*_, **__):
    raise Killed


@pytest.mark.parametrize("last", ["judged", "named", "tagged", "returned", "told"])
def test_a_rollback_of_the_trial_that_is_cut_short_is_finished_by_the_next_run(
    trial, registry, ledger, home, monkeypatch, last
):
    trial("P4")
    cut = {
        "judged": ("cellabel.loop.shadow._roll_back", die),
        "named": ("cellabel.registry.ModelRegistry.rollback", die),
        "tagged": ("cellabel.registry._catalogue.Catalogue.set_alias", die),
        "returned": ("cellabel.loop.shadow._finish_rollback", lambda *a: a[-1].version == 1 and die()),
        "told": ("cellabel.alerts.AlertLedger.write", die),
    }
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(*cut[last])
        trial("P5", champion=0.7)
    for _ in range(2):
        watch_new_champion(home, registry, ledger, NUCLEI)
    assert registry.champion("nuclei").version == 1 and registry.previous_champion("nuclei") is None
    assert registry.version("nuclei", 2).tags["shadowed_plates"] == "P4 P5"
    (alert,) = ledger.alerts("promotion")
    assert alert.title == "nuclei version 2 was rolled back to 1" and "control wells of P5" in alert.body


def test_a_champion_that_a_person_replaced_meanwhile_is_not_said_to_be_rolled_back(
    trial, registry, ledger, monkeypatch
):
    from cellabel.loop import shadow

    trial("P4")
    original = shadow._guilty

    def moved(*arguments):
        move_alias(registry, "champion", 1)
        return original(*arguments)

    monkeypatch.setattr(shadow, "_guilty", moved)
    found = trial("P5", champion=0.7)
    assert not found.rolled_back and found.sentence == "version 2 is not the champion any more"
    assert ledger.alerts("promotion") == [] and "rollback_reason" not in registry.version("nuclei", 2).tags


def test_a_champion_that_a_person_brings_back_is_not_rolled_back_for_the_same_plate(
    trial, registry, ledger, home
):
    trial("P4")
    assert trial("P5", champion=0.7).rolled_back
    registry.promote("nuclei", 2, reason="the controls of P5 were pipetted wrongly")
    assert not watch_new_champion(home, registry, ledger, NUCLEI).rolled_back
    assert registry.champion("nuclei").version == 2


def test_controls_that_leave_both_charts_are_the_plates_fault(trial, registry):
    assert not trial("P4", champion=0.7, predecessor=0.7).rolled_back
    assert registry.champion("nuclei").version == 2


def test_a_plate_is_judged_once_and_a_plate_of_a_drift_incident_never(trial, home, registry, ledger):
    from cellabel.stores import write_json

    write_json(home.detectors / "incidents" / "i.json", {"plates": ["P5"]})
    first = trial("P4")
    assert first.plates == ("P4",) and len(first.table) == 8
    assert watch_new_champion(home, registry, ledger, NUCLEI).table.empty
    assert not trial("P5", champion=0.5).rolled_back


def test_a_plate_without_controls_is_not_judged_and_does_not_count(trial, home, registry, ledger):
    table = wells_table("P4", 0).iloc[-1:]
    home.tables.write(table, "versions", "nuclei", "v2", "P4")
    found = watch_new_champion(home, registry, ledger, NUCLEI)
    assert found.plates == () and found.sentence.endswith("P4 has no control wells")


def test_a_first_champion_and_one_that_came_back_are_not_on_trial(enter, home, registry, ledger):
    enter()
    registry.promote("nuclei", 1, reason="first")
    assert watch_new_champion(home, registry, ledger, NUCLEI).champion == 0
    enter()
    registry.promote("nuclei", 2, reason="second")
    assert watch_new_champion(home, registry, ledger, NUCLEI).champion == 2
    registry.rollback("nuclei", reason="worse")
    assert watch_new_champion(home, registry, ledger, NUCLEI).champion == 0
