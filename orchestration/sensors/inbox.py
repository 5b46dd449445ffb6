"""New acquisitions become partitions and runs."""

from collections.abc import Sequence

import dagster as dg

from cellabel.organelles import Organelle
from orchestration.jobs import FROZEN_ENCODER, PRIORITY, AssetJob, predictions_of
from orchestration.partitions import plates
from orchestration.resources import Alerts, Stores

__all__ = ["first_models", "new_plates"]

RUN_KEY_TAG = "dagster/run_key"
PLATES_A_LOOK = 20
"""New plates of one look, so that it ends within a sensor's minute however many land together."""


def new_plates(job: AssetJob, organelles: Sequence[Organelle], seconds: int) -> dg.SensorDefinition:
    """The sensor on the inbox."""

    @dg.sensor(
        name="new_plates",
        job=job,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="An acquisition folder that has stopped growing becomes a plate partition and a run.",
    )
    def sensor(context: dg.SensorEvaluationContext, stores: Stores, alerts: Alerts) -> dg.SensorResult:
        from cellabel.alerts import Alert, alert_id
        from cellabel.loop import NewPlate, arrived_plates, followed_champion, remember_done

        home = stores.open()
        requests, partitions = [], []
        champions = [one.name for one in organelles if followed_champion(home, one.name).version]
        made = predictions_of(champions, reports=home.settings.drift.evidently)

        def requested(event_id: str) -> bool:
            tags = {RUN_KEY_TAG: f"ingest:{event_id}"}
            return context.instance.get_runs_count(dg.RunsFilter(tags=tags)) > 0

        for arrival in arrived_plates(home, requested=requested, limit=PLATES_A_LOOK):
            run_key = f"ingest:{arrival.event_id}"
            if isinstance(arrival, NewPlate):
                partitions.append(arrival.plate_id)
                folder = str(arrival.folder.resolve())
                requests.append(
                    dg.RunRequest(
                        run_key=run_key,
                        partition_key=arrival.plate_id,
                        asset_selection=[dg.AssetKey("raw_plate"), *made],
                        run_config={"ops": {"raw_plate": {"config": {"folder": folder}}}},
                        tags={
                            "cellabel/plate": arrival.plate_id,
                            "cellabel/why": "new plate",
                            PRIORITY: "1",  # before plates that are predicted again
                        },
                    )
                )
            else:
                alerts.open().write(
                    Alert(
                        id=alert_id("failure", run_key),
                        kind="failure",
                        title=f"{arrival.folder.name} is not taken in",
                        body=arrival.reason,
                        severity="error",
                    )
                )
                remember_done(home, arrival)
        known = set(context.instance.get_dynamic_partitions(plates.name or "plates"))
        new = sorted(set(partitions) - known)
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[plates.build_add_request(new)] if new else [],
            skip_reason=None if requests else "no new plate is complete",
        )

    return sensor


def first_models(job: AssetJob, organelles: Sequence[Organelle], seconds: int) -> dg.SensorDefinition:
    """The sensor that trains the first model of an organelle."""

    @dg.sensor(
        name="first_models",
        job=job,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Once enough stained plates are in, the first model of an organelle is trained, and the "
        "frozen encoder of the drift streams.",
    )
    def sensor(context: dg.SensorEvaluationContext, stores: Stores) -> dg.SensorResult | dg.SkipReason:
        from cellabel.loop import plates_for_training
        from cellabel.loop.streams import ENCODER, encoder_store

        home = stores.open()
        asked = set((context.cursor or "").split(","))
        least = home.settings.models.min_labelled_plates
        untrained = [
            one for one in organelles if one.name not in asked and home.datasets.record(one.name) is None
        ]
        blind = ENCODER not in asked and encoder_store(home).record(ENCODER) is None
        looked_at = organelles if blind else untrained
        labelled = {one.name for one in looked_at if len(plates_for_training(home, one)) >= least}
        new = [one.name for one in untrained if one.name in labelled]
        requests = [_first_training(name) for name in new]
        if blind and labelled:
            requests.insert(0, _first_encoder())
            new.append(ENCODER)
        if not requests:
            return dg.SkipReason("every organelle has been trained, or waits for stained plates")
        return dg.SensorResult(run_requests=requests, cursor=",".join(sorted((asked | set(new)) - {""})))

    return sensor


def _first_encoder() -> dg.RunRequest:
    return dg.RunRequest(
        run_key="first:encoder",
        asset_selection=[FROZEN_ENCODER],
        tags={"cellabel/why": "frozen encoder"},
    )


def _first_training(organelle: str) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"first:{organelle}",
        asset_selection=[
            dg.AssetKey([organelle, name]) for name in ("preprocessed_dataset", "organelle_model", "champion")
        ],
        run_config={"ops": {f"{organelle}__organelle_model": {"config": {"reason": "first model"}}}},
        tags={"cellabel/why": "first model", "cellabel/organelle": organelle},
    )
