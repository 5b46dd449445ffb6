"""Checks of a plate that stop its predictions."""

import dagster as dg

from orchestration.metadata import figure, table_preview
from orchestration.partitions import plates
from orchestration.resources import Stores

__all__ = ["complete", "quality"]


@dg.asset_check(
    asset="raw_plate",
    blocking=True,
    partitions_def=plates,
    description="Enough fields of the plate can be used.",
)
def complete(context: dg.AssetCheckExecutionContext, stores: Stores) -> dg.AssetCheckResult:
    """The share of quarantined fields stays below the setting."""
    home = stores.open()
    record = home.plates.record(context.partition_key) or {}
    kept, bad = int(record.get("n_fields", 0)), int(record.get("n_quarantined", 0))
    share = bad / (kept + bad) if kept + bad else 1.0
    most = home.settings.inbox.max_bad_share
    return dg.AssetCheckResult(
        passed=share <= most,
        description=f"{bad} of {kept + bad} fields are quarantined (at most {most:.0%}).",
        metadata={"fields": kept, "quarantined_fields": bad},
    )


@dg.asset_check(
    asset="raw_plate",
    blocking=True,
    partitions_def=plates,
    description="Focus, saturation and illumination of the fields; too many bad ones quarantine the plate.",
)
def quality(context: dg.AssetCheckExecutionContext, stores: Stores) -> dg.AssetCheckResult:
    """Share of fields that pass, with a map of the plate."""
    from cellabel.plates.quality import plate_heatmap
    from cellabel.reports import figure_png

    home = stores.open()
    table = home.tables.read("quality", context.partition_key)
    failed = table[~table["passed"]]
    most = home.settings.inbox.max_bad_share
    passed = len(failed) <= most * len(table)
    if not passed:
        home.plates.update_record(
            context.partition_key,
            status="quarantined",
            reason=f"{len(failed)} of {len(table)} fields fail the quality check, first "
            f"{failed['reason'].iloc[0]}",
        )
    return dg.AssetCheckResult(
        passed=passed,
        description=f"{len(failed)} of {len(table)} fields fail (at most {most:.0%}).",
        metadata={
            "failed": table_preview(failed[["Metadata_Well", "Metadata_Site", "reason"]]),
            "focus": figure(figure_png(plate_heatmap(table, "focus")), "focus by well"),
        },
    )
