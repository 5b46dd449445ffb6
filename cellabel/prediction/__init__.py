"""Whole images and whole plates through a trained network; embeddings come out of the same pass.

Tiling is exact: tiles lie on the network's grid and carry a halo as wide as it sees, so that no tile size
changes the result. Normalisation happens once, over the whole image.
"""

from cellabel.networks import OrganelleModel, load_model
from cellabel.prediction._image import EMBEDDING_CELL_PX, Prediction, embed_image, predict_image
from cellabel.prediction._plate import (
    PlatePrediction,
    predict_field,
    predict_plate,
    predict_stain,
    segment_prediction,
)

__all__ = [
    "EMBEDDING_CELL_PX",
    "OrganelleModel",
    "PlatePrediction",
    "Prediction",
    "embed_image",
    "load_model",
    "predict_field",
    "predict_image",
    "predict_plate",
    "predict_stain",
    "segment_prediction",
]
