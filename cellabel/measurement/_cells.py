"""Cells: what several stains show of each, joined by its nucleus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError
from cellabel.measurement._objects import checked, measure_objects
from cellabel.organelles import organelle as recipe_of

__all__ = ["CELL_BODIES", "NUCLEI_REACH_UM", "JoinedCells", "Layer", "assign_cytoplasm", "join_cells"]

CELL_BODIES = ("er", "actin")
"""Organelles whose objects outline the cell, the first one present taken."""
NUCLEI_REACH_UM = 5.0
"""How far a cell reaches beyond its nucleus, µm, where no stain shows its body."""
SMOOTHING_UM = 1.3
"""σ of the Gaussian on the body's stain before it is flooded: texture makes no borders."""


@dataclass(frozen=True)
class Layer:
    """One stain of a field: its image (H, W) and its objects (H, W), pixel on pixel over the others."""

    image: NDArray[Any]
    labels: NDArray[Any]


@dataclass(frozen=True)
class JoinedCells:
    """The cells of a field.

    Attributes:
        labels: (H, W) int32, every pixel of a cell bears the number of its nucleus.
        table: one row a cell, see `join_cells`.
        area_share: of the field that cells cover, the body's pixels that belong to no nucleus included.
        orphan_share: of the body's pixels that no nucleus claims: cells whose nucleus was missed or lies
            outside, and debris.
    """

    labels: NDArray[np.int32]
    table: pd.DataFrame
    area_share: float
    orphan_share: float


def assign_cytoplasm(
    nuclei: ArrayLike, body: ArrayLike, image: ArrayLike, *, smoothing_px: float = 2.0
) -> NDArray[np.int32]:
    """Give every pixel of the cells' bodies to one nucleus: a flood from the nuclei, bright pixels first.

    Two cells that touch meet where the stain is dimmest between their nuclei. A body without a nucleus stays
    background; a nucleus without a body is a cell as large as itself.

    Args:
        nuclei: (H, W) integers, 0 is background.
        body: (H, W) objects or mask of the stain that fills the cell.
        image: (H, W) that stain.
        smoothing_px: σ of the Gaussian on the image, px.

    Returns:
        (H, W) int32, the nuclei's numbers.

    Source: Jones, Carpenter & Golland 2005 (CellProfiler's IdentifySecondaryObjects) for cells from nuclei.
    """
    from skimage.segmentation import watershed

    # The flood reads memory in C order, whatever the strides of a turned image say.
    seeds = np.ascontiguousarray(nuclei, dtype=np.int32)
    if not seeds.any():
        return seeds
    stain = np.ascontiguousarray(image, dtype=np.float32)
    smooth = cv2.GaussianBlur(stain, (0, 0), smoothing_px) if smoothing_px > 0 else stain
    flooded: NDArray[Any] = watershed(  # type: ignore[no-untyped-call]
        -smooth, seeds, connectivity=2, mask=np.ascontiguousarray((np.asarray(body) > 0) | (seeds > 0))
    )
    return flooded.astype(np.int32)


def join_cells(layers: Mapping[str, Layer], *, pixel_size_um: float | None = None) -> JoinedCells:
    """One row a nucleus: the nucleus, the cell around it, and how much of every stain the cell holds.

    Args:
        layers: organelle → image and objects of one field; nuclei are needed, of `CELL_BODIES` the first one
            present gives the cells their outline. Without one a cell reaches 5 µm beyond its nucleus.
        pixel_size_um: size of a pixel, µm; None means 0.65 µm.

    Returns:
        The table has the columns of `measure_objects` for the nuclei (Metadata_ObjectNumber is the nucleus);
        Metadata_CellOutline ("er", "actin" or "nuclei"); Metadata_TouchesBorder of the whole cell;
        Cells_AreaShape_Area (px), _AreaUm2, _DiameterUm (of the circle of equal area), _FormFactor,
        _Solidity;
        Cytoplasm_AreaShape_AreaUm2; Cells_NucleusCytoplasmRatio (areas; NaN where there is no cytoplasm);
        Cells_Neighbors_FirstClosestRatio: distance to the closest other nucleus over the cells' mean diameter
            (NaN if alone); and for
        every stain <P>: Cells_Intensity_IntegratedIntensity_<P>, Cells_Intensity_MeanIntensity_<P> (image's
        units), Cells_AreaOccupied_<P> (µm² of that organelle's objects).

    Raises:
        InputError: no nuclei, or layers of different shapes.
    """
    if "nuclei" not in layers:
        raise InputError(f"Cells are joined by their nuclei; only {', '.join(layers) or 'nothing'} is there.")
    nuclei = layers["nuclei"]
    marks, _, size = checked(nuclei.labels, nuclei.image, pixel_size_um)
    for name, layer in layers.items():
        if layer.image.shape != marks.shape or layer.labels.shape != marks.shape:
            raise InputError(
                f"The {name} layer is {layer.image.shape}, the nuclei are {marks.shape}: join one field's."
            )
    outline = next((name for name in CELL_BODIES if name in layers), "nuclei")
    cells, covered = _cells_of(layers, outline, marks, size)
    table = measure_objects(marks, nuclei.image, organelle="nuclei", pixel_size_um=size)
    table.insert(1, "Metadata_CellOutline", outline)
    whole = measure_objects(cells, nuclei.image, organelle="nuclei", pixel_size_um=size)
    table = pd.concat([table, _cell_columns(table, whole, cells, layers, size)], axis=1)
    table["Metadata_TouchesBorder"] = whole["Metadata_TouchesBorder"].to_numpy()
    claimed = int((cells > 0).sum())
    orphan = 1 - claimed / covered if covered else 0.0
    return JoinedCells(cells, table, covered / marks.size if marks.size else 0.0, orphan)


def _cells_of(
    layers: Mapping[str, Layer], outline: str, marks: NDArray[Any], size: float
) -> tuple[NDArray[np.int32], int]:
    """The cells, and how many pixels their bodies cover in all."""
    if outline == "nuclei":
        from skimage.segmentation import expand_labels

        grown: NDArray[Any] = expand_labels(marks, NUCLEI_REACH_UM / size)  # type: ignore[no-untyped-call]
        return grown.astype(np.int32), int((grown > 0).sum())
    body = layers[outline]
    cells = assign_cytoplasm(marks, body.labels, body.image, smoothing_px=SMOOTHING_UM / size)
    return cells, int(((body.labels > 0) | (marks > 0)).sum())


def _cell_columns(
    nuclei: pd.DataFrame,
    whole: pd.DataFrame,
    cells: NDArray[np.int32],
    layers: Mapping[str, Layer],
    size: float,
) -> pd.DataFrame:
    """What is added to the nuclei's rows; `whole` are the cells, measured as objects."""
    area = whole["Nuclei_AreaShape_AreaUm2"].to_numpy()
    cytoplasm = area - nuclei["Nuclei_AreaShape_AreaUm2"].to_numpy()
    diameter = np.sqrt(4 * area / np.pi)
    distance = nuclei["Nuclei_Neighbors_FirstClosestDistance"].to_numpy() * size
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(cytoplasm > 0, nuclei["Nuclei_AreaShape_AreaUm2"] / cytoplasm, np.nan)
    columns: dict[str, Any] = {
        "Cells_AreaShape_Area": whole["Nuclei_AreaShape_Area"].to_numpy(),
        "Cells_AreaShape_AreaUm2": area,
        "Cells_AreaShape_DiameterUm": diameter,
        "Cells_AreaShape_FormFactor": whole["Nuclei_AreaShape_FormFactor"].to_numpy(),
        "Cells_AreaShape_Solidity": whole["Nuclei_AreaShape_Solidity"].to_numpy(),
        "Cytoplasm_AreaShape_AreaUm2": cytoplasm,
        "Cells_NucleusCytoplasmRatio": ratio,
        "Cells_Neighbors_FirstClosestRatio": distance / (diameter.mean() if len(diameter) else 1.0),
    }
    where = np.flatnonzero(cells)
    code = np.searchsorted(whole["Metadata_ObjectNumber"].to_numpy(), cells.ravel()[where])
    for name, layer in layers.items():
        prefix = recipe_of(name).prefix
        values = np.asarray(layer.image, dtype=np.float64).ravel()[where]
        inside = layer.labels.ravel()[where] > 0
        total = np.bincount(code, weights=values, minlength=len(whole))
        columns |= {
            f"Cells_Intensity_IntegratedIntensity_{prefix}": total,
            f"Cells_Intensity_MeanIntensity_{prefix}": total / whole["Nuclei_AreaShape_Area"].to_numpy(),
            f"Cells_AreaOccupied_{prefix}": np.bincount(code, weights=inside, minlength=len(whole)) * size**2,
        }
    return pd.DataFrame(columns, index=nuclei.index)
