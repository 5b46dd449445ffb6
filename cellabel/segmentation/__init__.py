"""Objects in stained images, and in predicted ones: from intensities to labels, by the organelle's recipe.

Whole-number filters throughout: an image that is moved or turned by 90° is segmented alike, to the pixel.
"""

from cellabel.segmentation._objects import clear_border
from cellabel.segmentation._recipe import STEPS, core_share, segment

__all__ = ["segment", "core_share", "clear_border", "STEPS"]
