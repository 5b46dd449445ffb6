"""What a command tells: results on standard output, as tables or JSON; all else on standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import date
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Json", "counted", "json_text", "note", "plain", "say", "show", "show_frame", "working"]

Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON to standard output and nothing else there.", show_default=False),
]

PIPE_WIDTH = 160
"""Characters of a line where no terminal says how many it has."""


def say(sentence: str) -> None:
    """One sentence of the result, to standard output."""
    _results().print(escape(sentence), highlight=False, soft_wrap=True)


def note(sentence: str) -> None:
    """One sentence beside the result, to standard error."""
    Console(stderr=True, soft_wrap=True).print(f"[dim]{escape(sentence)}[/dim]", highlight=False)


def counted(number: int, what: str) -> str:
    """`1 well`, `2 wells`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table for people; numbers are shortened, what is unknown stays empty."""
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(escape(column), overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row))
    _results().print(table)


def show_frame(title: str, frame: pd.DataFrame) -> None:
    """A data frame as a table for people."""
    show(title, [str(name) for name in frame.columns], frame.to_numpy(dtype=object).tolist())


def json_text(value: Any) -> None:
    """Anything that `plain` understands, as JSON to standard output."""
    sys.stdout.write(json.dumps(plain(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """A copy of plain Python values; NaN and infinities, which JSON lacks, become None."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return [plain(row) for row in value.astype(object).where(value.notna(), None).to_dict("records")]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Show that something is under way; gives a function that tells how far it is.

    What libraries print meanwhile goes to standard error: standard output belongs to the result.
    """
    console = Console(stderr=True, soft_wrap=True)
    with redirect_stdout(sys.stderr), console.status(escape(f"{what} …")):
        yield lambda sentence: console.print(f"[dim]{escape(sentence)}[/dim]", highlight=False)


def _results() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def _cell(value: Any) -> str:
    value = value if isinstance(value, PathLike) else plain(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return str(value)
