"""Labelled plates → what a network trains on, split so that a test means something.

The use is new clones on new plates, so the split goes by clone and plate, and by well only where that is not
possible; never by field or crop. Wells that were once held out stay held out.
"""

from cellabel.datasets._build import build_dataset
from cellabel.datasets._cache import ImageCache
from cellabel.datasets._dataset import Dataset
from cellabel.datasets._resample import SAME_PIXEL_SIZE, resample, same_pixel_size
from cellabel.datasets._samples import FieldSample, LabelledPlate, stain_of
from cellabel.datasets._split import check_split, split_proof

__all__ = [
    "SAME_PIXEL_SIZE",
    "Dataset",
    "FieldSample",
    "ImageCache",
    "LabelledPlate",
    "build_dataset",
    "check_split",
    "resample",
    "same_pixel_size",
    "split_proof",
    "stain_of",
]
