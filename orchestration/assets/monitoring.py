"""Drift: reported by the sensor, not computed in a run; a run adds the diagnosis."""

import dagster as dg

from cellabel.organelles import Organelle
from orchestration.partitions import plates

__all__ = ["acquisition_drift", "drift"]


def drift(organelle: Organelle) -> dg.AssetSpec:
    """The drift verdicts of an organelle's embeddings, one a plate."""
    return dg.AssetSpec(
        [organelle.name, "drift"],
        deps=[dg.AssetKey([organelle.name, "predicted_plate"])],
        partitions_def=plates,
        group_name="monitoring",
        kinds={"numpy"},
        owners=["team:models"],
        description=f"Whether the plate's {organelle.name} embeddings come from the reference: statistic, "
        "threshold, verdict and change time, reported by the drift sensor; the diagnosis arrives from the "
        "run that it requests.",
    )


acquisition_drift = dg.AssetSpec(
    ["acquisition", "drift"],
    deps=["raw_plate"],
    partitions_def=plates,
    group_name="monitoring",
    kinds={"numpy"},
    owners=["team:platform"],
    description="The same for the images as acquired, before any normalisation: level, spread, noise, "
    "sharpness and evenness. It does not depend on any model, so a model made robust cannot blind it.",
)
