"""Checks of what is measured on predictions."""

import dagster as dg

from cellabel.organelles import Organelle
from orchestration.metadata import table_preview
from orchestration.partitions import plates
from orchestration.resources import Stores

__all__ = ["agreement", "plausible"]


def plausible(organelle: Organelle) -> dg.AssetChecksDefinition:
    """Values within the recipe's ranges."""

    @dg.asset_check(
        asset=dg.AssetKey([organelle.name, "prediction_table"]),
        name="plausible_ranges",
        partitions_def=plates,
        description="Well values lie within the ranges that the recipe calls plausible.",
    )
    def check(context: dg.AssetCheckExecutionContext, stores: Stores) -> dg.AssetCheckResult:
        from cellabel.loop import implausible_wells

        found = implausible_wells(stores.open(), context.partition_key, organelle)
        return dg.AssetCheckResult(
            passed=found.empty,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{len(found)} well values lie outside of their plausible range",
            metadata={"wells": table_preview(found)},
        )

    return check


def agreement(organelle: Organelle) -> dg.AssetChecksDefinition:
    """Agreement with the stain, where the plate has one."""

    @dg.asset_check(
        asset=dg.AssetKey([organelle.name, "prediction_table"]),
        name="downstream_metrics",
        partitions_def=plates,
        description="Where the plate is stained: median error of the primary metrics, predicted against "
        "stained.",
    )
    def check(context: dg.AssetCheckExecutionContext, stores: Stores) -> dg.AssetCheckResult:
        from cellabel.loop import stain_errors

        table = stain_errors(stores.open(), context.partition_key, organelle)
        if table is None:
            return dg.AssetCheckResult(
                passed=True, description="the plate has no such stain: nothing to compare"
            )
        worst = table.iloc[int(table["median_error"].argmax())]
        return dg.AssetCheckResult(
            passed=bool(table["passed"].all()),
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"worst: {worst['metric']}, median |log error| {worst['median_error']:.3f}",
            metadata={"errors": table_preview(table)},
        )

    return check
