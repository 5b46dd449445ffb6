"""Tables and figures as Dagster metadata."""

import base64
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["figure", "table_preview"]


def table_preview(table: "pd.DataFrame", rows: int = 24) -> dg.MarkdownMetadataValue:
    """The first rows of a table, rounded to four digits, as Markdown."""
    head = table.head(rows)
    lines = ["| " + " | ".join(map(str, head.columns)) + " |", "|" + " --- |" * len(head.columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in head.itertuples(index=False)]
    if len(table) > rows:
        lines.append(f"\n… and {len(table) - rows} more rows")
    return dg.MetadataValue.md("\n".join(lines))


def figure(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG figure that the asset's page shows in place."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
