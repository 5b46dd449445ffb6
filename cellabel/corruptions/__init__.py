"""What goes wrong between the sample and the file, made on purpose.

Table 5 of the method (defocus, contrast, brightness, each by severity) acts on the raw image, before any
normalisation. `interference_defocus` is what DIC shows out of focus, where a blur is too simple.
`pupil_defocus` blurs and `exposure` changes the light by another physics, for tests that must not share an
implementation with what they test. Everything runs on numpy and scipy alone.
"""

from cellabel.corruptions._exposure import exposure
from cellabel.corruptions._interference import interference_defocus
from cellabel.corruptions._pupil import (
    depth_of_severity,
    equivalent_radius_px,
    pupil_defocus,
    severity_of_radius,
)
from cellabel.corruptions._table import (
    DESTROYED_SHARE,
    clipped_share,
    corrupt,
    defocus_kernel,
    full_scale_of,
)
from cellabel.severities import KINDS, SEVERITIES

__all__ = [
    "DESTROYED_SHARE",
    "KINDS",
    "SEVERITIES",
    "clipped_share",
    "corrupt",
    "defocus_kernel",
    "depth_of_severity",
    "equivalent_radius_px",
    "exposure",
    "full_scale_of",
    "interference_defocus",
    "pupil_defocus",
    "severity_of_radius",
]
