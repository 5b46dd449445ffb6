"""Model versions in MLflow: logged, registered, compared, promoted, rolled back and loaded.

MLflow is known here and nowhere else. A version is safetensors weights, JSON and tables, each with its
checksum among the version's tags; nothing that could hold code is logged, and no pickle is ever loaded.
Importing this room does not import mlflow.
"""

from cellabel.registry._card import model_card
from cellabel.registry._logger import training_logger
from cellabel.registry._provenance import CHANGED, environment, git_commit
from cellabel.registry._registry import ModelRegistry
from cellabel.registry._succession import RETURNED_FROM
from cellabel.registry._versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS_CHAMPION,
    ModelVersion,
    Standing,
    model_name,
)

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "CHANGED",
    "PREVIOUS_CHAMPION",
    "RETURNED_FROM",
    "ModelRegistry",
    "ModelVersion",
    "Standing",
    "environment",
    "git_commit",
    "model_card",
    "model_name",
    "training_logger",
]
