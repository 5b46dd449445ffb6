"""Whoever moved the alias, the predictions follow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from cellabel.organelles import Organelle
from orchestration.jobs import AGAIN, DRIFTED, QUEUE, AssetJob, predictions_of
from orchestration.partitions import plates
from orchestration.resources import Alerts, Models, Stores

if TYPE_CHECKING:
    from cellabel.loop import FollowedChampion
    from cellabel.loop.predictions import StalePlate
    from cellabel.registry import ModelRegistry
    from cellabel.stores import Home

__all__ = ["champion_changed"]

PLATES_A_LOOK = 20
"""Plates that one look asks to predict again, and runs under way from which on it asks for none."""

AFTER = " after "
"""In the cursor, between the champions that are followed and the last plate that was asked for."""

IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def champion_changed(
    predict: AssetJob,
    train: AssetJob,
    organelles: Sequence[Organelle],
    seconds: int,
) -> dg.SensorDefinition:
    """The sensor on the champion aliases."""

    @dg.sensor(
        name="champion_changed",
        jobs=[predict, train],
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A new champion, set by the gate or by a person in MLflow's page: its drift streams "
        "start a new epoch, and plates are predicted again. Waits while a training run is under way, so "
        "that a plate is predicted "
        "once for all its new champions.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, stores: Stores, models: Models, alerts: Alerts
    ) -> dg.SensorResult | dg.SkipReason:
        from cellabel.loop import drifted_plates, followed_champion, stale_predictions
        from cellabel.loop.streams import ENCODER, encoder_store

        if _in_flight(context, train.name):
            return dg.SkipReason("a training run is under way")
        home, registry = stores.open(), models.open()
        champions = {organelle.name: registry.champion(organelle.name) for organelle in organelles}
        versions = {name: version.version for name, version in champions.items() if version}
        followed = {name: followed_champion(home, name) for name in versions}
        moved = [name for name, version in versions.items() if followed[name].version != version]
        if moved:
            return dg.SensorResult(
                run_requests=[
                    _follow(train.name, name, versions[name], followed[name].turn) for name in moved
                ]
            )
        position = " ".join(
            f"{name}={followed[name].version}/{followed[name].turn}" for name in sorted(followed)
        )
        frozen = encoder_store(home).record(ENCODER)
        position += f" encoder={frozen['version']}" if frozen else ""
        if position == context.cursor:
            missing = _missing(
                home, registry, alerts, [one for one in organelles if one.name not in versions]
            )
            return dg.SkipReason(missing or "no champion has changed")
        under_way = _count_in_flight(context, "ingest", predict.name)
        if under_way >= PLATES_A_LOOK:
            return dg.SkipReason(f"{under_way} plates are in runs already")
        busy = {run.tags.get("dagster/partition", "") for run in _in_flight(context, "ingest", predict.name)}
        stale = stale_predictions(home, versions)
        asked = _next_in_turn([one for one in stale if one.plate_id not in busy], position, context.cursor)
        drifted = drifted_plates(home) if asked else set()
        requests = [
            _predict_again(
                predict.name,
                item.plate_id,
                item.content,
                {name: followed[name] for name in item.organelles},
                queue=DRIFTED if item.plate_id in drifted else AGAIN,
                reports=home.settings.drift.evidently,
            )
            for item in asked
        ]
        known = set(context.instance.get_dynamic_partitions(plates.name or "plates"))
        unknown = [item.plate_id for item in asked if item.plate_id not in known]  # imported without a run
        cursor = context.cursor
        if not stale and not busy:
            cursor = position
        elif asked:
            cursor = f"{position}{AFTER}{asked[-1].plate_id}"
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[plates.build_add_request(unknown)] if unknown else [],
            cursor=cursor,
        )

    return sensor


def _next_in_turn(stale: Sequence["StalePlate"], position: str, cursor: str | None) -> list["StalePlate"]:
    """A few plates, going on after the last one that was asked for: one that fails again keeps nobody out."""
    before, _, last = (cursor or "").partition(AFTER)
    last = last if before == position else ""
    return sorted(stale, key=lambda one: one.plate_id <= last)[:PLATES_A_LOOK]


def _missing(home: "Home", registry: "ModelRegistry", alerts: Alerts, organelles: list[Organelle]) -> str:
    """Asks for a person where a champion was deleted in MLflow's page; says so."""
    from cellabel.loop import followed_champion

    had_one = [one for one in organelles if followed_champion(home, one.name).version]
    if not had_one:
        return ""
    from cellabel.loop import tell_missing_champion

    return " ".join(filter(None, (tell_missing_champion(alerts.open(), registry, one) for one in had_one)))


def _in_flight(context: dg.SensorEvaluationContext, *jobs: str) -> list[dg.DagsterRun]:
    return [
        run
        for job in jobs
        for run in context.instance.get_runs(dg.RunsFilter(job_name=job, statuses=IN_FLIGHT))
    ]


def _count_in_flight(context: dg.SensorEvaluationContext, *jobs: str) -> int:
    filters = [dg.RunsFilter(job_name=job, statuses=IN_FLIGHT) for job in jobs]
    return sum(context.instance.get_runs_count(one) for one in filters)


def _follow(job: str, organelle: str, version: int, turn: int) -> dg.RunRequest:
    return dg.RunRequest(
        job_name=job,
        run_key=f"follow:{organelle}:{version}:{turn}",
        asset_selection=[dg.AssetKey([organelle, "champion"])],
        tags={
            "cellabel/why": f"the champion of {organelle} is now version {version}",
            "cellabel/organelle": organelle,
        },
    )


def _predict_again(
    job: str,
    plate: str,
    content: str,
    champions: dict[str, "FollowedChampion"],
    *,
    queue: str,
    reports: bool,
) -> dg.RunRequest:
    names = [f"{name}={champion.version}/{champion.turn}" for name, champion in sorted(champions.items())]
    return dg.RunRequest(
        job_name=job,
        run_key=f"predict:{plate}:{content}:{' '.join(names) or 'encoder'}",
        partition_key=plate,
        asset_selection=predictions_of(list(champions), reports=reports),
        tags={
            "cellabel/plate": plate,
            "cellabel/why": "new champion" if champions else "not seen by the frozen encoder",
            "cellabel/organelle": ",".join(sorted(champions)) or "encoder",
            QUEUE: queue,
        },
    )
