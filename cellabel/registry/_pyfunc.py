"""The same files as an MLflow model of the `python_function` flavour: named code, no pickle.

MLflow finds this module by its name in the version's `MLmodel` file, for
`mlflow.pyfunc.load_model("models:/cellabel-er@champion")` and
`mlflow models serve -m models:/cellabel-er@champion --env-manager local`.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError

if TYPE_CHECKING:
    from cellabel.prediction import OrganelleModel


def mlmodel_text() -> str:
    """The content of the `MLmodel` file."""
    version = platform.python_version()
    return f"flavors:\n  python_function:\n    loader_module: {__name__}\n    python_version: {version}\n"


class ImagePredictor:
    """Predicts the stain of one transmitted-light image, or of a stack of them."""

    def __init__(self, model: OrganelleModel) -> None:
        self.model = model

    def predict(self, model_input: ArrayLike, params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """The predicted stain.

        Args:
            model_input: (H, W), or (N, H, W).
            params: `tile`, as in `predict_image`.

        Returns:
            The same shape, float32: stain units, or a probability where the model is binary.

        Raises:
            InputError: the input is no image and no stack of images; it is an `MlflowException` too, so that
                a server answers with the sentence and the status of a bad request.
        """
        try:
            return self._predict(np.asarray(model_input), (params or {}).get("tile"))
        except InputError as error:
            raise _bad_request(str(error)) from error

    def _predict(self, images: NDArray, tile: int | None) -> NDArray[np.float32]:
        from cellabel.prediction import predict_image

        if images.ndim not in (2, 3) or images.dtype.kind not in "buif":
            raise InputError(
                f"An array of shape {images.shape} and type {images.dtype} is no image: give numbers (H, W), "
                "or a stack (N, H, W)."
            )
        stack = images[None] if images.ndim == 2 else images
        found = np.stack([predict_image(self.model, image, tile=tile) for image in stack])
        scaled = (found * self.model.target_scale).astype(np.float32)
        return scaled[0] if images.ndim == 2 else scaled


def _bad_request(sentence: str) -> InputError:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    class BadRequest(InputError, MlflowException):
        def __init__(self) -> None:
            MlflowException.__init__(self, sentence, error_code=INVALID_PARAMETER_VALUE)

    return BadRequest()


def _load_pyfunc(path: str) -> ImagePredictor:
    """Called by MLflow with the folder of a version."""
    from cellabel.prediction import load_model

    return ImagePredictor(load_model(Path(path)))
