"""Checks of datasets and models."""

import dagster as dg

from cellabel.organelles import Organelle
from orchestration.metadata import table_preview
from orchestration.partitions import plates
from orchestration.resources import Alerts, Models, Stores

__all__ = ["controls", "downstream", "no_leakage", "robustness"]


def no_leakage(organelle: Organelle) -> dg.AssetChecksDefinition:
    """No clone, plate or well on both sides of the split."""

    @dg.asset_check(
        asset=dg.AssetKey([organelle.name, "preprocessed_dataset"]),
        name="no_leakage",
        blocking=True,
        description="No held-out well, clone or plate is trained on, and every side has fields.",
    )
    def check(stores: Stores) -> dg.AssetCheckResult:
        from cellabel.loop import check_dataset

        found = check_dataset(stores.open(), organelle)
        return dg.AssetCheckResult(
            passed=not found,
            description="; ".join(found) or "the split is clean",
            metadata={"findings": len(found)},
        )

    return check


def downstream(organelle: Organelle) -> dg.AssetChecksDefinition:
    """What is measured on predictions agrees with what is measured on stains."""

    @dg.asset_check(
        asset=dg.AssetKey([organelle.name, "organelle_model"]),
        name="downstream_metrics",
        description="Errors of the primary metrics on held-out wells are finite and within a factor of two.",
    )
    def check(stores: Stores, models: Models) -> dg.AssetCheckResult:
        from cellabel.loop import first_model_verdict, newest_held_out

        held_out = newest_held_out(models.open(), organelle)
        decision = first_model_verdict(held_out, organelle)
        return dg.AssetCheckResult(
            passed=decision.promote,
            severity=dg.AssetCheckSeverity.WARN,
            description=decision.reason,
            metadata={
                "errors": table_preview(decision.table),
                "agreement": table_preview(held_out.agreement()),
                "pixel_pearson": held_out.pixel_pearson(),
            },
        )

    return check


def robustness(organelle: Organelle) -> dg.AssetChecksDefinition:
    """How much worse the model gets on corrupted images."""

    @dg.asset_check(
        asset=dg.AssetKey([organelle.name, "organelle_model"]),
        name="robustness",
        description="Errors on corrupted images of the held-out wells, beside the clean ones.",
    )
    def check(stores: Stores, models: Models) -> dg.AssetCheckResult:
        from cellabel.loop import newest_held_out, robustness_table

        table = robustness_table(newest_held_out(models.open(), organelle), organelle)
        worst = table.iloc[int(table["mean_error"].argmax())]
        return dg.AssetCheckResult(
            passed=bool(table["mean_error"].notna().all()),
            severity=dg.AssetCheckSeverity.WARN,
            description=f"worst on {worst['condition']}: mean |log error| {worst['mean_error']:.3f}",
            metadata={"by_condition": table_preview(table)},
        )

    return check


def controls(organelle: Organelle) -> dg.AssetChecksDefinition:
    """A new champion's control wells beside those of the one before."""

    @dg.asset_check(
        asset=dg.AssetKey([organelle.name, "prediction_table"]),
        name="control_wells",
        partitions_def=plates,
        description="After a promotion the old champion measures the control wells of the next plates too; "
        "where they leave the new one's chart and not the old one's, the old champion returns.",
    )
    def check(
        context: dg.AssetCheckExecutionContext, stores: Stores, models: Models, alerts: Alerts
    ) -> dg.AssetCheckResult:
        from cellabel.loop import followed_champion

        home = stores.open()
        if followed_champion(home, organelle.name).turn < 2:  # then MLflow need not be loaded
            return dg.AssetCheckResult(passed=True, description="no champion has been replaced yet")
        from cellabel.loop import watch_new_champion

        trial = watch_new_champion(home, models.open(), alerts.open(), organelle)
        return dg.AssetCheckResult(
            passed=not trial.rolled_back,
            severity=dg.AssetCheckSeverity.ERROR,
            description=trial.sentence,
            metadata={"charts": table_preview(trial.table)},
        )

    return check
