import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel import InputError
from cellabel.datasets import (
    Dataset,
    FieldSample,
    ImageCache,
    build_dataset,
    check_split,
    resample,
    split_proof,
)
from cellabel.organelles import ORGANELLES

SIZE = 48


@dataclass
class FakeField:
    images: dict

    @property
    def roles(self):
        return tuple(self.images)

    def image(self, role, plane="middle"):
        return self.images[role]


@dataclass
class FakeWell:
    fields: dict


@dataclass
class FakePlate:
    plate_id: str
    wells: dict
    plan: pd.DataFrame | None = None
    pixel_size_um: float | None = 0.65
    quarantined: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["Metadata_Well", "Metadata_Site", "reason"])
    )

    @property
    def content_hash(self):
        digest = hashlib.sha256(self.plate_id.encode())
        for well in self.wells.values():
            for site in well.fields.values():
                for image in site.images.values():
                    digest.update(image.tobytes())
        return digest.hexdigest()


def cells(seed, size=SIZE, brightness=3000.0):
    """Transmitted light and nuclei of a few round cells."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    blobs = np.zeros((size, size))
    for cy, cx in rng.uniform(4, size - 4, (5, 2)):
        blobs += np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 3.0**2))
    nuclei = 200 + brightness * blobs + rng.normal(0, 5, blobs.shape)
    light = 20_000 + 4000 * (blobs - np.roll(blobs, 2, (0, 1))) + rng.normal(0, 50, blobs.shape)
    return {"transmitted": light.astype(np.uint16), "nuclei": nuclei.astype(np.uint16)}


def plate(name, clones, roles=None, *, plan=True, sites=1, size=SIZE, **arguments):
    """One well a clone; A01, A02, …"""
    names = [f"A{n:02d}" for n in range(1, len(clones) + 1)]
    seed = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2**31
    wells = {
        well: FakeWell({s: FakeField(cells(seed + 97 * n + s, size)) for s in range(1, sites + 1)})
        for n, well in enumerate(names)
    }
    table = pd.DataFrame({"clone": clones, "role": roles or ["sample"] * len(clones)}, index=names)
    return FakePlate(name, wells, table if plan else None, **arguments)


def places(samples):
    return {sample.place for sample in samples}


def clones(samples):
    return {s.clone for s in samples if s.role == "sample"}


def test_new_clones_on_new_plates_are_tested():
    roles = ["sample"] * 8 + ["parental", "reference", "blank", "unstained"]
    design = [f"K{n}" for n in range(8)] + ["parent", "K0", "none", "K1"]
    dataset = build_dataset([plate(f"P{n}", design, roles) for n in range(4)], "nuclei")
    learnt = dataset.train + dataset.validation
    assert len({s.plate_id for s in dataset.test}) == 1
    assert not {s.plate_id for s in dataset.test} & {s.plate_id for s in learnt}
    assert clones(dataset.test) and not clones(dataset.test) & clones(learnt)
    assert {s.role for s in dataset.test} == {"sample"}
    assert "parental" in {s.role for s in dataset.train}
    assert not {"blank", "unstained"} & {s.role for s in learnt}
    assert not clones(dataset.train) & clones(dataset.validation)
    assert dataset.split_description.startswith("By clone and plate")
    assert check_split(dataset) == []


def test_clones_of_one_plate_alone_are_all_kept():
    plates = [plate(f"P{n}", [f"K{n}{i}" for i in range(4)]) for n in range(4)]
    dataset = build_dataset(plates, "nuclei")
    assert len(dataset.test) == 4 and len(dataset.train) + len(dataset.validation) == 12


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=8), min_size=1, max_size=5),
    st.integers(0, 5),
    st.floats(0.1, 0.6),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_no_split_leaks(designs, seed, share, plan):
    plates = [plate(f"P{n}", [f"K{c}" for c in d], plan=plan, size=16) for n, d in enumerate(designs)]
    dataset = build_dataset(plates, "nuclei", seed=seed, test_share=share)
    assert check_split(dataset) == []
    assert dataset.train and dataset.validation and dataset.test
    kept = dataset.train + dataset.validation + dataset.test
    assert len(kept) == len(set(kept))
    if not plan:
        assert len(kept) == sum(map(len, designs))
    assert dataset.held_out == sorted(places(dataset.test))


def test_unknown_clones_are_split_by_well_and_it_says_so():
    plates = [plate(f"P{n}", [""] * 4, plan=False, sites=2) for n in range(2)]
    dataset = build_dataset(plates, "nuclei")
    assert (
        dataset.split_description.startswith("By well") and "clones are unknown" in dataset.split_description
    )
    assert len(dataset.test) == 4 and {s.plate_id for s in dataset.test} == {"P0", "P1"}
    assert not places(dataset.test) & places(dataset.train + dataset.validation)


def test_one_plate_is_split_within_and_it_says_so():
    by_well = build_dataset([plate("P0", ["K0"] * 6)], "nuclei")
    assert by_well.split_description.startswith("By well") and "one plate" in by_well.split_description
    by_clone = build_dataset([plate("P0", ["K0", "K1", "K2", "K3"] * 2)], "nuclei")
    assert by_clone.split_description.startswith("By clone") and check_split(by_clone) == []


@pytest.mark.parametrize("plan", [True, False])
def test_what_was_held_out_is_never_trained_on(plan):
    plates = [plate(f"P{n}", [f"K{(n + i) % 9}" for i in range(6)], plan=plan) for n in range(6)]
    held_out, seen = [], None
    for count in (2, 3, 4, 5, 6):
        dataset = build_dataset(plates[:count], "nuclei", held_out=held_out, seed=count)
        assert check_split(dataset) == []
        assert not set(map(tuple, held_out)) & places(dataset.train + dataset.validation)
        if seen is not None:
            assert places(dataset.test) == seen
        seen, held_out = places(dataset.test), dataset.held_out


@pytest.mark.parametrize("plan", [True, False])
def test_the_test_grows_by_plates_that_no_version_has_learnt_from(plan):
    design = [f"K{n}" for n in range(4)]
    plates = [plate(f"P{n}", [f"{c}-{n}" for c in design[:-1]] + ["K-common"], plan=plan) for n in range(12)]
    held_out, seen, learnt = [], [], set()
    sizes = []
    for count in (3, 4, 8, 12):
        dataset = build_dataset(plates[:count], "nuclei", held_out=held_out, seen=seen, test_share=0.25)
        assert check_split(dataset) == []
        assert set(held_out) <= places(dataset.test) and not places(dataset.test) & learnt
        sizes.append(len({s.plate_id for s in dataset.test}))
        learnt |= places(dataset.train + dataset.validation)
        held_out, seen = dataset.held_out, [one.plate_id for one in plates[:count]]
    assert sizes == ([1, 1, 2, 3] if plan else [3, 4, 8, 12])
    assert not any("K-common" in s.clone for s in dataset.test if s.plate_id != dataset.test[0].plate_id)


@pytest.mark.parametrize(
    "clones", [(("A", "B"), ("A", "B")), (("A", "B"), ("A", "C")), (("A", "A"), ("A", "B"))]
)
def test_a_data_set_too_small_to_part_plates_can_be_built_again(clones):
    roles = ["sample", "sample", "parental", "reference"]
    plates = [plate(f"P{n}", [*two, "parent", "ref"], roles) for n, two in enumerate(clones)]
    first = build_dataset(plates, "nuclei", seen=())
    again = build_dataset(plates, "nuclei", held_out=first.held_out, seen=["P0", "P1"])
    assert places(again.test) == places(first.test) and check_split(again) == []


def test_plates_with_the_clones_that_were_learnt_do_not_join_the_test():
    plates = [plate(f"P{n}", [f"K{c}" for c in range(6)]) for n in range(8)]
    first = build_dataset(plates[:2], "nuclei", seen=())
    grown = build_dataset(plates, "nuclei", held_out=first.held_out, seen=["P0", "P1"])
    assert grown.test == first.test and check_split(grown) == []


def test_a_field_key_holds_its_whole_well_out():
    design = plate("P0", [""] * 5, plan=False, sites=2)
    dataset = build_dataset([design], "nuclei", held_out=[("P0", "A02", 1)])
    assert places(dataset.test) == {("P0", "A02")} and len(dataset.test) == 2


def test_wells_held_out_elsewhere_stay_on_the_list():
    dataset = build_dataset([plate("P1", ["a", "b", "c", "d"])], "nuclei", held_out=[("gone", "B07")])
    assert ("gone", "B07") in dataset.held_out and len(dataset.held_out) > 1


def test_the_draw_does_not_depend_on_the_order_of_plates():
    plates = [plate(f"P{n}", [f"K{i}" for i in range(6)]) for n in range(4)]
    first, second = build_dataset(plates, "nuclei"), build_dataset(plates[::-1], "nuclei")
    assert first.test == second.test and first.train == second.train and first.version == second.version


def test_folds_test_every_well_once():
    plates = [plate(f"P{n}", [""] * 5, plan=False, sites=2) for n in range(2)]
    dataset = build_dataset(plates, "nuclei", folds=3)
    folds = [dataset.fold(i) for i in range(3)]
    tested = [s for fold in folds for s in fold.test]
    assert sorted(tested) == sorted(dataset.train + dataset.validation + dataset.test)
    assert all(check_split(fold) == [] for fold in folds)
    assert all({s.plate_id for s in fold.test} == {"P0", "P1"} for fold in folds)


def test_folds_leave_frozen_wells_alone():
    design = plate("P0", [""] * 8, plan=False)
    dataset = build_dataset([design], "nuclei", folds=3, held_out=[("P0", "A05")])
    for index in range(3):
        fold = dataset.fold(index)
        assert ("P0", "A05") not in places(fold.train + fold.validation + fold.test)


def test_a_leak_is_found():
    dataset = build_dataset([plate(f"P{n}", [f"K{i}" for i in range(6)]) for n in range(3)], "nuclei")
    assert check_split(dataset) == []
    dataset.train.append(dataset.test[0])
    problems = " ".join(check_split(dataset))
    for word in ("is in train and in test", "Clone", "Plate", "held out"):
        assert word in problems


def test_fields_without_stain_or_light_are_left_out_with_the_reason():
    design = plate("P0", [""] * 6, plan=False)
    del design.wells["A01"].fields[1].images["nuclei"]
    del design.wells["A02"].fields[1].images["transmitted"]
    design.quarantined = pd.DataFrame(
        {"Metadata_Well": ["A03"], "Metadata_Site": [1], "reason": ["blank image"]}
    )
    dataset = build_dataset([design], "nuclei")
    assert {(row.well, row.reason) for row in dataset.left_out} == {
        ("A01", "no nuclei stain"),
        ("A02", "no transmitted-light image"),
        ("A03", "quarantined"),
    }


def test_the_target_scale_is_one_constant_of_the_training_side():
    dataset = build_dataset([plate(f"P{n}", [f"K{i}" for i in range(6)]) for n in range(3)], "nuclei")
    stains = np.concatenate([dataset.stain(s).ravel() for s in dataset.train])
    assert dataset.target_scale == pytest.approx(np.percentile(stains, 99.9), rel=1e-4)
    for sample in dataset.test:
        np.testing.assert_allclose(
            dataset.target(sample) * dataset.target_scale, dataset.stain(sample), rtol=1e-5
        )


def test_a_well_twice_as_bright_has_a_target_twice_as_high():
    design = plate("P0", [""] * 5, plan=False)
    for n, well in enumerate(design.wells.values(), 1):
        well.fields[1].images |= cells(5, brightness=1000.0 * n)
    dataset = build_dataset([design], "nuclei")
    peaks = {s.well: dataset.target(s).max() for s in dataset.train + dataset.validation + dataset.test}
    assert peaks["A04"] / peaks["A02"] == pytest.approx(2, rel=0.05)


def test_a_binary_target_is_zero_and_one_at_scale_one():
    design = plate("P0", [""] * 5, plan=False)
    for well in design.wells.values():
        well.fields[1].images["gfp"] = well.fields[1].images.pop("nuclei")
    dataset = build_dataset([design], "gfp")
    assert dataset.binary and dataset.target_scale == 1
    assert set(np.unique(dataset.target(dataset.train[0]))) == {0, 1}


def test_plates_of_another_pixel_size_are_resampled_to_the_common_one():
    plates = [
        plate("P0", [""] * 3, plan=False),
        plate("P1", [""] * 3, plan=False),
        plate("P2", [""] * 3, plan=False, size=96, pixel_size_um=0.325),
    ]
    dataset = build_dataset(plates, "nuclei")
    assert dataset.pixel_size_um == 0.65
    for sample in dataset.train + dataset.validation + dataset.test:
        assert dataset.image(sample).shape == dataset.target(sample).shape == (SIZE, SIZE)


def test_resampling_keeps_a_smooth_image():
    y, x = np.mgrid[:60, :80]
    smooth = np.sin(x / 9) + np.cos(y / 7)
    there = resample(smooth, (90, 120))
    assert there.shape == (90, 120) and there.dtype == np.float32
    np.testing.assert_allclose(resample(there, (60, 80)), smooth, atol=0.05)
    assert there.mean() == pytest.approx(smooth.mean(), abs=0.01)


def test_a_manifest_brings_the_data_set_back():
    plates = {p.plate_id: p for p in (plate(f"P{n}", [f"K{i}" for i in range(6)]) for n in range(3))}
    dataset = build_dataset(list(plates.values()), "nuclei", held_out=[("old", "A01")], folds=3)
    manifest = json.loads(json.dumps(dataset.manifest()))
    again = Dataset.from_manifest(manifest, plates.__getitem__)
    assert again.manifest() == dataset.manifest()
    assert again.test == dataset.test and isinstance(again.test[0], FieldSample)
    np.testing.assert_array_equal(again.target(again.test[0]), dataset.target(dataset.test[0]))
    assert again.fold(1).version == dataset.fold(1).version


def test_a_manifest_whose_plate_or_recipe_changed_is_refused(monkeypatch):
    plates = {p.plate_id: p for p in (plate(f"P{n}", [f"K{i}" for i in range(6)]) for n in range(3))}
    manifest = build_dataset(list(plates.values()), "nuclei").manifest()
    plates["P1"].wells["A01"].fields[1].images |= cells(12345)
    with pytest.raises(InputError, match="P1"):
        Dataset.from_manifest(manifest, plates.__getitem__)
    with pytest.raises(InputError, match="recipe"):
        Dataset.from_manifest(manifest | {"recipe": "other"}, plates.__getitem__)


def test_the_version_follows_content_split_and_scale():
    plates = [plate(f"P{n}", [f"K{i}" for i in range(6)]) for n in range(3)]
    version = build_dataset(plates, "nuclei").version
    assert build_dataset(plates, "nuclei").version == version
    assert build_dataset(plates, "nuclei", seed=3).version != version
    plates[0].wells["A01"].fields[1].images |= cells(999)
    assert build_dataset(plates, "nuclei").version != version


def empty(design):
    for well in design.wells.values():
        well.fields[1].images["nuclei"][:] = 100
    return design


@pytest.mark.parametrize(
    ("make", "arguments", "word"),
    [
        (lambda: [], {}, "none given"),
        (lambda: [plate("P0", ["a"])], {}, "control wells not counted"),
        (lambda: [plate("P0", ["a", "b"], sites=5)], {}, "2 labelled wells cannot"),
        (lambda: [plate("P0", ["a", "b", "c"], ["blank"] * 3)], {}, "blank well"),
        (lambda: [empty(plate("P0", ["a", "b", "c", "d"]))], {}, "empty"),
        (lambda: [plate("P0", ["a"] * 4), plate("P0", ["a"] * 4)], {}, "twice"),
        (lambda: [plate("P0", ["a"] * 4)], {"test_share": 0}, "share"),
        (lambda: [plate("P0", [""] * 4, plan=False)], {"folds": 4}, "folds"),
        (lambda: [plate("P0", [""] * 4, plan=False)], {"folds": 1}, "folds"),
        (
            lambda: [plate("P0", [""] * 4, plan=False)],
            {"held_out": [("P0", f"A0{n}") for n in (1, 2, 3)]},
            "label more",
        ),
    ],
)
def test_what_cannot_be_split_is_told_in_one_sentence(make, arguments, word):
    with pytest.raises(InputError, match=r"^[^\n]+\.$") as told:
        build_dataset(make(), "nuclei", **arguments)
    assert word in str(told.value)


def test_a_stain_that_no_plate_has_is_named():
    with pytest.raises(InputError, match="no golgi stain"):
        build_dataset([plate("P0", ["a", "b", "c", "d"])], ORGANELLES["golgi"])


def test_a_data_set_without_folds_says_how_to_get_them():
    dataset = build_dataset([plate("P0", ["a"] * 5)], "nuclei")
    with pytest.raises(InputError, match="folds=3"):
        dataset.fold(0)


def test_the_cache_stays_within_its_bounds():
    cache, made = ImageCache(3 * 800), []

    def make(key):
        made.append(key)
        return np.full(100, float(key))

    for key in (1, 2, 3, 1, 4, 1, 2):
        assert cache.get(key, lambda key=key: make(key))[0] == key
    assert made == [1, 2, 3, 4] and cache.used_bytes <= 3 * 800
    assert isinstance(cache.get(2, lambda: make(2)), np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        cache.get(2, lambda: make(2))[0] = 5
    with pytest.raises(ValueError, match="read-only"):
        cache.get(1, lambda: make(1))[0] = 5


def test_scratch_images_go_with_their_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cache = ImageCache(100)
    for key in range(3):
        cache.get(key, lambda: np.ones(100))
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    del cache
    assert not list(tmp_path.iterdir())


def test_a_full_disk_only_costs_time(monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", full)
    cache, made = ImageCache(100), []
    for key in (1, 2, 1):
        made.append(key)
        assert cache.get(key, lambda key=key: np.full(100, float(key)))[0] == key
    assert cache.used_bytes == 800


def test_the_split_is_proven_in_numbers():
    clones = ["A", "A", "B", "B", "C", "C"]
    dataset = build_dataset([plate(f"P{n}", [f"{c}{n % 2}" for c in clones]) for n in range(4)], "nuclei")
    proof = json.loads(json.dumps(split_proof(dataset)))
    assert proof["problems"] == [] and proof["shared"]["train and test"] == dict.fromkeys(
        ("wells", "plates", "clones"), 0
    )
    assert proof["sides"]["test"]["fields"] == len(dataset.test)
    assert proof["frozen_wells"] == len({s.place for s in dataset.test}) and len(proof["frozen_sha256"]) == 64
    dataset.train.append(dataset.test[0])
    leaky = split_proof(dataset)
    assert leaky["shared"]["train and test"]["wells"] == 1 and leaky["problems"]


def test_an_image_that_cannot_be_prepared_is_named():
    design = plate("P0", [""] * 4, plan=False)
    dataset = build_dataset([design], "nuclei")
    sample = dataset.train[0]
    design.wells[sample.well].fields[1].images["transmitted"] = np.full((SIZE, SIZE), np.nan)
    with pytest.raises(InputError, match=f"Plate P0, well {sample.well}, site 1: .*NaN"):
        dataset.image(sample)


def test_of_few_wells_a_small_one_validates():
    design = plate("P0", [""] * 5, plan=False, sites=3)
    for well in ("A02", "A03"):
        del design.wells[well].fields[1], design.wells[well].fields[2]
    for seed in range(6):
        dataset = build_dataset([design], "nuclei", seed=seed)
        small = {"A02", "A03"} - {s.well for s in dataset.test}
        assert {s.well for s in dataset.validation} <= small
