"""From labelled plates to a champion: dataset, challenger, comparison. One set of assets an organelle."""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from cellabel.organelles import Organelle
from orchestration.metadata import figure, table_preview
from orchestration.resources import Alerts, Models, Stores

if TYPE_CHECKING:
    from cellabel.evaluation import Decision

__all__ = ["TrainingRun", "champion", "organelle_model", "preprocessed_dataset"]


class TrainingRun(dg.Config):
    """Why a model is trained, and what it has to withstand."""

    reason: str = Field(default="asked for by a person", description="Goes into the version's tags.")
    incident: str = Field(default="", description="The drift incident that asked for it.")
    corruption_kind: str = Field(default="", description="Corruption to augment with; empty: none.")
    corruption_severities: list[float] = Field(
        default_factory=list, description="Severities of table 5 that augmentations are drawn from."
    )


def preprocessed_dataset(organelle: Organelle) -> dg.AssetsDefinition:
    """The dataset asset of an organelle."""

    @dg.asset(
        key=[organelle.name, "preprocessed_dataset"],
        deps=[dg.AssetDep("raw_plate", partition_mapping=dg.AllPartitionMapping())],
        group_name="datasets",
        kinds={"python"},
        owners=["team:models"],
        description=f"Which fields train, stop and judge the {organelle.name} model: split by clone and "
        "plate, the held-out wells frozen across versions.",
    )
    def asset(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult:
        from cellabel.loop import build_current_dataset

        dataset = build_current_dataset(stores.open(), organelle)
        return dg.MaterializeResult(
            metadata={
                "plates": len(dataset.manifest()["plates"]),
                "split": dataset.split_description,
                "training_fields": len(dataset.train),
                "validation_fields": len(dataset.validation),
                "held_out_fields": len(dataset.test),
                "left_out_fields": len(dataset.left_out),
                "target_scale": dataset.target_scale,
                "version": dataset.version,
            },
            data_version=dg.DataVersion(dataset.version),
        )

    return asset


def organelle_model(organelle: Organelle) -> dg.AssetsDefinition:
    """The training asset of an organelle."""

    @dg.asset(
        key=[organelle.name, "organelle_model"],
        deps=[dg.AssetKey([organelle.name, "preprocessed_dataset"])],
        group_name="models",
        kinds={"pytorch", "mlflow"},
        owners=["team:models"],
        description=f"A trained version of the {organelle.name} model in MLflow, alias `challenger`, with "
        "what it reached on held-out wells, clean and corrupted.",
    )
    def asset(
        context: dg.AssetExecutionContext, config: TrainingRun, stores: Stores, models: Models
    ) -> dg.MaterializeResult:
        from cellabel.loop import current_dataset, train_challenger

        home, registry = stores.open(), models.open()
        challenger = train_challenger(
            home,
            current_dataset(home, organelle),
            registry,
            corruption=(config.corruption_kind, tuple(config.corruption_severities)),
            tags={"reason": config.reason, "incident": config.incident, "dagster_run_id": context.run.run_id},
            progress=context.log.info,
        )
        return dg.MaterializeResult(
            metadata={
                "version": challenger.version.version,
                "reason": config.reason,
                "seconds": challenger.seconds,
                "held_out": table_preview(challenger.agreement),
                "pixel_pearson": challenger.pixel_pearson,
                "model_card": dg.MetadataValue.md(registry.card(organelle.name, challenger.version.version)),
                **{
                    name: figure((challenger.folder / f"{name}.png").read_bytes(), name.replace("_", " "))
                    for name in ("learning_curve", "example", "failure", "agreement", "gain")
                    if (challenger.folder / f"{name}.png").exists()
                },
            },
            data_version=dg.DataVersion(f"v{challenger.version.version}"),
        )

    return asset


def champion(organelle: Organelle) -> dg.AssetsDefinition:
    """The promotion asset of an organelle."""

    @dg.asset(
        key=[organelle.name, "champion"],
        deps=[dg.AssetKey([organelle.name, "organelle_model"])],
        group_name="models",
        kinds={"mlflow"},
        owners=["team:models"],
        pool="promotion",
        description=f"The version that predicts {organelle.name}: the challenger takes the alias if the "
        "gate lets it, otherwise the reason is here. A new champion starts a new epoch of the drift streams.",
    )
    def asset(
        context: dg.AssetExecutionContext, stores: Stores, models: Models, alerts: Alerts
    ) -> dg.MaterializeResult:
        from cellabel.loop import follow_champion, judge_challenger, tell_missing_champion

        home, registry, ledger = stores.open(), models.open(), alerts.open()
        by_hand = registry.adopt_champion(organelle.name)
        decision = judge_challenger(home, registry, ledger, organelle)
        epochs = follow_champion(home, registry, organelle)
        current = registry.champion(organelle.name)
        nothing = (
            "the alias was moved in MLflow by a person" if by_hand else "there is no challenger to compare"
        )
        missing = tell_missing_champion(ledger, registry, organelle)
        return dg.MaterializeResult(
            metadata={
                "champion": current.version if current else missing or "none",
                "decision": decision.reason if decision else nothing,
                **(verdict_metadata(decision) if decision else {}),
                **({"model_card": dg.MetadataValue.md(registry.card(organelle.name))} if current else {}),
                "drift_streams": table_preview(epochs),
            },
        )

    return asset


def verdict_metadata(decision: "Decision") -> dict[str, dg.MetadataValue | float]:
    """The gate's table, what limits its claim, and the error that its bounds were computed at."""
    return {
        "comparison": table_preview(decision.table, rows=200),
        "limits_of_the_claim": dg.MetadataValue.md(
            "\n".join(f"- {one}" for one in decision.warnings) or "none"
        ),
        "alpha": decision.alpha,
    }
