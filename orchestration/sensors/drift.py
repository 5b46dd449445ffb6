"""The drift sensor: ticks the streams, reports the verdicts, and asks for diagnoses and retrainings."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from cellabel.organelles import ORGANELLES
from orchestration.jobs import PRIORITY, AssetJob
from orchestration.metadata import told
from orchestration.resources import Alerts, Stores

if TYPE_CHECKING:
    from cellabel.loop import PendingVerdict, Request

__all__ = ["drift"]

RUN_KEY_TAG = "dagster/run_key"
ENDED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS]
"""A run that has ended has left its result by then: without one it has failed, whatever its status says."""

AssetEvent = dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetObservation


def drift(train: AssetJob, diagnose: dg.JobDefinition, seconds: int) -> dg.SensorDefinition:
    """The sensor on the drift streams."""

    @dg.sensor(
        name="drift",
        jobs=[train, diagnose],
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ticks every stream with the wells of plates not yet seen, in the order of acquisition; "
        "reports verdicts, opens incidents, and asks for their diagnosis and, where the policy allows, a "
        "retraining.",
    )
    def sensor(context: dg.SensorEvaluationContext, stores: Stores, alerts: Alerts) -> dg.SensorResult:
        from cellabel.loop import advance_incidents, forget_pending, pending_verdicts, tick_drift

        home, ledger = stores.open(), alerts.open()
        tick_drift(home, ledger)
        events: list[AssetEvent] = []
        for verdict in pending_verdicts(home):
            if _is_reported(context.instance, verdict):
                forget_pending(home, verdict)
            else:
                events += _events(verdict)
        requests = [
            request
            for one in advance_incidents(home, ledger)
            if (request := _run_request(context, stores, one, train.name, diagnose.name)) is not None
        ]
        nothing = None if events or requests else "no new verdict"
        return dg.SensorResult(asset_events=events, run_requests=requests, skip_reason=nothing)

    return sensor


def _key(stream: str) -> dg.AssetKey:
    return dg.AssetKey([stream, "drift"])


def _is_reported(instance: dg.DagsterInstance, verdict: "PendingVerdict") -> bool:
    """Whether Dagster has the events of this verdict, also after a crash between the two."""
    streams = sorted(verdict.content["streams"])
    if not streams:
        return True
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=_key(streams[-1]), asset_partitions=[verdict.plate]), limit=20
    ).records
    found = (record.asset_materialization for record in records)
    return any(_event_id(one) == verdict.event_id for one in found)


def _event_id(event: dg.AssetMaterialization | None) -> object:
    """The event that a materialisation reports; None for one that a person has reported by hand."""
    value = event.metadata.get("event_id") if event else None
    return value.value if value else None


def _events(verdict: "PendingVerdict") -> Iterator[AssetEvent]:
    """A check and a materialisation a stream; the materialisation of the last stream ends the report."""
    for stream in sorted(verdict.content["streams"]):
        said = told(verdict.content, stream)
        yield dg.AssetCheckEvaluation(
            asset_key=_key(stream),
            check_name="drift",
            passed=said.passed,
            severity=said.severity,
            metadata=said.metadata,
            description=said.sentence,
            partition=verdict.plate,
        )
        yield dg.AssetMaterialization(
            asset_key=_key(stream),
            partition=verdict.plate,
            metadata=said.metadata,
            description=said.sentence,
        )


def _run_request(
    context: dg.SensorEvaluationContext, stores: Stores, request: "Request", train: str, diagnose: str
) -> dg.RunRequest | None:
    """The run of a request; None where it is under way or has ended, which its result will tell."""
    from cellabel.loop import record_failed_diagnosis, record_outcome

    runs = context.instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: request.key}))
    if runs:
        if runs[0].status in ENDED and request.kind == "retrain":
            record_outcome(stores.open(), request.incident.id, "failed")
        elif runs[0].status in ENDED:
            record_failed_diagnosis(stores.open(), request.incident)
        return None
    tags = {
        "cellabel/why": request.reason,
        "cellabel/incident": request.incident.id,
        "trigger": "drift",
        PRIORITY: "2",
    }
    if request.kind == "diagnose":
        config = {"ops": {"diagnosis": {"config": {"incident": request.incident.id}}}}
        return dg.RunRequest(job_name=diagnose, run_key=request.key, run_config=config, tags=tags)
    organelle = str(request.incident.most_harmed)
    if organelle not in ORGANELLES:
        record_outcome(stores.open(), request.incident.id, "failed")
        return None
    return dg.RunRequest(
        job_name=train,
        run_key=request.key,
        run_config=_retraining(request, organelle),
        asset_selection=[
            dg.AssetKey([organelle, name]) for name in ("preprocessed_dataset", "organelle_model", "champion")
        ],
        tags=tags | {"cellabel/organelle": organelle},
    )


def _retraining(request: "Request", organelle: str) -> dict:
    from cellabel.loop import augmentation_of

    kind, severities = augmentation_of(request.incident)
    config = {
        "reason": request.reason,
        "incident": request.incident.id,
        "corruption_kind": kind,
        "corruption_severities": list(severities),
    }
    return {"ops": {f"{organelle}__organelle_model": {"config": config}}}
