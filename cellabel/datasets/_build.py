"""From labelled plates to a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from cellabel.datasets._dataset import Dataset
from cellabel.datasets._samples import LabelledPlate, collect
from cellabel.datasets._split import split_samples
from cellabel.errors import InputError
from cellabel.organelles import Organelle
from cellabel.organelles import organelle as recipe_of


def build_dataset(
    plates: Sequence[LabelledPlate],
    organelle: str | Organelle,
    *,
    held_out: Iterable[Sequence[Any]] | None = None,
    seen: Iterable[str] | None = None,
    test_share: float = 0.25,
    folds: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Parts the fields that show an organelle into training, validation and test.

    By clone and plate: some plates are the test, and a clone that lies on both sides is dropped from one of
    them; controls, whose clone lies everywhere, are not tested. With one plate, or unknown clones, by clone
    or by well, and `split_description` says so. Blank and unstained wells and fields without the stain are
    left out.

    Args:
        plates: labelled plates, each once.
        organelle: name of the recipe, or a recipe.
        held_out: (plate, well) or (plate, well, site) that earlier versions tested on. They are never trained
            on; where any of them is among the plates, they are the test.
        seen: plates of the data that earlier versions were made of. Where the held-out wells have come to be
            less than their share, they are joined by wells of plates that are not among these; None: never.
        test_share: share of the plates (clones, wells) that becomes the test.
        folds: number of cross-validation folds for `Dataset.fold`.
        seed: of the draw; a name's place in the draw does not depend on the other names.

    Raises:
        InputError: no field with the stain, too few wells, an empty target, or impossible arguments.
    """
    recipe = recipe_of(organelle)
    if not 0 < test_share < 1:
        raise InputError(f"test_share is {test_share!r}; pass a share between 0 and 1, such as 0.25.")
    samples, left_out = collect(plates, recipe)
    names = ", ".join(plate.plate_id for plate in plates) or "none given"
    if not samples:
        reasons = Counter(row.reason for row in left_out).most_common(1)
        why = f" ({reasons[0][1]} times: {reasons[0][0]})" if reasons else ""
        raise InputError(
            f"No field of the plates ({names}) can train {recipe.name}{why}; add plates with that stain."
        )
    frozen = {(str(key[0]), str(key[1])) for key in held_out or ()}
    split = split_samples(samples, frozen, test_share, seed, seen=seen)
    dataset = Dataset(plates, recipe, split, held_out=frozen, left_out=left_out, folds=folds, seed=seed)
    if folds is not None:
        dataset.fold(0)
    return dataset
