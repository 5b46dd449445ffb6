"""Objects, fields and wells as tables: what the lab would have measured, on any image.

Columns are named as CellProfiler and pycytominer name them. Intensities are those of the image that is given.
"""

from cellabel.measurement._fields import measure_field, measure_well
from cellabel.measurement._objects import NEIGHBOUR_REACH_UM, measure_objects

__all__ = ["measure_objects", "measure_field", "measure_well", "NEIGHBOUR_REACH_UM"]
