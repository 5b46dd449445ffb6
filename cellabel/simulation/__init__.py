"""Simulated CHO plates: interference contrast, stains and exact truth, written as a microscope would.

A plate is drawn (plan, clones, cells, conditions), rendered to maps of optical path and stain, imaged by wave
optics and a camera model, and written as a MetaXpress export with its truth beside it. The numbers are frozen
in two families; `parameters_hash` names them. Left out of this form: random-walk drifts, wrong objectives,
8-bit and JPEG exports, contamination, and the harm of a drift, which needs a model to be harmed.
"""

from cellabel.simulation._camera import Camera, camera_counts, illumination
from cellabel.simulation._conditions import Instrument
from cellabel.simulation._drifts import BIOLOGY_KINDS, DRIFT_KINDS
from cellabel.simulation._keywords import Culture, Microscope
from cellabel.simulation._optics import condenser_points, dic_image, fluorescence_transfer, pupil
from cellabel.simulation._physics import (
    FAMILIES,
    PRESETS,
    STAINS,
    VARIANCE_COMPONENTS,
    Physics,
    parameters_hash,
)
from cellabel.simulation._plate import SimulatedPlate, simulate_plate

__all__ = [
    "simulate_plate",
    "SimulatedPlate",
    "Microscope",
    "Culture",
    "Instrument",
    "Physics",
    "FAMILIES",
    "PRESETS",
    "STAINS",
    "VARIANCE_COMPONENTS",
    "parameters_hash",
    "DRIFT_KINDS",
    "BIOLOGY_KINDS",
    "Camera",
    "camera_counts",
    "illumination",
    "condenser_points",
    "dic_image",
    "fluorescence_transfer",
    "pupil",
]
