"""From a plate to predicted stains, tables and a ranking. One set of assets an organelle."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from cellabel.organelles import Organelle
from orchestration.metadata import figure, table_preview
from orchestration.partitions import plates
from orchestration.resources import Models, Stores

__all__ = ["clone_ranking", "predicted_plate", "prediction_report", "prediction_table"]


def predicted_plate(organelle: Organelle) -> dg.AssetsDefinition:
    """The prediction asset of an organelle."""

    @dg.asset(
        key=[organelle.name, "predicted_plate"],
        deps=["raw_plate"],
        partitions_def=plates,
        group_name="predictions",
        kinds={"pytorch", "zarr"},
        owners=["team:imaging"],
        output_required=False,
        description=f"The predicted {organelle.name} stain of every field, its objects and its embeddings, "
        "by the champion; the last version stays until the new one is whole.",
    )
    def asset(
        context: dg.AssetExecutionContext, stores: Stores, models: Models
    ) -> Iterator[dg.MaterializeResult]:
        from cellabel.loop import followed_champion

        home = stores.open()
        registry = models.open() if followed_champion(home, organelle.name).version else None
        current = registry.champion(organelle.name) if registry else None
        if registry is None or current is None:  # without a champion neither torch nor MLflow is loaded
            context.log.info(f"{organelle.name} has no champion yet: nothing is predicted.")
            return
        from cellabel.loop import store_prediction
        from cellabel.plates import open_plate

        plate = open_plate(home.plates, context.partition_key)
        model = registry.load(organelle.name, current.version)
        stored = store_prediction(home, plate, model, current.version)
        yield dg.MaterializeResult(
            metadata={
                "model_version": current.version,
                "fields": stored["n_fields"],
                "seconds": stored["seconds"],
                "path": dg.MetadataValue.path(str(home.predictions.path(stored["name"]))),
            },
            data_version=dg.DataVersion(stored["version"]),
        )

    return asset


def prediction_table(organelle: Organelle) -> dg.AssetsDefinition:
    """The table asset of an organelle."""

    @dg.asset(
        key=[organelle.name, "prediction_table"],
        deps=[dg.AssetKey([organelle.name, "predicted_plate"])],
        partitions_def=plates,
        group_name="predictions",
        kinds={"parquet"},
        owners=["team:imaging"],
        description=f"What is measured on the predicted {organelle.name}: one table a cell, a field and a "
        "well; where the plate is stained, the agreement with the stain.",
    )
    def asset(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult:
        from cellabel.loop import measure_prediction

        measured = measure_prediction(stores.open(), context.partition_key, organelle)
        metadata: dict[str, Any] = {
            "wells": len(measured.wells),
            "objects": len(measured.cells),
            "well_table": table_preview(measured.wells),
        }
        if measured.agreement is not None:
            metadata["agreement_with_the_stain"] = table_preview(measured.agreement)
        return dg.MaterializeResult(metadata=metadata)

    return asset


def prediction_report(organelle: Organelle) -> dg.AssetsDefinition:
    """The Evidently report of an organelle's table."""

    @dg.asset(
        key=[organelle.name, "prediction_report"],
        deps=[dg.AssetKey([organelle.name, "prediction_table"])],
        partitions_def=plates,
        group_name="monitoring",
        kinds={"evidently"},
        owners=["team:models"],
        description=f"The plate's {organelle.name} table against the training plates' tables, by Evidently.",
    )
    def asset(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult:
        from cellabel.loop import report_prediction

        path, shares = report_prediction(stores.open(), context.partition_key, organelle)
        return dg.MaterializeResult(metadata={"report": dg.MetadataValue.path(str(path)), **shares})

    return asset


def clone_ranking(organelles: Sequence[Organelle]) -> dg.AssetsDefinition:
    """The ranking asset, over the tables of all organelles."""

    @dg.asset(
        key="clone_ranking",
        deps=[dg.AssetKey([organelle.name, "prediction_table"]) for organelle in organelles],
        partitions_def=plates,
        group_name="predictions",
        kinds={"parquet"},
        owners=["team:imaging"],
        description="The plate's clones, ranked for selection by what is measured on predicted stains, with "
        "intervals.",
    )
    def asset(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult:
        from cellabel.loop import rank_plate

        ranked = rank_plate(stores.open(), context.partition_key)
        return dg.MaterializeResult(
            metadata={
                "score": ranked.score,
                "ranking": table_preview(ranked.table),
                "plate": figure(ranked.figure, "score by well"),
            }
        )

    return asset
