"""Who trains, who validates, who tests."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from cellabel.datasets._samples import CONTROL_ROLES, FieldSample
from cellabel.errors import InputError

if TYPE_CHECKING:
    from cellabel.datasets._dataset import Dataset

VALIDATION_SHARE = 0.15
Place = tuple[str, str]
SplitBy = Literal["clone and plate", "plate", "clone", "well"]
"""What test and training have no instance of in common."""

Parted = tuple[list[FieldSample], list[FieldSample], SplitBy, str]
"""Training and validation, test, what parts them, and how."""


@dataclass(frozen=True)
class Split:
    """The sides of a split, each in order; what parts test from training, and how, in a sentence."""

    train: list[FieldSample]
    validation: list[FieldSample]
    test: list[FieldSample]
    by: SplitBy
    description: str


def split_samples(
    samples: Sequence[FieldSample],
    held_out: Iterable[Place],
    test_share: float,
    seed: int,
    *,
    seen: Iterable[str] | None = None,
) -> Split:
    """Splits by clone and plate where both are known, else by clone or by well.

    Args:
        samples: everything usable.
        held_out: (plate, well) that earlier versions tested on; if any is among the samples, they are the
            test.
        test_share: share of the plates, clones or wells that becomes the test.
        seed: of the draw.
        seen: plates of earlier versions' data; where the test has come to be less than its share, it grows by
            plates that are not among them. None: it stays as it is.

    Raises:
        InputError: too few wells to train, validate and test apart.
    """
    _require_wells(samples)
    frozen = frozenset(held_out)
    if any(sample.place in frozen for sample in samples):
        grown = (
            frozen if seen is None else frozen | _new_to_test(samples, frozen, set(seen), test_share, seed)
        )
        rest, test, by, how = _keep_frozen(samples, grown)
    else:
        rest, test, by, how = _draw_test(samples, test_share, seed)
    train, validation = draw_validation(rest, seed)
    return Split(train, validation, test, by, f"By {by}: {how}.")


def fold_samples(samples: Sequence[FieldSample], folds: int, index: int, seed: int) -> Split:
    """Leaves some clones (wells, where clones are unknown) out; together the folds test every sample.

    Raises:
        InputError: fewer groups than folds, or no such fold.
    """
    by_clone = _clones_known(samples)
    plates = {_group(sample, by_clone): sample.plate_id for sample in reversed(samples)}
    # Groups of one plate stand together and are dealt out in turn, so every fold tests on every plate.
    groups = sorted(plates, key=lambda group: (plates[group], _rank(seed, "fold", group)))
    if not 2 <= folds <= len(groups) - 1:
        raise InputError(
            f"{folds} folds cannot be made of {len(groups)} {'clones' if by_clone else 'wells'}; "
            f"choose from 2 to {len(groups) - 1}."
        )
    if not 0 <= index < folds:
        raise InputError(f"There is no fold {index}; the folds are 0 to {folds - 1}.")
    out = set(groups[index::folds])
    test = [sample for sample in samples if _group(sample, by_clone) in out]
    rest = [sample for sample in samples if _group(sample, by_clone) not in out]
    train, validation = draw_validation(rest, seed)
    by: SplitBy = "clone" if by_clone else "well"
    description = f"By {by}: fold {index + 1} of {folds}, {len(out)} of {len(groups)} {by}s left out."
    return Split(train, validation, test, by, description)


def draw_validation(samples: Sequence[FieldSample], seed: int) -> tuple[list[FieldSample], list[FieldSample]]:
    """Training and validation samples: some clones (wells, where clones are unknown), no controls.

    Raises:
        InputError: fewer than two groups.
    """
    by_clone = _clones_known(samples)
    candidates = [sample for sample in samples if sample.role not in CONTROL_ROLES]
    if by_clone and len({sample.clone for sample in candidates}) < 2:
        by_clone = False
    sizes = Counter(_group(sample, by_clone) for sample in candidates)
    if len(sizes) < 2:
        raise InputError(
            f"{len(sizes)} well is left to train and validate on beside the test, control wells not "
            "counted; label more wells."
        )
    count = max(1, round(VALIDATION_SHARE * len(sizes)))
    # Where one group is already more than the share, it had better be a small one.
    few = count > VALIDATION_SHARE * len(sizes)
    ranked = sorted(sizes, key=lambda group: (sizes[group] * few, _rank(seed, "validation", group)))
    chosen = set(ranked[:count])
    train = [sample for sample in samples if _group(sample, by_clone) not in chosen]
    return train, [sample for sample in samples if _group(sample, by_clone) in chosen]


def check_split(dataset: Dataset) -> list[str]:
    """What leaks from training into the test, one sentence each; empty where nothing does."""
    sides = _sides(dataset)
    problems = [f"The {name} side is empty." for name, samples in sides.items() if not samples]
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = {s.place for s in sides[first]} & {s.place for s in sides[second]}
        problems += [f"Well {w} of plate {p} is in {first} and in {second}." for p, w in sorted(shared)]
    learnt = [*dataset.train, *dataset.validation]
    tested_clones = {s.clone for s in dataset.test if s.clone and s.role not in CONTROL_ROLES}
    if "clone" in dataset.split_by:
        known = {s.clone for s in learnt if s.role not in CONTROL_ROLES}
        problems += [f"Clone {clone} is trained on and tested." for clone in sorted(tested_clones & known)]
    if "plate" in dataset.split_by:
        shared_plates = {s.plate_id for s in learnt} & {s.plate_id for s in dataset.test}
        problems += [f"Plate {plate} is trained on and tested." for plate in sorted(shared_plates)]
    frozen = {s.place for s in learnt} & set(dataset.held_out)
    problems += [f"Well {w} of plate {p} was held out and is trained on." for p, w in sorted(frozen)]
    return problems


def split_proof(dataset: Dataset) -> dict[str, Any]:
    """What each side holds, what sides share, and the verdict: for the run's report, as JSON can hold it.

    Returns:
        sides: name → fields, wells, plates, clones (without controls); shared: pair of sides → wells, plates
        and clones that both hold; frozen_wells: number never trained on by any version; frozen_sha256: their
        digest; problems: `check_split`'s sentences, empty where nothing leaks.
    """
    held: dict[str, dict[str, set[Any]]] = {
        name: {
            "fields": {s.key for s in samples},
            "wells": {s.place for s in samples},
            "plates": {s.plate_id for s in samples},
            "clones": {s.clone for s in samples if s.clone and s.role not in CONTROL_ROLES},
        }
        for name, samples in _sides(dataset).items()
    }
    shared = {
        f"{first} and {second}": {
            what: len(held[first][what] & held[second][what]) for what in ("wells", "plates", "clones")
        }
        for first, second in combinations(held, 2)
    }
    places = json.dumps([list(place) for place in dataset.held_out])
    return {
        "sides": {name: {what: len(units) for what, units in side.items()} for name, side in held.items()},
        "shared": shared,
        "frozen_wells": len(dataset.held_out),
        "frozen_sha256": hashlib.sha256(places.encode()).hexdigest(),
        "problems": check_split(dataset),
    }


def _sides(dataset: Dataset) -> dict[str, list[FieldSample]]:
    return {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}


def _keep_frozen(samples: Sequence[FieldSample], frozen: frozenset[Place]) -> Parted:
    test = [sample for sample in samples if sample.place in frozen]
    clones = {sample.clone for sample in test if sample.clone and sample.role not in CONTROL_ROLES}
    rest = [
        sample
        for sample in samples
        if sample.place not in frozen and (sample.role in CONTROL_ROLES or sample.clone not in clones)
    ]
    plates = {sample.plate_id for sample in test}
    elsewhere = [sample for sample in rest if sample.plate_id not in plates]
    # Giving up the test plates' other wells must not cost most of what there is to learn from.
    if 2 * len({s.place for s in elsewhere}) >= len({s.place for s in rest}) and _trainable(elsewhere):
        held = f"the wells held out so far, on {len(plates)} plates"
        return elsewhere, test, "clone and plate" if clones else "plate", held
    held = "the wells held out so far, whose plates train too"
    if clones and not _trainable(rest):
        rest = [sample for sample in samples if sample.place not in frozen]
        return rest, test, "well", f"{held}, and their clones, for want of others"
    return rest, test, "clone" if clones else "well", held


def _new_to_test(
    samples: Sequence[FieldSample], frozen: frozenset[Place], seen: set[str], test_share: float, seed: int
) -> set[Place]:
    """Wells that no version has learnt from, to bring the test back to its share of plates (or wells).

    A plate that a version has learnt from never becomes a test: the champion would know it.
    """
    candidates = [sample for sample in samples if sample.role not in CONTROL_ROLES]
    tested = {plate for plate, _ in frozen} & {sample.plate_id for sample in samples}
    learnt = {s.clone for s in candidates if s.plate_id in seen - tested and s.clone}
    new = [s for s in candidates if s.plate_id not in seen | tested and s.clone not in learnt]
    by_plate: dict[str, set[Place]] = {}
    for sample in new:
        by_plate.setdefault(sample.plate_id, set()).add(sample.place)
    ranked = sorted(by_plate, key=lambda plate: _rank(seed, "plate", plate))
    if _clones_known(samples):
        missing = round(test_share * len({sample.plate_id for sample in samples})) - len(tested)
        return set().union(*(by_plate[plate] for plate in ranked[: max(0, missing)]))
    return {
        place
        for places in by_plate.values()
        for place in sorted(places, key=lambda place: _rank(seed, "test", "/".join(place)))[
            : round(test_share * len(places))
        ]
    }


def _draw_test(samples: Sequence[FieldSample], test_share: float, seed: int) -> Parted:
    plates = sorted({sample.plate_id for sample in samples})
    if _clones_known(samples) and len(plates) > 1:
        drawn = _by_clone_and_plate(samples, plates, test_share, seed)
        if drawn is not None:
            return drawn
    return _by_group(samples, plates, test_share, seed)


def _by_group(samples: Sequence[FieldSample], plates: list[str], test_share: float, seed: int) -> Parted:
    candidates = [sample for sample in samples if sample.role not in CONTROL_ROLES]
    by_clone = _clones_known(samples) and len({sample.clone for sample in candidates}) >= 4
    everything = {_group(sample, by_clone) for sample in candidates}
    chosen: set[str] = set()
    for plate in plates:  # each gives its share, so that the test sees every plate
        groups = {_group(s, by_clone) for s in candidates if s.plate_id == plate}
        missing = round(test_share * len(groups)) - len(groups & chosen)
        ranked = sorted(groups - chosen, key=lambda group: _rank(seed, "test", group))
        chosen |= set(ranked[: max(0, missing)])
    ranked = sorted(chosen or everything, key=lambda group: _rank(seed, "test", group))
    chosen = set(ranked[: max(1, min(len(chosen), len(everything) - 2))])
    test = [sample for sample in samples if _group(sample, by_clone) in chosen]
    rest = [sample for sample in samples if _group(sample, by_clone) not in chosen]
    why = "there is one plate" if len(plates) == 1 else "clones are unknown or the same everywhere"
    by: SplitBy = "clone" if by_clone else "well"
    return rest, test, by, f"{len(chosen)} {by}s held out, because {why}; new plates are not tested"


def _by_clone_and_plate(
    samples: Sequence[FieldSample], plates: list[str], test_share: float, seed: int
) -> Parted | None:
    ranked = sorted(plates, key=lambda plate: _rank(seed, "plate", plate))
    count = min(max(1, round(test_share * len(plates))), len(plates) - 1)
    test_plates = set(ranked[:count])
    here = {s.clone for s in samples if s.plate_id in test_plates and s.role not in CONTROL_ROLES}
    there = {s.clone for s in samples if s.plate_id not in test_plates and s.role not in CONTROL_ROLES}
    shared = sorted(here & there, key=lambda clone: _rank(seed, "clone", clone))
    test_clones = (here - there) | set(shared[: max(1, round(test_share * len(shared)))] if shared else ())
    test = [
        s
        for s in samples
        if s.plate_id in test_plates and s.role not in CONTROL_ROLES and s.clone in test_clones
    ]
    rest = [
        s
        for s in samples
        if s.plate_id not in test_plates and (s.role in CONTROL_ROLES or s.clone not in test_clones)
    ]
    if not test or not _trainable(rest):
        return None
    unused = len(samples) - len(test) - len(rest)
    how = (
        f"{len(test_clones)} clones on {count} of {len(plates)} plates held out; "
        f"{unused} fields of shared plates or clones, or of controls, are in neither"
    )
    return rest, test, "clone and plate", how


def _trainable(samples: Sequence[FieldSample]) -> bool:
    """Whether there are wells to train on and wells to validate on."""
    return len({sample.place for sample in samples if sample.role not in CONTROL_ROLES}) >= 2


def _clones_known(samples: Sequence[FieldSample]) -> bool:
    return bool(samples) and all(sample.clone for sample in samples)


def _group(sample: FieldSample, by_clone: bool) -> str:
    return sample.clone if by_clone else f"{sample.plate_id}/{sample.well}"


def _rank(seed: int, purpose: str, name: str) -> str:
    """A place in a random order that other names do not change."""
    return hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).hexdigest()


def _require_wells(samples: Sequence[FieldSample]) -> None:
    wells = {sample.place for sample in samples if sample.role not in CONTROL_ROLES}
    if len(wells) < 3:
        raise InputError(
            f"{len(wells)} labelled well{'' if len(wells) == 1 else 's'} cannot train, validate and test "
            "apart, control wells not counted; label at least 3 others."
        )
