"""Images before they are learnt from: illumination, background, enhancement, masks, and the recipe's target.

Every operation takes one plane (H, W) and gives one back. `prepare_input` makes what a network sees, and
`prepare_target` what it is to predict: in the stain's own units, never scaled by the image itself.
"""

from cellabel.preprocessing._background import disk, opening, rolling_ball, subtract_background, white_tophat
from cellabel.preprocessing._illumination import correct_flat_field, flat_field
from cellabel.preprocessing._images import Background, background_and_noise, pixel_size_of, require_image
from cellabel.preprocessing._normalisation import normalise, prepare_input
from cellabel.preprocessing._projection import PROJECTIONS, project
from cellabel.preprocessing._targets import (
    STEPS,
    binary_mask,
    clear_background,
    clip_intensities,
    enhance_spots,
    in_pixels,
    prepare_target,
)
from cellabel.preprocessing._thresholds import THRESHOLDS, global_threshold, local_threshold

__all__ = [
    "prepare_input",
    "prepare_target",
    "normalise",
    "flat_field",
    "correct_flat_field",
    "white_tophat",
    "opening",
    "disk",
    "rolling_ball",
    "subtract_background",
    "global_threshold",
    "local_threshold",
    "clear_background",
    "clip_intensities",
    "enhance_spots",
    "binary_mask",
    "project",
    "background_and_noise",
    "Background",
    "pixel_size_of",
    "require_image",
    "in_pixels",
    "STEPS",
    "THRESHOLDS",
    "PROJECTIONS",
]
