"""What is wrong, or worth knowing, about an acquisition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Effect = Literal["note", "stain missing", "field quarantined"]


@dataclass(frozen=True)
class Issue:
    """One thing about an acquisition that its reader should know.

    Attributes:
        well, site, channel: where; None where it concerns the whole acquisition, well or field.
        reason: what is the matter, with the file's name where there is one.
        effect: "note" (nothing follows), "stain missing" (the field is unlabelled there), or
            "field quarantined".
    """

    well: str | None
    site: int | None
    channel: str | None
    reason: str
    effect: Effect = "note"

    def __str__(self) -> str:
        where = " ".join(
            part
            for part in (self.well, f"site {self.site}" if self.site is not None else None, self.channel)
            if part
        )
        follows = "" if self.effect == "note" else f" ({self.effect})"
        return f"{where}: {self.reason}{follows}" if where else f"{self.reason}{follows}"

    @property
    def order(self) -> tuple[str, int, str, str]:
        """A key that sorts issues by place."""
        return self.well or "", self.site or 0, self.channel or "", self.reason
