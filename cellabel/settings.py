"""Where everything lies and how the loop behaves: one typed object, read from the environment and one file.

`settings.yaml` in the home (where none is given, in `CELLABEL_HOME`) holds what a site decides; a variable
`CELLABEL_<FIELD>` (nested: `CELLABEL_DRIFT__WINDOW`) wins over it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from cellabel.errors import InputError, did_you_mean
from cellabel.organelles import organelle
from cellabel.training_settings import TrainingConfig

__all__ = [
    "DriftSettings",
    "InboxSettings",
    "MachinePrice",
    "ModelSettings",
    "PromotionSettings",
    "RetrainingSettings",
    "SelectionSettings",
    "Settings",
    "load_settings",
]

PREFIX = "CELLABEL_"
HOME_VARIABLE = "CELLABEL_HOME"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InboxSettings(_Section):
    """How an acquisition folder is taken in."""

    settle_seconds: float = Field(
        60.0, ge=0, description="A folder whose files have not changed this long is complete."
    )
    incomplete_seconds: float = Field(
        900.0, ge=0, description="The same while an image is missing that the vendor's own list names."
    )
    max_bad_share: float = Field(
        0.25, ge=0, le=1, description="Above this share of bad fields the plate is quarantined."
    )
    channels: dict[str, str] = Field(
        {},
        description="Channel name → role, for names whose role neither the plate nor the platform knows.",
    )
    link_ome_zarr: bool = Field(
        False,
        description="Refer to plates that are OME-Zarr already instead of copying them; they must stay.",
    )


class MachinePrice(_Section):
    """What a machine costs that a training could be rented."""

    per_hour: float = Field(ge=0, description="Price of an hour.")
    speed: float = Field(1.0, gt=0, description="How many times faster it trains than the machine here.")


class ModelSettings(_Section):
    """How organelle models are trained."""

    min_labelled_plates: int = Field(
        3,
        ge=1,
        description="Accepted stained plates before the first model of an organelle is trained by itself.",
    )
    test_share: float = Field(
        0.25, gt=0, lt=1, description="Share of plates (else wells) held out for the gate."
    )
    folds: int = Field(
        0,
        ge=0,
        description="With 2 or more: also leave-position-out scores over this many folds (small real data).",
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="Changes to the defaults of cellabel.training.TrainingConfig."
    )
    seed: int = Field(0, description="Seed of splits, crops and initial weights.")
    report_fields: int = Field(
        48,
        ge=0,
        description="Fields of held-out wells that are also measured under every severity of table 5, and "
        "fields of the wells trained on that are measured plate by plate; 0: neither (a demonstration).",
    )
    predict_again: Literal["all", "unlabelled"] = Field(
        "all",
        description="Plates that a new champion predicts again: all, or those alone that show no stain of "
        "its organelle.",
    )
    prices: dict[str, MachinePrice] = Field(
        default_factory=dict,
        description="Machine → price, by which a model card says what its training costs to repeat there.",
    )
    currency: str = Field("USD", description="Of the prices.")


class PromotionSettings(_Section):
    """The gate between challenger and champion."""

    min_plates: int = Field(
        4, ge=1, description="Held-out plates below which nothing is promoted automatically."
    )
    min_wells: int = Field(
        24, ge=2, description="Held-out wells below which nothing is promoted automatically."
    )
    first_max_error: float = Field(
        0.69,
        gt=0,
        description="Largest median |log error| of a first model, per metric (0.69: a factor of 2).",
    )
    max_delta_shape: float = Field(
        0.02,
        gt=0,
        description="Largest |log error| by which counts and areas may be worse on clean wells.",
    )
    max_delta_intensity: float = Field(0.05, gt=0, description="The same of intensities.")
    numerical_aperture: float = Field(
        0.45, gt=0, lt=1, description="Of the objective, for the gate's defocus."
    )
    defocus_um: tuple[float, ...] = Field(
        (2.0, 4.0),
        description="Pupil defocus of the gate's corrupted wells (not how the augmentation blurs).",
    )
    exposures: tuple[float, ...] = Field(
        (0.3, 2.0),
        description="Shares of the light by which a training against brightness or contrast is judged.",
    )
    shadowed_plates: int = Field(
        5,
        ge=0,
        description="Plates after a promotion whose control wells the old champion measures too; 0: none.",
    )
    control_roles: tuple[str, ...] = Field(
        ("parental", "reference", "high_producer"), description="Roles of the plate plan that are controls."
    )
    control_sds: float = Field(
        3.0,
        gt=0,
        description="Standard deviations that the controls may leave their history by before a rollback.",
    )


class DriftSettings(_Section):
    """The online detector and what it may claim."""

    false_alarms_per_plate: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Accepted probability of a false alarm on a clean plate, over all its streams.",
    )
    window: int = Field(10, ge=2, description="Wells in the test window.")
    min_reference_wells: int = Field(
        19, ge=3, description="Reference wells below which a stream is not calibrated."
    )
    late_after_seconds: float = Field(
        3600.0,
        ge=0,
        description="How long the stream waits for a plate that was acquired earlier and is in flight.",
    )
    diagnosis_fields: int = Field(
        24, ge=4, description="Reference fields that a diagnosis corrupts; more take time and make it surer."
    )
    min_confidence: float = Field(
        0.8, ge=0, le=1, description="Confidence of a diagnosis that may be acted upon."
    )
    harm_limit: float = Field(
        0.05, gt=0, description="Expected |log error| added by drift, above which it counts as harmful."
    )
    evidently: bool = Field(
        True,
        description="Evidently's report beside every plate's table: seconds and a page of 4 MB a stain. "
        "Without it the job `report` makes one on request.",
    )


class RetrainingSettings(_Section):
    """What may be done about a harmful drift without asking a person."""

    automatic: bool = Field(True, description="Retrain by itself at all.")
    at_once: bool = Field(
        False,
        description="Retrain at the first alarm instead of asking to image again (demo, unattended sites).",
    )
    on_provisional: bool = Field(
        False, description="Act on verdicts from fewer than 19 reference plates (demo, unattended sites)."
    )
    cooldown_days: float = Field(7.0, ge=0, description="Days between two retrainings of one organelle.")
    max_per_week: int = Field(2, ge=0, description="Retrainings a week over all organelles.")
    max_per_cause: int = Field(2, ge=0, description="Retrainings for one cause, then a person decides.")
    training: dict[str, Any] = Field(
        default_factory=lambda: {"learning_rate": 1e-3},
        description="Changes to models.training where a challenger learns to withstand a corruption, from "
        "the champion's weights.",
    )


class SelectionSettings(_Section):
    """By what clones are ranked."""

    score: str | dict[str, float] = Field(
        "",
        description="A score of cellabel.selection.SCORES, a feature column, or several of them with "
        "weights; empty: GFP a cell. Total GFP alone is refused, it rewards density.",
    )
    top: int | None = Field(None, ge=1, description="How many clones are carried on; empty: a tenth.")
    pool_plates: bool = Field(
        True, description="Also use the wells of the same clones on other plates without drift."
    )


class Settings(BaseSettings):
    """Everything that a site can decide."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True
    )

    home: Path = Field(Path(".cellabel"), description="The folder under which everything local lies.")
    store_url: str = Field(
        "", description="Where plates, predictions and tables lie; a path or fsspec URL. Default: home."
    )
    mlflow_uri: str = Field("", description="MLflow tracking server or database. Default: <home>/mlflow.db.")
    organelles: tuple[str, ...] = Field(
        ("nuclei", "er", "golgi", "gfp"), description="The recipes in the graph."
    )
    alert_urls: tuple[str, ...] = Field((), description="Apprise URLs that receive alerts, beside the log.")
    pages_url: str = Field(
        "http://127.0.0.1:3000", description="Where people open Dagster; the links in alerts begin with it."
    )
    sensor_seconds: int = Field(30, ge=1, description="Least time between two looks of each sensor.")
    quality: dict[str, dict[str, float]] = Field(
        {},
        description='Instrument, or "all", → changes of cellabel.plates.quality.QualityThresholds by name.',
    )
    threads: int = Field(0, ge=0, description="Threads of a run's numerics; 0: all cores.")
    inbox: InboxSettings = InboxSettings()
    models: ModelSettings = ModelSettings()
    promotion: PromotionSettings = PromotionSettings()
    drift: DriftSettings = DriftSettings()
    retraining: RetrainingSettings = RetrainingSettings()
    selection: SelectionSettings = SelectionSettings()

    @field_validator("organelles")
    @classmethod
    def _with_a_recipe(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(organelle(name).name for name in names)

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        """A training that cannot be is told now, not when the first run trains."""
        training = self.models.training
        for changes in (training, {**training, **self.retraining.training}):
            TrainingConfig(**{"seed": self.models.seed, **changes})
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the home's settings.yaml."""
        file = _settings_file(init_settings().get("home"))
        return (init_settings, env_settings, InitSettingsSource(settings_cls, _content(file)))

    @property
    def inbox_folder(self) -> Path:
        """Where microscopes put acquisition folders."""
        return self.home / "inbox"

    @property
    def dagster_home(self) -> Path:
        """The state of the embedded Dagster."""
        return self.home / "dagster"

    @property
    def mlflow_tracking_uri(self) -> str:
        """The tracking server, by default a database under the home."""
        return self.mlflow_uri or f"sqlite:///{(self.home / 'mlflow.db').resolve()}"

    def location(self, *parts: str) -> str:
        """The URL of a store, for example `location("plates")`."""
        base = self.store_url or str(self.home.resolve())
        return "/".join([base.rstrip("/"), *parts])


def _settings_file(home: str | Path | None = None) -> Path:
    """Of a home; None: the environment's."""
    return Path(home or os.environ.get(HOME_VARIABLE) or ".cellabel") / "settings.yaml"


def _content(file: Path) -> dict[str, Any]:
    """What a settings file says; nothing where there is none.

    Raises:
        InputError: it cannot be read, is not YAML, or holds something else than names and values.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): see that you may read it.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is not valid YAML ({_flat(error)}): mend it, or move it away to go by the defaults."
        ) from error
    if not isinstance(content, dict | None):
        raise InputError(
            f"{file} holds no settings but a {type(content).__name__}: write one NAME: VALUE a line."
        )
    return {str(name): value for name, value in (content or {}).items()}


def _flat(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()).rstrip(".")


def _check_environment() -> None:
    """Refuse a variable that is meant for a setting and names none.

    Others that begin with CELLABEL_ are left alone: Kubernetes makes CELLABEL_PORT of a service's name.

    Raises:
        InputError: such a variable is set.
    """
    for variable in sorted(os.environ):
        if not variable.upper().startswith(PREFIX):
            continue
        section, nested, _ = variable[len(PREFIX) :].lower().partition("__")
        if section in Settings.model_fields:
            continue
        hint = did_you_mean(section, Settings.model_fields)
        if nested or hint:
            raise InputError(
                f"There is no setting {section}{hint}: correct or unset the variable {variable}."
            )


def _sentence(error: ErrorDetails, file: Path) -> str:
    """What is wrong with a setting, and where it may come from."""
    name = ".".join(str(part) for part in error["loc"])
    reason = error["msg"].removeprefix("Value error, ").rstrip(".")
    where = f"mend it in {file} or in the variable {PREFIX}{name.upper().replace('.', '__')}"
    if error["type"] == "extra_forbidden":
        return (
            f"There is no setting {name}{did_you_mean(str(error['loc'][-1]), _names_beside(error))}: {where}."
        )
    if not name:  # of models.training and retraining.training, which tell it themselves
        return f"{reason}: mend models.training or retraining.training in {file}."
    return f"The setting {name} cannot be used ({reason}): {where}."


def _names_beside(error: ErrorDetails) -> list[str]:
    """The settings that there are where an unknown one was given."""
    model: Any = Settings
    for part in error["loc"][:-1]:
        found = getattr(model, "model_fields", {}).get(str(part))
        model = found.annotation if found else None
    return list(getattr(model, "model_fields", ()))


def load_settings(**changes: Any) -> Settings:
    """The settings of this process.

    Args:
        changes: win over the environment and the file; `home` also says whose file is read.

    Raises:
        InputError: a value that cannot be, with its name and where it may come from.
    """
    _check_environment()
    try:
        settings = Settings(**changes)
    except ValidationError as error:
        raise InputError(_sentence(error.errors()[0], _settings_file(changes.get("home")))) from error
    except SettingsError as error:
        raise InputError(f"A setting cannot be read ({_flat(error)}): write its variable as JSON.") from error
    if settings.home.is_file():
        raise InputError(f"There is no home at {settings.home}, which is a file: give a folder's name.")
    return settings
