"""The acquisition folder, its truth, and its determinism."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cellabel.errors import InputError
from cellabel.simulation import STAINS, Microscope, parameters_hash, simulate_plate

SMALL = {"wells": 4, "sites": 1, "size": 96, "preset": "10x", "seed": 3}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    return simulate_plate(
        tmp_path_factory.mktemp("inbox") / "plate", plate_id="P1", **SMALL | {"sites": 2, "size": 160}
    )


def image(plate, well: str, site: int, w: int) -> np.ndarray:
    return tifffile.imread(plate.path / f"{plate.plate_id}_{well}_s{site}_w{w}.tif")


def truth(plate, well: str, site: int, name: str) -> np.ndarray:
    return tifffile.imread(plate.path / "truth" / f"{plate.plate_id}_{well}_s{site}_{name}.tif")


def test_the_folder_reads_as_a_metaxpress_export(plate):
    expected = {
        f"P1_{w}_s{s}_w{c}.tif" for w in ("A01", "A02", "B01", "B02") for s in (1, 2) for c in range(1, 6)
    }
    assert {path.name for path in plate.path.glob("*.tif")} == expected
    for name in expected:
        pixels = tifffile.imread(plate.path / name)
        assert pixels.shape == (160, 160)
        assert pixels.dtype == np.uint16
    acquisition = json.loads((plate.path / "acquisition.json").read_text())
    assert acquisition["plate_id"] == "P1"
    assert acquisition["pixel_size_um"] == 0.65
    assert acquisition["channels"] == {
        "w1": "transmitted",
        "w2": "nuclei",
        "w3": "er",
        "w4": "golgi",
        "w5": "gfp",
    }
    assert datetime.fromisoformat(acquisition["acquired_at"]).tzinfo is not None


def test_the_tables_on_disk_are_those_returned(plate):
    pd.testing.assert_frame_equal(
        pd.read_csv(plate.path / "plate_plan.csv", keep_default_na=False), plate.plan
    )
    cells = pd.read_csv(plate.path / "truth" / "cells.csv")
    assert len(cells) == len(plate.cells)
    np.testing.assert_allclose(cells["dna"], plate.cells["dna"], rtol=1e-4)
    parameters = json.loads((plate.path / "truth" / "parameters.json").read_text())
    assert parameters["parameters_hash"] == plate.parameters["parameters_hash"] == parameters_hash("a")


def test_the_cell_table_counts_the_pixels_of_the_label_images(plate):
    for (well, site), cells in plate.cells.groupby(["Metadata_Well", "Metadata_Site"]):
        labels, nuclei = truth(plate, well, site, "cells"), truth(plate, well, site, "nuclei")
        assert sorted(np.unique(labels[labels > 0])) == list(range(1, len(cells) + 1)) == list(cells["label"])
        np.testing.assert_array_equal(np.bincount(labels.ravel())[1:], cells["area_px"])
        np.testing.assert_array_equal(
            np.bincount(nuclei.ravel(), minlength=len(cells) + 1)[1:], cells["nucleus_area_px"]
        )
        assert (labels[nuclei > 0] == nuclei[nuclei > 0]).all()
        positive = cells.loc[cells["gfp_positive"], "label"]
        np.testing.assert_array_equal(truth(plate, well, site, "gfp") > 0, np.isin(labels, positive))
        rows, columns = np.nonzero(labels == 1)
        assert cells["y_px"].iloc[0] == pytest.approx(rows.mean())
        assert cells["x_px"].iloc[0] == pytest.approx(columns.mean())


def test_stain_totals_are_the_electrons_that_the_image_shows(plate):
    instrument, physics = plate.parameters["instrument"], plate.parameters["physics"]
    for (well, site), cells in plate.cells.groupby(["Metadata_Well", "Metadata_Site"]):
        electrons = (image(plate, well, site, 2).astype(float) - 100) * 0.46
        signal = (electrons - np.percentile(electrons, 10)).clip(0)
        foreground = signal[signal > 200].sum()
        assert foreground == pytest.approx(cells["nuclei_total"].sum(), rel=0.3)
    assert instrument["crosstalk"] <= physics["crosstalk"][1]


def test_stains_lie_where_the_truth_says(plate):
    for well, role in zip(plate.plan["Metadata_Well"], plate.plan["role"], strict=True):
        nuclei = image(plate, well, 1, 2).astype(float)
        inside = truth(plate, well, 1, "nuclei") > 0
        assert nuclei[inside].mean() > 4 * nuclei[~inside].mean()
        gfp, positive = image(plate, well, 1, 5).astype(float), truth(plate, well, 1, "gfp") > 0
        if role == "parental":
            assert not positive.any()
        else:
            assert gfp[positive].mean() > 1.3 * gfp[~positive].mean()


def test_the_same_seed_gives_the_same_bytes_whatever_the_threads(tmp_path):
    one = simulate_plate(tmp_path / "one", workers=1, **SMALL)
    two = simulate_plate(tmp_path / "two", workers=3, **SMALL)
    other = simulate_plate(tmp_path / "other", **SMALL | {"seed": 4}, plate_id=one.plate_id)
    assert digests(one.path) == digests(two.path)
    differing = {
        name for name, digest in digests(other.path).items() if digests(one.path).get(name) != digest
    }
    assert {name for name in digests(one.path) if name.endswith("_w1.tif")} <= differing


def test_another_noise_draw_leaves_the_truth(tmp_path):
    one = simulate_plate(tmp_path / "one", **SMALL)
    two = simulate_plate(tmp_path / "two", **SMALL, noise_seed=1)
    pd.testing.assert_frame_equal(one.cells, two.cells)
    a, b = (image(p, "A01", 1, 2).astype(float) for p in (one, two))
    assert (a != b).any()
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95


def test_clones_repeat_across_plates_and_offsets_bring_others(tmp_path):
    first = simulate_plate(tmp_path / "a", **SMALL | {"seed": 1}, clones=2)
    second = simulate_plate(tmp_path / "b", **SMALL | {"seed": 2}, clones=2, clone_offset=2)
    controls = [set(p.plan.loc[p.plan["role"] != "sample", "clone"]) for p in (first, second)]
    assert controls[0] == controls[1] == {"CHO-K1", "REF-1"}
    assert set(first.plan.loc[first.plan["role"] == "sample", "clone"]) == {"CL001", "CL002"}
    assert set(second.plan.loc[second.plan["role"] == "sample", "clone"]) == {"CL003", "CL004"}


def test_blank_wells_hold_no_cells(tmp_path):
    plate = simulate_plate(tmp_path / "p", **SMALL, blanks=1)
    blank = plate.plan.loc[plate.plan["role"] == "blank", "Metadata_Well"].item()
    assert not (plate.cells["Metadata_Well"] == blank).any()
    assert not truth(plate, blank, 1, "cells").any()
    assert plate.wells.set_index("Metadata_Well").loc[blank, "productivity"] == 0


def test_the_second_family_has_its_own_hash_and_images(tmp_path):
    assert parameters_hash("a") != parameters_hash("b")
    a = simulate_plate(tmp_path / "a", **SMALL, plate_id="P")
    b = simulate_plate(tmp_path / "b", **SMALL, plate_id="P", family="b")
    assert b.parameters["parameters_hash"] == parameters_hash("b")
    assert b.parameters["instrument"]["bias_deg"] > a.parameters["instrument"]["bias_deg"]
    yields = []
    for plate in (a, b):
        inner = plate.cells[~plate.cells["touches_border"] & (plate.cells["state"] == "adherent")]
        yields.append((inner["nuclei_total"] / inner["dna"]).median())
    assert yields[1] < 0.9 * yields[0]


def test_stains_are_written_in_the_order_asked_for(tmp_path):
    plate = simulate_plate(tmp_path / "p", **SMALL | {"wells": 1}, stains=("gfp", "nuclei"), parental=0)
    channels = json.loads((plate.path / "acquisition.json").read_text())["channels"]
    assert channels == {"w1": "transmitted", "w2": "gfp", "w3": "nuclei"}
    assert len(list(plate.path.glob("*.tif"))) == 3
    unlabelled = simulate_plate(tmp_path / "u", **SMALL | {"wells": 1}, stains=())
    assert len(list(unlabelled.path.glob("*.tif"))) == 1


def test_the_time_of_acquisition_is_given_or_follows_the_seed(tmp_path):
    given = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
    tiny = {"wells": 1, "sites": 1, "size": 32, "preset": "40x"}
    read = []
    for i, arguments in enumerate(({"acquired_at": given}, {"seed": 1}, {"seed": 1}, {"seed": 2})):
        plate = simulate_plate(tmp_path / str(i), **tiny, **arguments)
        record = json.loads((plate.path / "acquisition.json").read_text())
        read.append(datetime.fromisoformat(record["acquired_at"]))
    assert read[0] == given
    assert read[1] == read[2] < read[3]


def test_a_failure_leaves_neither_the_folder_nor_a_scratch(tmp_path, monkeypatch):
    monkeypatch.setattr(tifffile, "imwrite", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        simulate_plate(tmp_path / "p", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_the_record_of_the_acquisition_is_written_last(tmp_path, monkeypatch):
    written = []
    original = Path.write_text

    def noted(self, *arguments, **keywords):
        written.append((self.name, sorted(p.name for p in self.parent.iterdir())))
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "write_text", noted)
    simulate_plate(tmp_path / "p", **SMALL | {"wells": 1})
    name, beside = written[-1]
    assert name == "acquisition.json"
    assert {"plate_plan.csv", "truth", "SIM00003_A01_s1_w5.tif"} <= set(beside)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"wells": 0}, "between 1 and 384"),
        ({"wells": 385}, "between 1 and 384"),
        ({"wells": ["A01", "A01"]}, "twice"),
        ({"wells": ["Z99"]}, "not a well"),
        ({"wells": 2.5}, "number of wells"),
        ({"sites": 0}, "sites"),
        ({"size": 16}, "size"),
        ({"size": 96.0}, "size"),
        ({"seed": -1}, "seed"),
        ({"plate_id": "../up"}, "plate id"),
        ({"plate_id": ""}, "plate id"),
        ({"stains": ("nuclei", "plasma")}, "stains"),
        ({"stains": "nuclei"}, "stains"),
        ({"drift": ("gremlins", 1.0)}, "defocus"),
        ({"drift": ("defocus", float("nan"))}, "µm"),
        ({"drift": ("medium", 0.01)}, "refractive index"),
        ({"drift": ("camera", 100)}, "90"),
        ({"drift": "defocus"}, "pair"),
        ({"drift": ("lamp", -0.3), "drift_from": "H12"}, "no well of this plate"),
        ({"drift_from": "A01"}, "no drift"),
        ({"drift": ("lamp", -0.3), "drift_shape": "sudden"}, "ramp"),
        ({"colour": "red"}, "numerical_aperture"),
        ({"preset": "100x"}, "20x"),
        ({"family": "z"}, "family"),
        ({"confluence": 2.0}, "confluence"),
        ({"parental": 9}, "do not fit"),
        ({"numerical_aperture": 1.3}, "below 1"),
        ({"plate_id": "a\n"}, "plate id"),
        ({"wells": ["A01\n"]}, "not a well"),
        ({"stains": None}, "stains"),
        ({"stains": [["er"]]}, "stains"),
        ({"drift": 3.0}, "pair"),
        ({"drift": "defocus"}, "'defocus' is not a pair"),
        ({"drift": (["defocus"], 3.0)}, "pair"),
        ({"bias_deg": float("nan")}, "bias_deg .* finite number"),
        ({"lamp": 99}, "share of the full well"),
        ({"extinction": -0.1}, "extinction"),
        ({"numerical_aperture": "x"}, "numerical_aperture .* finite number"),
        ({"passage": "q"}, "passage .* whole number"),
        ({"passage": None}, "passage .* whole number"),
        ({"fixed": 1}, "fixed .* True or False"),
        ({"acquired_at": "2025-01-01"}, "acquired_at .* datetime"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_before_anything_is_written(tmp_path, arguments, words):
    with pytest.raises(InputError, match=words) as refusal:
        simulate_plate(tmp_path / "p", **{**SMALL, **arguments})
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="absent or empty"):
        simulate_plate(tmp_path / "p", **SMALL)
    assert (tmp_path / "p" / "notes.txt").read_text() == "mine"


def test_presets_are_those_of_the_objectives():
    assert [
        (Microscope(preset=p).aperture, Microscope(preset=p).pixel_um) for p in ("10x", "20x", "40x")
    ] == [
        (0.45, 0.65),
        (0.75, 0.325),
        (0.95, 0.1625),
    ]
    assert STAINS == ("nuclei", "er", "golgi", "gfp")
