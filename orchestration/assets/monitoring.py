"""Drift: reported by the sensor, not computed in a run; a run adds the diagnosis. And the frozen encoder."""

from collections.abc import Iterator

import dagster as dg

from cellabel.organelles import Organelle
from orchestration.metadata import table_preview
from orchestration.partitions import plates
from orchestration.resources import Stores

__all__ = ["acquisition_drift", "drift", "embedded_plate", "encoder_drift", "frozen_encoder"]


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

encoder_drift = dg.AssetSpec(
    ["encoder", "drift"],
    deps=[dg.AssetKey(["encoder", "embedded_plate"])],
    partitions_def=plates,
    group_name="monitoring",
    kinds={"numpy"},
    owners=["team:platform"],
    description="The same for the embeddings of the frozen encoder: it sees what the champions see, and no "
    "retraining changes it, so a model made robust cannot blind it.",
)


@dg.asset(
    key=["encoder", "frozen_encoder"],
    deps=[dg.AssetDep("raw_plate", partition_mapping=dg.AllPartitionMapping())],
    group_name="monitoring",
    kinds={"pytorch"},
    owners=["team:platform"],
)
def frozen_encoder(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult:
    """An autoencoder of the first labelled plates' images, trained once; the frozen streams begin here."""
    from cellabel.loop import freeze_encoder

    frozen = freeze_encoder(stores.open(), progress=context.log.info)
    return dg.MaterializeResult(
        metadata={
            "version": frozen.encoder.version,
            "plates": ", ".join(frozen.encoder.plates),
            "seconds": frozen.encoder.seconds,
            "drift_streams": table_preview(frozen.summary),
        },
        data_version=dg.DataVersion(frozen.encoder.version),
    )


@dg.asset(
    key=["encoder", "embedded_plate"],
    deps=["raw_plate", frozen_encoder],
    partitions_def=plates,
    group_name="monitoring",
    kinds={"pytorch", "parquet"},
    owners=["team:platform"],
    output_required=False,
)
def embedded_plate(context: dg.AssetExecutionContext, stores: Stores) -> Iterator[dg.MaterializeResult]:
    """The plate's wells as the frozen encoder sees them, once for each content of the plate."""
    from cellabel.loop import embed_plate, open_encoder
    from cellabel.plates import open_plate

    home = stores.open()
    encoder = open_encoder(home)
    if encoder is None:
        context.log.info("There is no frozen encoder yet: nothing is embedded.")
        return
    plate = open_plate(home.plates, context.partition_key)
    wells = embed_plate(home, plate, encoder)
    yield dg.MaterializeResult(
        metadata={"encoder": encoder.version, "wells": len(wells)},
        data_version=dg.DataVersion(f"{encoder.version}-{plate.content_hash[:12]}"),
    )
