"""Is what watches able to see?"""

import dagster as dg

from orchestration.metadata import table_preview, told
from orchestration.resources import Stores

__all__ = ["drift", "sees_defocus"]


def drift(stream: str) -> dg.AssetChecksDefinition:
    """The verdict of a stream, which the sensor reports; run by hand, it is told again."""

    @dg.asset_check(
        asset=dg.AssetKey([stream, "drift"]),
        name="drift",
        description="The plate looks like the reference of its instrument. Reported by the drift sensor for "
        "each plate: a warning at the first drifted one, an error where drift persists. Run by hand, it "
        "tells the latest verdict again.",
    )
    def check(stores: Stores) -> dg.AssetCheckResult:
        from cellabel.errors import InputError
        from cellabel.loop import latest_verdict

        verdict = latest_verdict(stores.open(), stream)
        if verdict is None:
            raise InputError(
                f"The stream {stream} has judged no plate yet: it waits for a reference, a new plate or the "
                "drift sensor."
            )
        said = told(verdict, stream)
        return dg.AssetCheckResult(
            passed=said.passed,
            severity=said.severity,
            description=f"{verdict['plate']}: {said.sentence}",
            metadata=said.metadata,
        )

    return check


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
