"""The pages: Dagster's UI with its daemon, and MLflow, over one home."""

from __future__ import annotations

import signal
import sys
import time

from rich.console import Console

from cellabel.cli._services import (
    LOCALHOST,
    TERMINATED,
    Service,
    check_port,
    environment,
    prepare_dagster_home,
    program,
)
from cellabel.settings import load_settings

__all__ = ["serve"]


def serve(console: Console, *, port: int, mlflow_port: int) -> None:
    """Serve the pages on this machine until interrupted.

    Raises:
        InputError: a port is in use, or a service ended.
    """
    settings = load_settings()
    check_port(port, "the Dagster UI", "--port")
    check_port(mlflow_port, "MLflow", "--mlflow-port")
    prepare_dagster_home(settings)
    variables, logs = environment(settings), settings.home.resolve() / "dagster"
    services = [
        Service(
            "Dagster UI",
            [program("dagster"), "dev", "-w", "workspace.yaml", "-h", LOCALHOST, "-p", str(port)],
            variables,
            logs / "webserver.log",
        )
    ]
    if settings.mlflow_tracking_uri.startswith("sqlite"):
        services.append(
            Service(
                "MLflow",
                [
                    program("mlflow"),
                    "server",
                    "--backend-store-uri",
                    settings.mlflow_tracking_uri,
                    "--default-artifact-root",
                    str(settings.home.resolve() / "mlartifacts"),
                    "--host",
                    LOCALHOST,
                    "--port",
                    str(mlflow_port),
                    "--workers",
                    "1",
                ],
                variables,
                logs / "mlflow.log",
            )
        )
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that the services end too
        for service in services:
            service.start()
        console.print("The pages are starting …")
        for service, where in zip(services, (port, mlflow_port), strict=False):
            service.wait_for_port(where)
            console.print(f"{service.name:10}  http://{LOCALHOST}:{where}", highlight=False)
        console.print("End them with Ctrl-C.")
        while True:
            for service in services:
                service.check()
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("Ending …")
    finally:
        for service in services:
            service.stop()
