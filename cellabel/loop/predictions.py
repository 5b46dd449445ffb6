"""A plate's predictions, and what is measured on them, at rest."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cellabel.datasets import stain_of
from cellabel.errors import InputError
from cellabel.loop.agreements import Agreements, compare_with_stain, compare_with_truth, field_keys
from cellabel.loop.embeddings import embedding_columns, field_embedding, number_columns
from cellabel.loop.reliability import keep_intervals, reliable
from cellabel.loop.streams import ENCODER, encoder_store, encoder_table
from cellabel.measurement import measure_field, measure_objects, measure_well
from cellabel.networks import OrganelleModel
from cellabel.organelles import Organelle
from cellabel.organelles import organelle as organelle_of
from cellabel.plates import Plate, open_plate, read_plate
from cellabel.registry import ModelRegistry
from cellabel.stores import Home

__all__ = [
    "Measured",
    "StalePlate",
    "measure_prediction",
    "prediction_version",
    "stale_predictions",
    "store_prediction",
    "with_plan",
]

PREDICTED = "predicted.zarr"
WELL = ["Metadata_Plate", "Metadata_Well"]


@dataclass(frozen=True)
class Measured:
    """What was measured on a plate.

    Attributes:
        cells, fields, wells: one row an object, a field, a well; beside the wells' features the ends of
            their intervals.
        agreements: against the stain, per field, well and cell; None where the plate is not stained.
        with_truth: downstream metrics of the wells against exact truth; None where that is not known.
    """

    cells: pd.DataFrame
    fields: pd.DataFrame
    wells: pd.DataFrame
    agreements: Agreements | None = None
    with_truth: pd.DataFrame | None = None

    @property
    def agreement(self) -> pd.DataFrame | None:
        """Downstream metrics of the wells against the stain; None where the plate is not stained."""
        if self.agreements is None:
            return None
        table = self.agreements.table
        return table[table["level"] == "well"].drop(columns="level").reset_index(drop=True)


def prediction_version(model_version: int, content_hash: str) -> str:
    """Names the prediction of one content of a plate by one version of a model."""
    return f"v{model_version}-{content_hash[:12]}"


def store_prediction(home: Home, plate: Plate, model: OrganelleModel, model_version: int) -> dict[str, Any]:
    """Predict every field of a plate and make this the current prediction; earlier versions stay.

    A prediction that is there already, whole, becomes the current one again without being computed.

    Returns:
        The prediction's record.
    """
    from cellabel.prediction import predict_plate

    name, version = (
        f"{plate.plate_id}/{model.organelle}",
        prediction_version(model_version, plate.content_hash),
    )
    record: dict[str, Any] = {"model_version": model_version, "plate_content": plate.content_hash}
    if home.predictions.has(name, version):
        known = json.loads((home.predictions.path(name, version) / "made.json").read_bytes())
        record = home.predictions.update_record(name, **record, **known, version=version)
    else:
        began = time.perf_counter()
        with home.predictions.write(name, version, record) as folder:
            predicted = predict_plate(plate, model, folder / PREDICTED)
            embeddings = _well_embeddings(predicted.embeddings)
            embeddings.to_parquet(str(folder / "embeddings.parquet"), index=False)
            made = {"n_fields": len(predicted.fields), "seconds": round(time.perf_counter() - began, 2)}
            (folder / "made.json").write_text(json.dumps(made))
            record |= made
        record |= {"name": name, "version": version}
    embeddings = pd.read_parquet(str(home.predictions.path(name, version) / "embeddings.parquet"))
    home.tables.write(embeddings, "embeddings", model.organelle, f"v{model_version}", plate.plate_id)
    return record


def measure_prediction(
    home: Home, plate_id: str, organelle: Organelle, registry: ModelRegistry | None = None
) -> Measured:
    """Measure the current prediction of a plate, and its stain where it has one, and keep the tables.

    Args:
        home: the stores.
        plate_id: a predicted plate.
        organelle: which of its predictions.
        registry: where the model's intervals are; None takes those that were used for this prediction before.

    Raises:
        InputError: the plate has no prediction of this organelle.
    """
    plate = open_plate(home.plates, plate_id)
    name = f"{plate_id}/{organelle.name}"
    record = home.predictions.record(name)
    if record is None:
        raise InputError(f"Plate {plate_id} has no prediction of {organelle.name}: predict it first.")
    version = int(record["model_version"])
    predicted = read_plate(home.predictions.path(name) / PREDICTED)
    origin = {"Metadata_Organelle": organelle.name, "Metadata_ModelVersion": version}
    cells, fields = [], []
    for field in predicted.fields():
        image, labels = field.image(organelle.name), field.labels(organelle.name)
        keys = field_keys(field) | origin
        options: dict[str, Any] = {"organelle": organelle.name, "pixel_size_um": predicted.pixel_size_um}
        cells.append(measure_objects(labels, image, **options).assign(**keys))
        fields.append(measure_field(labels, image, **options).assign(**keys))
    field_table = with_plan(pd.concat(fields, ignore_index=True), plate)
    wells = with_plan(measure_well(field_table.drop(columns=_plan_columns(plate), errors="ignore")), plate)
    if registry is not None:
        keep_intervals(home, registry, organelle.name, version)
    measured = Measured(
        with_plan(pd.concat(cells, ignore_index=True), plate),
        field_table,
        reliable(home, wells, organelle.name, version),
        compare_with_stain(home, plate, predicted, organelle, field_table),
        compare_with_truth(home, plate_id, organelle, wells),
    )
    for level, table in (("cells", measured.cells), ("fields", measured.fields), ("wells", measured.wells)):
        home.tables.write(table, level, organelle.name, plate_id)
    home.tables.write(measured.wells, "versions", organelle.name, f"v{version}", plate_id)
    return measured


@dataclass(frozen=True)
class StalePlate:
    """A plate whose current predictions are not by the champions, or that the frozen encoder has not seen.

    Attributes:
        plate_id: the plate.
        content: digest of its content.
        organelles: those to predict again.
        embedded: whether the frozen encoder has seen it, or there is none.
    """

    plate_id: str
    content: str
    organelles: tuple[str, ...]
    embedded: bool = True


def stale_predictions(home: Home, versions: dict[str, int]) -> list[StalePlate]:
    """Accepted plates whose current prediction is not by the given versions, in order of their names.

    A plate that came while the frozen encoder was being trained is among them; one that the settings leave
    to its earlier prediction (`models.predict_again`) is not.

    Args:
        home: the stores.
        versions: organelle → version of its champion.
    """
    stale = []
    only_unlabelled = home.settings.models.predict_again == "unlabelled"
    frozen = encoder_store(home).record(ENCODER) is not None
    plates = home.plates.accepted_records()
    made = home.predictions.records(f"{plate_id}/{name}" for plate_id in plates for name in versions)
    seen = set(home.tables.names(*encoder_table("")[:-1])) if frozen else set(plates)
    for plate_id, plate in plates.items():
        content = str(plate.get("content_hash", ""))
        names = []
        for name, version in versions.items():
            current = made.get(f"{plate_id}/{name}", {})
            if current and only_unlabelled and stain_of(plate.get("channels", ()), organelle_of(name)):
                continue
            if current.get("version") != prediction_version(version, content):
                names.append(name)
        embedded = plate_id in seen
        if names or not embedded:
            stale.append(StalePlate(plate_id, content[:12], tuple(names), embedded))
    return stale


def _well_embeddings(embeddings: pd.DataFrame) -> pd.DataFrame:
    """Rows by field and kind → one row a well: means over its fields, whole field and foreground joined."""
    numbers = number_columns(embeddings.drop(columns=["kind"]))
    means = embeddings.groupby([*WELL, "kind"])[numbers].mean()
    rows = []
    for (plate, well), kinds in means.groupby(level=[0, 1]):
        whole, foreground = (kinds.xs(kind, level="kind").to_numpy()[0] for kind in ("field", "foreground"))
        vector = embedding_columns(field_embedding(whole, foreground))
        rows.append({"Metadata_Plate": plate, "Metadata_Well": well, **vector})
    return pd.DataFrame(rows)


def _plan_columns(plate: Plate) -> list[str]:
    return [] if plate.plan is None else [f"Metadata_{_title(str(name))}" for name in plate.plan]


def with_plan(table: pd.DataFrame, plate: Plate) -> pd.DataFrame:
    """The table with the plate plan's columns, keys first."""
    plan = plate.plan
    if plan is not None:
        renamed = plan.rename(columns=lambda name: f"Metadata_{_title(str(name))}").reset_index()
        table = table.merge(renamed, on="Metadata_Well", how="left")
    keys = [name for name in table if str(name).startswith("Metadata_")]
    return table[[*keys, *(name for name in table if name not in keys)]]


def _title(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
