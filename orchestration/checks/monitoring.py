"""Is what watches able to see?"""

import dagster as dg

from orchestration.metadata import table_preview
from orchestration.resources import Stores

__all__ = ["sees_defocus"]


@dg.asset_check(
    asset=["encoder", "frozen_encoder"],
    description="Defocus by the pupil moves the frozen encoder's embeddings of its reference by more than "
    "its wells differ.",
)
def sees_defocus(stores: Stores) -> dg.AssetCheckResult:
    """The check that the frozen encoder is not blind."""
    from cellabel.loop import encoder_sight

    sight = encoder_sight(stores.open())
    return dg.AssetCheckResult(
        passed=bool(sight["moved"].iloc[-1] > 1),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"sight": table_preview(sight)},
    )
