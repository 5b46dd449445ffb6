"""Predicts fluorescence stains from label-free microscopy and watches over its own predictions.

The package is a plain library: it imports no orchestrator, and importing it loads neither torch nor mlflow.
"""

from cellabel.errors import InputError

__all__ = ["InputError", "__version__"]
__version__ = "0.1.0"
