"""The entry: every asset, check, sensor, job and resource, listed."""

import warnings

import dagster as dg

warnings.filterwarnings("ignore", category=dg.PreviewWarning)  # partitioned checks are in preview

from cellabel.organelles import organelle as recipe  # noqa: E402
from cellabel.settings import load_settings  # noqa: E402
from orchestration import jobs  # noqa: E402
from orchestration.assets import models, monitoring, plates, predictions  # noqa: E402
from orchestration.checks import models as model_checks  # noqa: E402
from orchestration.checks import monitoring as monitoring_checks  # noqa: E402
from orchestration.checks import plates as plate_checks  # noqa: E402
from orchestration.checks import predictions as prediction_checks  # noqa: E402
from orchestration.resources import Alerts, Models, Stores  # noqa: E402
from orchestration.sensors import champions, drift, failures, inbox  # noqa: E402

settings = load_settings()
organelles = [recipe(name) for name in settings.organelles]
seconds = settings.sensor_seconds

ingest = jobs.ingest(organelles)
predict = jobs.predict(organelles)
train = jobs.train(organelles)
report = jobs.report(organelles)

defs = dg.Definitions(
    assets=[
        plates.raw_plate,
        *(models.preprocessed_dataset(organelle) for organelle in organelles),
        *(models.organelle_model(organelle) for organelle in organelles),
        *(models.champion(organelle) for organelle in organelles),
        *(predictions.predicted_plate(organelle) for organelle in organelles),
        *(predictions.prediction_table(organelle) for organelle in organelles),
        *(predictions.prediction_report(organelle) for organelle in organelles),
        predictions.cell_table(organelles),
        predictions.clone_ranking(organelles),
        *(monitoring.drift(organelle) for organelle in organelles),
        monitoring.acquisition_drift,
        monitoring.frozen_encoder,
        monitoring.embedded_plate,
        monitoring.encoder_drift,
    ],
    asset_checks=[
        plate_checks.complete,
        plate_checks.quality,
        plate_checks.faults,
        plate_checks.registration,
        *(model_checks.no_leakage(organelle) for organelle in organelles),
        *(model_checks.downstream(organelle) for organelle in organelles),
        *(model_checks.robustness(organelle) for organelle in organelles),
        *(prediction_checks.plausible(organelle) for organelle in organelles),
        *(prediction_checks.agreement(organelle) for organelle in organelles),
        monitoring_checks.sees_defocus,
        *(monitoring_checks.drift(stream) for stream in (*settings.organelles, "acquisition", "encoder")),
        *(model_checks.controls(organelle) for organelle in organelles),
    ],
    jobs=[ingest, predict, train, report, jobs.diagnose_drift],
    sensors=[
        inbox.new_plates(ingest, organelles, seconds),
        inbox.first_models(train, organelles, seconds),
        champions.champion_changed(predict, train, organelles, seconds),
        drift.drift(train, jobs.diagnose_drift, seconds),
        failures.failures(2 * seconds),
        failures.outbox(2 * seconds),
    ],
    resources={"stores": Stores(), "models": Models(), "alerts": Alerts()},
    executor=dg.in_process_executor,
)
