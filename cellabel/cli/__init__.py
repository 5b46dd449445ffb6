"""The command line: every capability without Dagster, and the demo, which starts Dagster as a process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellabel.cli._app import app

__all__ = ["app", "main"]

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main() -> None:
    """Run the command line; bad input is one sentence and exit code 2, Ctrl-C one and exit code 130."""
    import signal

    pressed = False
    code: int | str | None

    def interrupt(*_: Any) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        from cellabel.cli._app import run  # here: a second of imports may be interrupted too

        code = run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as ended:  # Lightning makes one of Ctrl-C
        code = INTERRUPTED if pressed else ended.code
    if code == INTERRUPTED:
        sys.stderr.write("cellabel: Stopped; nothing was kept half-written.\n")
    sys.exit(code)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cellabel.cli._app import app

    return app
