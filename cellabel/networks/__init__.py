"""The networks, and a trained one with all that its output needs to mean something.

A network maps (N, 1, H, W) of any size to the same size. `OrganelleModel` adds the target's scale, pixel size
and kind; `save_model` and `load_model` keep it as safetensors and JSON, never as a pickle.
"""

from cellabel.networks._autoencoder import (
    AUTOENCODERS,
    Autoencoder,
    ConvAutoencoder,
    PoolingAutoencoder,
    load_encoder,
    save_encoder,
)
from cellabel.networks._model import CONFIG_NAME, WEIGHTS_NAME, OrganelleModel, load_model, save_model
from cellabel.networks._unet import ACTIVATIONS, INITIALISATIONS, UPSAMPLINGS, UNet, pad_to_grid

__all__ = [
    "ACTIVATIONS",
    "AUTOENCODERS",
    "CONFIG_NAME",
    "INITIALISATIONS",
    "UPSAMPLINGS",
    "WEIGHTS_NAME",
    "Autoencoder",
    "ConvAutoencoder",
    "OrganelleModel",
    "PoolingAutoencoder",
    "UNet",
    "load_encoder",
    "load_model",
    "pad_to_grid",
    "save_encoder",
    "save_model",
]
