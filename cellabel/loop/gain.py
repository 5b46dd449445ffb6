"""What a training against corruptions has brought, by condition, on wells that both models measured."""

from __future__ import annotations

import pandas as pd

from cellabel.evaluation import downstream_metrics, gain_table
from cellabel.loop.held_out import HeldOut
from cellabel.organelles import Organelle

__all__ = ["corruption_gain"]

RESAMPLES = 500
_AGREEMENT = ("pearson", "pearson_ci_lower", "pearson_ci_upper")


def corruption_gain(before: HeldOut, after: HeldOut, organelle: Organelle) -> pd.DataFrame:
    """Champion against retrained model on the same held-out wells, clean and corrupted.

    Conditions that one of the two was not measured under, or on other wells, are left out, and so are those
    that leave too little of an image to judge by ("information destroyed").

    Args:
        before: measured by the champion.
        after: measured by the retrained model.
        organelle: whose primary metrics are compared.

    Returns:
        One row a condition and metric, clean first: condition, the columns of
        `cellabel.evaluation.gain_table`, and pearson_before, pearson_after with their intervals.
    """
    metrics, parts = organelle.primary_metrics, []
    destroyed = {*before.destroyed, *after.destroyed}
    for condition in after.conditions:
        if condition in destroyed or not _alike(before, after, condition):
            continue
        table = gain_table(
            before.errors(metrics, condition), after.errors(metrics, condition), n_bootstrap=RESAMPLES
        )
        for name, side in (("before", before), ("after", after)):
            known = _agreement(side, condition, organelle).add_suffix(f"_{name}")
            table = table.merge(known, left_on="metric", right_index=True, how="left")
        table.insert(0, "condition", condition)
        parts.append(table)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _agreement(side: HeldOut, condition: str, organelle: Organelle) -> pd.DataFrame:
    """Pearson of each metric over the wells, with its interval; by metric."""
    true, predicted = side.pair(condition)
    kept = [name for name in true if str(name).startswith("Metadata_")] + list(organelle.primary_metrics)
    found = downstream_metrics(true[kept], predicted[kept], n_bootstrap=RESAMPLES)
    return found.set_index("feature")[list(_AGREEMENT)]


def _alike(before: HeldOut, after: HeldOut, condition: str) -> bool:
    """Whether both were measured under a condition, on the same wells."""
    if condition not in before.conditions:
        return False
    keys = ["Metadata_Plate", "Metadata_Well"]
    wells = [set(one.wells("predicted", condition)[keys].itertuples(index=False)) for one in (before, after)]
    return wells[0] == wells[1]
