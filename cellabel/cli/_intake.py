"""A folder becomes a plate with the records that the loop keeps, also where a person names the layout."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellabel.loop import TakenIn
    from cellabel.plates import Acquisition
    from cellabel.stores import Home

__all__ = ["take_in_acquisition"]


def take_in_acquisition(
    home: Home, acquisition: Acquisition, plate_id: str, *, link: bool = False
) -> TakenIn:
    """As `cellabel.loop.take_in`, of an acquisition that has been opened by a layout of a person's choice.

    `link` as `import_plate` takes it.

    Raises:
        InputError: it cannot be imported, or is quarantined.
    """
    from cellabel.loop import look_at
    from cellabel.plates import import_plate

    before = home.plates.record(plate_id) or {}
    arrived = {
        "source": str(acquisition.folder.resolve()),
        "first_seen": before.get("first_seen") or datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        plate = import_plate(
            acquisition,
            home.plates,
            plate_id=plate_id,
            max_bad_share=home.settings.inbox.max_bad_share,
            link=link,
        )
    finally:
        home.plates.update_record(plate_id, **arrived)
    return look_at(home, plate)
