"""Nothing fails silently: failed runs become alerts, and alerts leave through the outbox."""

import dagster as dg

from orchestration.resources import Alerts, Stores

__all__ = ["failures", "outbox"]


def failures(seconds: int) -> dg.SensorDefinition:
    """The sensor on failed runs and blocking checks."""

    @dg.run_failure_sensor(
        name="failures",
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A failed run or blocking check becomes an alert with the sentence that a person needs.",
    )
    def sensor(context: dg.RunFailureSensorContext, alerts: Alerts) -> None:
        from cellabel.alerts import Alert, alert_id

        run = context.dagster_run
        plate = run.tags.get("cellabel/plate", "")
        what = f"{run.job_name} of {plate}" if plate else run.job_name
        alerts.open().write(
            Alert(
                id=alert_id("failure", run.run_id),
                kind="failure",
                title=f"The run {what} failed",
                body=_sentence(context),
                severity="error",
                plate=plate or None,
                data={"run": run.run_id, "job": run.job_name},
            )
        )

    return sensor


def outbox(seconds: int) -> dg.SensorDefinition:
    """The sensor that delivers alerts."""

    @dg.sensor(
        name="outbox",
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Alerts that are not delivered yet go to the log and to the alert URLs of the settings.",
    )
    def sensor(context: dg.SensorEvaluationContext, stores: Stores, alerts: Alerts) -> dg.SkipReason:
        done = alerts.open().deliver_pending(stores.open().settings.alert_urls)
        return dg.SkipReason(f"{len(done.delivered)} delivered, {len(done.failed)} to be tried again")

    return sensor


def _sentence(context: dg.RunFailureSensorContext) -> str:
    """The message of the error that began it, without the wrapping of the steps."""
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return f"{event.step_key}: {error.message.strip().split(': ', 1)[-1]}"
    return context.failure_event.message or "no message"
