"""Acquisition folders → plates: images as an instrument left them become one OME-Zarr HCS plate, verified.

`open_acquisition` reads a folder by one of the naming `LAYOUTS` and says what is wrong with it;
`import_plate` stores it, whole or not at all; `open_plate` gives it back as plate → wells → fields.
`PlateWriter` writes predicted plates of the same form. `quality` judges fields before any normalisation.
"""

from cellabel.plates._acquisition import Acquisition, open_acquisition
from cellabel.plates._importing import QuarantinedPlate, import_plate
from cellabel.plates._issues import Issue
from cellabel.plates._plan import PLAN_COLUMNS, PLAN_ROLES, read_plan
from cellabel.plates._plate import Field, Plate, Well, open_plate, read_plate, registered
from cellabel.plates._writer import PlateWriter
from cellabel.plates.layouts import LAYOUTS

__all__ = [
    "LAYOUTS",
    "PLAN_COLUMNS",
    "PLAN_ROLES",
    "Acquisition",
    "Field",
    "Issue",
    "Plate",
    "PlateWriter",
    "QuarantinedPlate",
    "Well",
    "import_plate",
    "open_acquisition",
    "open_plate",
    "read_plan",
    "read_plate",
    "registered",
]
