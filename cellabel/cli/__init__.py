"""The command line: every capability without Dagster, and the demo, which starts Dagster as a process."""

from cellabel.cli._app import app, main

__all__ = ["app", "main"]
