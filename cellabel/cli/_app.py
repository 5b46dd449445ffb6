"""Commands and their arguments; what they do lies in the library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.exceptions import TyperException

from cellabel.cli import INTERRUPTED
from cellabel.cli._alerts import alerts
from cellabel.cli._drift import drift
from cellabel.cli._images import corrupt, measure, predict
from cellabel.cli._models import models
from cellabel.cli._plates import import_folder, plates
from cellabel.cli._simulate import simulate
from cellabel.cli._training import evaluate, train
from cellabel.errors import InputError

app = typer.Typer(
    name="cellabel",
    help="Predicts fluorescence stains from label-free microscopy, measures them, and watches over itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

BAD_INPUT = 2


def run() -> int:
    """Run the command that was typed; what is wrong with it or its input is one sentence.

    Returns:
        The exit code.
    """
    try:
        return int(typer.main.get_command(app).main(prog_name="cellabel", standalone_mode=False) or 0)
    except typer.Abort:
        return INTERRUPTED
    except TyperException as error:
        return _refused(_usage(error))
    except InputError as error:
        return _refused(str(error))


def _refused(sentence: str) -> int:
    Console(stderr=True, soft_wrap=True).print(f"[red]cellabel:[/red] {escape(sentence)}", highlight=False)
    return BAD_INPUT


def _usage(error: Any) -> str:
    """What is wrong with the words of a command, and where to read which there are."""
    said = " ".join(error.format_message().split()).rstrip(".?") or "No command was given"
    context = getattr(error, "ctx", None)
    return f"{said}; see {context.command_path if context else 'cellabel'} --help."


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="Real images to use instead of simulated plates.")] = None,
    fresh: Annotated[bool, typer.Option(help="Forget an earlier demo first.")] = False,
) -> None:
    """Run the whole loop, unattended: plates in, models trained, drift noticed, a better model."""
    console = Console(soft_wrap=True)
    if data is None:
        from cellabel.cli._simulated_demo import simulated_demo

        simulated_demo(console, fresh=fresh)
    else:
        from cellabel.cli._real_demo import real_demo

        real_demo(console, data, fresh=fresh)


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.", min=1, max=65535)] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow.", min=1, max=65535)] = 5000,
) -> None:
    """Serve the Dagster UI and MLflow on this machine."""
    from cellabel.cli._serve import serve

    serve(Console(soft_wrap=True), port=port, mlflow_port=mlflow_port)


app.command()(simulate)
app.command("import")(import_folder)
app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(measure)
app.command(context_settings={"ignore_unknown_options": True})(corrupt)  # −3 is a severity, not an option
app.add_typer(drift, name="drift")
app.add_typer(models, name="models")
app.add_typer(plates, name="plates")
app.add_typer(alerts, name="alerts")
