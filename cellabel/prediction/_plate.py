"""A plate through a model: predicted stain, labels and embeddings of every field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellabel.datasets import resample, same_pixel_size
from cellabel.errors import InputError
from cellabel.networks import OrganelleModel
from cellabel.plates import Field, Plate, PlateWriter
from cellabel.prediction._image import Prediction, predict_image
from cellabel.preprocessing import pixel_size_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PlatePrediction:
    """What is left of a predicted plate.

    Attributes:
        path: the OME-Zarr plate with the predicted stain and the labels.
        embeddings: two rows a field: Metadata_Plate, Metadata_Well, Metadata_Site, kind ("field" or
            "foreground"), e000, e001, …
        fields: (plate, well, site) of the fields predicted, in order.
        left_out: fields without a transmitted-light image: (plate, well, site).
    """

    path: Any
    embeddings: pd.DataFrame
    fields: list[tuple[str, str, int]]
    left_out: list[tuple[str, str, int]]


def predict_plate(
    plate: Plate,
    model: OrganelleModel,
    writer_path: Any,
    *,
    tile: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> PlatePrediction:
    """Predicts, segments and embeds every field of a plate; one field is in memory at a time.

    Images whose pixel size differs by more than 2 % from the model's are resampled for the network, and the
    prediction back, so that it lies pixel on pixel over the original.

    Args:
        plate: the plate.
        model: the organelle's model.
        writer_path: folder or URL of the plate to write; write into a scratch folder, it is not atomic.
        tile: side of the tiles, px (see `predict_image`).
        progress: called with a sentence after each field.

    Returns:
        The path, the embeddings and the addresses. The stain is written as float32 in stain units
        (probability where binary) under the organelle's name, the labels as int32 under the same name.

    Raises:
        InputError: no field with transmitted light, or an image that cannot be predicted (it is named).
    """
    import pandas as pd

    fields: list[Field] = []
    left_out: list[Field] = []
    for field in plate.fields():
        (fields if "transmitted" in field.roles else left_out).append(field)
    if not fields:
        raise InputError(f"Plate {plate.plate_id} has no transmitted-light image; import one that has.")
    writer = PlateWriter(
        writer_path,
        plate.plate_id,
        fields=[(field.well, field.site) for field in fields],
        channels=[model.organelle],
        pixel_size_um=plate.pixel_size_um,
        attributes=_provenance(plate, model),
    )
    rows = []
    with writer:
        for number, field in enumerate(fields, 1):
            stain, labels, prediction = predict_field(field, model, plate.pixel_size_um, tile=tile)
            writer.write_field(
                field.well, field.site, {model.organelle: stain}, labels={model.organelle: labels}
            )
            rows += [
                (*field.key, "field", *prediction.embedding),
                (*field.key, "foreground", *prediction.foreground_embedding),
            ]
            if progress is not None:
                progress(
                    f"{model.organelle} of plate {plate.plate_id}: well {field.well}, site {field.site} "
                    f"({number} of {len(fields)})"
                )
    columns = ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "kind"]
    names = [f"e{index:03d}" for index in range(model.network.embedding_length)]
    table = pd.DataFrame(rows, columns=[*columns, *names]).astype(dict.fromkeys(names, np.float32))
    return PlatePrediction(
        writer.path, table, [field.key for field in fields], [field.key for field in left_out]
    )


def predict_field(
    field: Field, model: OrganelleModel, pixel_size_um: float | None, *, tile: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int32], Prediction]:
    """Stain (H, W) float32 in stain units or probability, labels (H, W) int32, and the embeddings.

    Raises:
        InputError: the image is missing, damaged or not finite; the field is named.
    """
    image = field.image("transmitted")
    try:
        prediction = predict_stain(model, image, pixel_size_um=pixel_size_um, tile=tile)
    except InputError as error:
        raise InputError(f"Plate {field.plate_id}, well {field.well}, site {field.site}: {error}") from error
    stain = prediction.image
    return stain, segment_prediction(stain, model, pixel_size_um=pixel_size_um), prediction


def predict_stain(
    model: OrganelleModel,
    image: NDArray[Any],
    *,
    pixel_size_um: float | None = None,
    tile: int | None = None,
) -> Prediction:
    """What a model makes of an image whose pixels may have another size than those it has learnt from.

    Args:
        model: the organelle's model.
        image: (H, W) transmitted light.
        pixel_size_um: of the image; None means 0.65 µm. Where it differs by more than 2 % from the model's,
            the image is resampled for the network.
        tile: side of the tiles, px (see `predict_image`).

    Returns:
        The stain (H, W) float32, pixel on pixel over the image, in stain units or as a probability; and the
        embeddings, of the image that the network saw.

    Raises:
        InputError: as `predict_image`, or a pixel without size.
    """
    size, seen = pixel_size_of(pixel_size_um), image
    if not same_pixel_size(size, model.pixel_size_um):
        height, width = (max(1, round(length * size / model.pixel_size_um)) for length in image.shape)
        seen = resample(image, (height, width))
    prediction = predict_image(model, seen, tile=tile, return_embeddings=True)
    stain = (
        prediction.image if seen is image else resample(prediction.image, (image.shape[0], image.shape[1]))
    )
    if not model.binary:
        stain = stain * np.float32(model.target_scale)
    return replace(prediction, image=stain)


def segment_prediction(
    stain: NDArray[np.float32], model: OrganelleModel, *, pixel_size_um: float | None = None
) -> NDArray[np.int32]:
    """The objects of a predicted stain, with what its model knows of the stains that it has learnt from.

    Args:
        stain: (H, W), the prediction in stain units, or a probability.
        model: that made it.
        pixel_size_um: size of a pixel, µm; None means 0.65 µm.
    """
    from cellabel.segmentation import segment

    return segment(stain, model.organelle, pixel_size_um=pixel_size_um, floor=model.floor, core=model.core)


def _provenance(plate: Plate, model: OrganelleModel) -> dict[str, Any]:
    return {
        "content_hash": plate.content_hash,
        "acquired_at": plate.acquired_at.isoformat() if plate.acquired_at else None,
        "instrument": plate.instrument,
        "predicted": {
            "organelle": model.organelle,
            "model": model.name,
            "model_version": model.version,
            "intensity_units": model.config["intensity_units"],
            "code_version": model.config.get("code_version", ""),
        },
    }
