"""What the checks ask of datasets, models and predictions."""

from __future__ import annotations

from functools import partial

import pandas as pd

from cellabel.datasets import Dataset, check_split
from cellabel.errors import InputError
from cellabel.evaluation import Decision, decide, well_errors
from cellabel.loop.held_out import HeldOut, read_held_out
from cellabel.loop.limits import LARGEST_MEDIAN_ERROR
from cellabel.loop.training import CROSS_VALIDATED
from cellabel.organelles import Organelle
from cellabel.plates import open_plate
from cellabel.registry import ModelRegistry
from cellabel.stores import Home, read_json

__all__ = [
    "LARGEST_MEDIAN_ERROR",
    "check_dataset",
    "current_dataset",
    "first_model_verdict",
    "implausible_wells",
    "newest_held_out",
    "read_cross_validated",
    "robustness_table",
    "stain_errors",
]


def current_dataset(home: Home, organelle: Organelle) -> Dataset:
    """The dataset that the next training learns from.

    Raises:
        InputError: there is none, or its plates are no longer what they were.
    """
    manifest = read_json(home.datasets.path(organelle.name) / "manifest.json") or {}
    return Dataset.from_manifest(manifest, partial(open_plate, home.plates))


def check_dataset(home: Home, organelle: Organelle) -> list[str]:
    """What is wrong with the current dataset: leaks between the sides, and sides that are empty."""
    dataset = current_dataset(home, organelle)
    found = list(check_split(dataset))
    sides = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return found + [f"the {name} side is empty" for name, samples in sides.items() if not samples]


def newest_held_out(registry: ModelRegistry, organelle: Organelle) -> HeldOut:
    """What was measured when the newest version was trained."""
    newest = registry.versions(organelle.name)[0]
    return read_held_out(registry.folder(organelle.name, newest.version))


def read_cross_validated(registry: ModelRegistry, organelle: Organelle) -> pd.DataFrame:
    """Fields measured by models that had not seen them, one row a field and side.

    Raises:
        InputError: the champion was not cross-validated.
    """
    path = registry.folder(organelle.name) / CROSS_VALIDATED
    if not path.exists():
        raise InputError(
            f"The champion of {organelle.name} was not cross-validated: set models.folds and train."
        )
    return pd.read_parquet(path)


def first_model_verdict(held_out: HeldOut, organelle: Organelle) -> Decision:
    """Whether every primary metric was measured on clean wells, with finite and plausible errors."""
    metrics = organelle.primary_metrics
    return decide(None, held_out.errors(metrics), metrics=metrics)


def robustness_table(held_out: HeldOut, organelle: Organelle) -> pd.DataFrame:
    """Mean |log error| over the primary metrics under each condition, clean first."""
    predicted = held_out.measured[held_out.measured["side"] == "predicted"]
    rows = []
    for condition, fields in predicted.groupby("condition", sort=False):
        errors = held_out.errors(organelle.primary_metrics, str(condition))["log_error"].abs()
        rows.append(
            {
                "condition": condition,
                "mean_error": float(errors.mean()),
                "pixel_pearson": float(fields["pixel_pearson"].mean()),
                "fields": len(fields),
            }
        )
    return pd.DataFrame(rows)


def implausible_wells(home: Home, plate_id: str, organelle: Organelle) -> pd.DataFrame:
    """Well values outside of the recipe's plausible ranges: well, feature, value, lower, upper."""
    wells = home.tables.read("wells", organelle.name, plate_id)
    rows = []
    for feature, (lower, upper) in organelle.plausible.items():
        if feature not in wells:
            continue
        outside = wells[~wells[feature].between(lower, upper)]
        rows += [
            {"well": well, "feature": feature, "value": value, "lower": lower, "upper": upper}
            for well, value in zip(outside["Metadata_Well"], outside[feature], strict=True)
        ]
    return pd.DataFrame(rows, columns=["well", "feature", "value", "lower", "upper"])


def stain_errors(home: Home, plate_id: str, organelle: Organelle) -> pd.DataFrame | None:
    """Median |log error| of each primary metric against the plate's stain; None where it has none."""
    if not home.tables.has("stained", organelle.name, plate_id):
        return None
    errors = well_errors(
        home.tables.read("stained", organelle.name, plate_id),
        home.tables.read("wells", organelle.name, plate_id),
        organelle.primary_metrics,
    )
    rows = []
    for metric, part in errors.groupby("metric", sort=False):
        median = float(part["log_error"].abs().median())
        limit = organelle.largest_errors.get(str(metric), LARGEST_MEDIAN_ERROR)
        row = {"metric": metric, "n_wells": len(part), "median_error": median, "limit": limit}
        rows.append(row | {"passed": median <= limit})
    return pd.DataFrame(rows)
