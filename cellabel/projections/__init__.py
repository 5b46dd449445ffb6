"""Embeddings on a plane, and the groups that they form there: what a person looks at after a drift.

Arrays in, arrays out, the same for the same seed. `project` draws the map (PCA, PaCMAP, PCA before PaCMAP),
`cluster` finds its groups, `new_groups` tells which of them hold little else than new rows. A projection or a
clustering is one function and one entry in `PROJECTIONS` or `CLUSTERINGS`. Importing this room loads neither
pacmap nor scikit-learn.
"""

from cellabel.projections._clusterings import CLUSTERINGS, cluster, new_groups
from cellabel.projections._projections import PROJECTIONS, project

__all__ = ["project", "PROJECTIONS", "cluster", "CLUSTERINGS", "new_groups"]
