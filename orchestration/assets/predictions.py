"""From a plate to predicted stains, tables and a ranking. One set of assets an organelle."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from cellabel.organelles import Organelle
from orchestration.metadata import figure, table_preview
from orchestration.partitions import plates
from orchestration.resources import Models, Stores

__all__ = ["cell_table", "clone_ranking", "predicted_plate", "prediction_report", "prediction_table"]


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
        "well, each number with its interval; where the plate is stained, the agreement with the stain.",
    )
    def asset(context: dg.AssetExecutionContext, stores: Stores, models: Models) -> dg.MaterializeResult:
        from cellabel.loop import measure_prediction
        from cellabel.reports import agreement_figure

        home = stores.open()
        measured = measure_prediction(home, context.partition_key, organelle, models.open())
        metadata: dict[str, Any] = {
            "wells": len(measured.wells),
            "objects_measured": len(measured.cells),
            "well_table": table_preview(measured.wells),
            "intervals": str(measured.wells["Metadata_IntervalNote"].iloc[0]),
        }
        if (found := measured.agreements) is not None:
            drawn = agreement_figure(found.true, found.predicted, organelle.primary_metrics)
            metadata["agreement_with_the_stain"] = table_preview(found.table, 48)
            metadata["objects"] = table_preview(found.counts)
            metadata["predicted_against_stained"] = figure(drawn, "scatter, Bland and Altman")
        if measured.with_truth is not None:
            metadata["agreement_with_exact_truth"] = table_preview(measured.with_truth)
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
        output_required=False,
        description=f"The plate's {organelle.name} table against the training plates' tables, by Evidently.",
    )
    def asset(context: dg.AssetExecutionContext, stores: Stores) -> Iterator[dg.MaterializeResult]:
        from cellabel.loop import report_prediction

        reported = report_prediction(stores.open(), context.partition_key, organelle)
        if reported is None:
            context.log.info(f"No training plate of {organelle.name} has been measured yet: no report.")
            return
        path, shares = reported
        yield dg.MaterializeResult(metadata={"report": dg.MetadataValue.path(str(path)), **shares})

    return asset


def cell_table(organelles: Sequence[Organelle]) -> dg.AssetsDefinition:
    """The table of cells, joined over the predictions of all organelles."""

    @dg.asset(
        key="cell_table",
        deps=[dg.AssetKey([organelle.name, "prediction_table"]) for organelle in organelles],
        partitions_def=plates,
        group_name="predictions",
        kinds={"parquet"},
        owners=["team:imaging"],
        description="One row a cell: its nucleus, cytoplasm and every predicted stain, and whether it lives, "
        "divides, is one of a pair or shines; summed up by well, with statistics of the plate.",
    )
    def asset(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult:
        from cellabel.loop import join_plate

        home = stores.open()
        if home.predictions.record(f"{context.partition_key}/nuclei") is None:
            return dg.MaterializeResult(metadata={"cells": 0, "reason": "no nuclei are predicted"})
        joined = join_plate(home, context.partition_key)
        return dg.MaterializeResult(
            metadata={
                "cells": len(joined.cells),
                "predicted_by": ", ".join(f"{name} v{number}" for name, number in joined.organelles.items()),
                "wells": table_preview(joined.wells),
                "plate_statistics": table_preview(joined.statistics),
                "overlays": figure(joined.figure, "predicted stains over each other"),
            }
        )

    return asset


def clone_ranking(organelles: Sequence[Organelle]) -> dg.AssetsDefinition:
    """The ranking asset, over the tables of all organelles."""

    @dg.asset(
        key="clone_ranking",
        deps=[
            "cell_table",
            *(dg.AssetKey([organelle.name, "prediction_table"]) for organelle in organelles),
        ],
        partitions_def=plates,
        group_name="predictions",
        kinds={"parquet"},
        owners=["team:imaging"],
        description="The plate's clones, ranked for selection by what is measured on predicted stains, "
        "pooled over replicates and plates, with intervals and the chance to be among the best; and, over "
        "the days of a study, whether they keep producing.",
    )
    def asset(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult:
        from cellabel.loop import rank_plate
        from cellabel.reports import control_chart_figure

        ranked = rank_plate(stores.open(), context.partition_key)
        metadata: dict[str, Any] = {
            "score": str(ranked.score),
            "pooled_plates": ", ".join(ranked.plates),
            "ranking": table_preview(ranked.table),
            "plate": figure(ranked.figure, "score by well"),
            "clones": figure(ranked.forest, "clones with their intervals"),
        }
        if ranked.stability is not None:
            metadata["stability"] = table_preview(ranked.stability)
        if ranked.chart is not None:
            metadata["reference_clone"] = table_preview(ranked.chart)
            metadata["reference_chart"] = figure(
                control_chart_figure(ranked.chart), "reference clone by plate"
            )
        return dg.MaterializeResult(metadata=metadata)

    return asset
