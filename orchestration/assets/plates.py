"""From an acquisition folder to a plate that has been looked at."""

import dagster as dg
from pydantic import Field

from orchestration.metadata import table_preview
from orchestration.partitions import plates
from orchestration.resources import Stores

__all__ = ["AcquisitionFolder", "raw_plate"]


class AcquisitionFolder(dg.Config):
    """Which folder a plate comes from."""

    folder: str = Field(
        default="", description="The acquisition folder; empty: the folder that the plate came from before."
    )


@dg.asset(
    partitions_def=plates,
    group_name="plates",
    kinds={"zarr"},
    owners=["team:platform"],
    output_required=True,
)
def raw_plate(
    context: dg.AssetExecutionContext, config: AcquisitionFolder, stores: Stores
) -> dg.MaterializeResult:
    """The acquisition, verified and stored as an OME-Zarr HCS plate, with the quality of every field."""
    from cellabel.loop import take_in

    taken = take_in(stores.open(), context.partition_key, config.folder)
    plate, quality = taken.plate, taken.quality
    return dg.MaterializeResult(
        metadata={
            "wells": len(plate.wells),
            "fields": len(quality),
            "quarantined_fields": len(plate.quarantined),
            "channels": ", ".join(plate.channels),
            "pixel_size_um": plate.pixel_size_um,
            "instrument": plate.instrument,
            "acquired_at": str(plate.acquired_at or "not recorded"),
            "path": dg.MetadataValue.path(str(plate.path)),
            "quality": table_preview(quality),
        },
        data_version=dg.DataVersion(plate.content_hash),
    )
