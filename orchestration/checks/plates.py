"""Checks of a plate that stop its predictions."""

from collections.abc import Iterator

import dagster as dg

from orchestration.metadata import figure, table_preview
from orchestration.partitions import plates
from orchestration.resources import Stores

__all__ = ["complete", "faults", "quality", "registration"]

FAULTS = {
    "focus": ("in_focus", "Fields are as sharp as the plate's other fields."),
    "saturation": ("not_saturated", "The camera's range is neither clipped above nor below."),
    "illumination": ("evenly_lit", "The light is even across the fields."),
    "empty_fields": ("not_empty", "The fields show more than noise."),
    "debris": ("free_of_debris", "Little of the fields is covered by dark or bright lumps."),
    "duplicates": ("not_duplicate", "No two fields show the same image."),
}
"""Check → the column of the quality table, and what passing it means."""
MAX_OFFSET_PX = 10.0


@dg.asset_check(
    asset="raw_plate",
    blocking=True,
    partitions_def=plates,
    description="Enough fields of the plate can be used.",
)
def complete(context: dg.AssetCheckExecutionContext, stores: Stores) -> dg.AssetCheckResult:
    """The share of quarantined fields stays below the setting; wells with fewer fields are told."""
    home = stores.open()
    record = home.plates.record(context.partition_key) or {}
    kept, bad = int(record.get("n_fields", 0)), int(record.get("n_quarantined", 0))
    share = bad / (kept + bad) if kept + bad else 1.0
    most = home.settings.inbox.max_bad_share
    sites = home.tables.read("quality", context.partition_key).groupby("Metadata_Well").size()
    fewer = sites[sites < sites.mode().max()]
    return dg.AssetCheckResult(
        passed=share <= most,
        description=f"{bad} of {kept + bad} fields are quarantined (at most {most:.0%}); "
        f"{len(fewer)} wells have fewer fields than most.",
        metadata={
            "fields": kept,
            "quarantined_fields": bad,
            "wells_with_fewer_fields": ", ".join(f"{well} ({n})" for well, n in fewer.items()) or "none",
        },
    )


@dg.asset_check(
    asset="raw_plate",
    blocking=True,
    partitions_def=plates,
    description="All faults of the fields together; too many bad fields quarantine the plate.",
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
            "map": figure(figure_png(plate_heatmap(table)), "quality by well"),
        },
    )


@dg.multi_asset_check(
    name="faults",
    specs=[
        dg.AssetCheckSpec(
            name, asset="raw_plate", blocking=True, partitions_def=plates, description=description
        )
        for name, (_, description) in FAULTS.items()
    ],
)
def faults(context: dg.AssetCheckExecutionContext, stores: Stores) -> Iterator[dg.AssetCheckResult]:
    """One check a fault: which fields have it."""
    home = stores.open()
    table = home.tables.read("quality", context.partition_key)
    most = home.settings.inbox.max_bad_share
    for name, (column, _) in FAULTS.items():
        bad = table[~table[column]]
        yield dg.AssetCheckResult(
            check_name=name,
            asset_key="raw_plate",
            passed=len(bad) <= most * len(table),
            description=f"{len(bad)} of {len(table)} fields (at most {most:.0%}).",
            metadata={"fields": table_preview(bad[["Metadata_Well", "Metadata_Site", "reason"]])},
        )


@dg.asset_check(
    asset="raw_plate",
    partitions_def=plates,
    description="How far the stains lie from the transmitted light; training data are corrected by it.",
)
def registration(context: dg.AssetCheckExecutionContext, stores: Stores) -> dg.AssetCheckResult:
    """Offsets of the channels, by phase correlation."""
    from cellabel.plates import open_plate

    store = stores.open().plates
    # Another check of the same run may have quarantined the plate: its offsets are told all the same.
    table = open_plate(store, context.partition_key, any_status=True).registration.reset_index()
    status = (store.record(context.partition_key) or {}).get("status")
    sure = table[table["reliable"].astype(bool)]
    largest = max((abs(value) for name in ("dy", "dx") for value in sure[name]), default=0.0)
    return dg.AssetCheckResult(
        passed=largest <= MAX_OFFSET_PX,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(sure)} of {len(table)} channels have a reliable offset, the largest "
        f"{largest:.1f} px (at most {MAX_OFFSET_PX:.0f})."
        + (f" The plate is {status}." if status != "accepted" else ""),
        metadata={"offsets": table_preview(table)},
    )
