"""The steps of the loop, each on the stores: what Dagster runs, and what the command line can do without it.

An acquisition becomes a plate, a plate becomes predictions and embeddings, predictions become tables,
embeddings become a drift verdict, and a verdict can become a better model. Every step is one function that
may be repeated. Names are loaded
when they are used: the drift sensor needs neither torch nor mlflow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
