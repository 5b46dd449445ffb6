"""One writer at a time across machines: a lease kept in the registry itself.

MLflow has no compare-and-set. What it does have are tags that appear at once, so a lease is taken in two
steps: write a ticket (a tag of the registered model, with the time at which it runs out), then read all
tickets. Who finds no other valid one holds the lease; who finds one withdraws and tries again after a while.
Two holders are impossible: each read the tickets after writing its own, so one of them saw the other's.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cellabel.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFIX = "lock."
VALID_SECONDS = 300.0
"""A holder that died is waited for this long; the machines' clocks have to agree within a minute or two."""

PATIENCE_SECONDS = 600.0

_held = threading.local()


@contextlib.contextmanager
def lease(
    client: MlflowClient,
    name: str,
    *,
    valid_seconds: float = VALID_SECONDS,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[None]:
    """Hold the lease of a registered model; who holds it may take it again.

    Args:
        client: of the server.
        name: the registered model; created where absent.
        valid_seconds: after which others take the lease from a holder that died.
        patience_seconds: how long to wait for it.

    Raises:
        InputError: somebody else held it all the while.
    """
    depths: dict[str, int] = _held.__dict__.setdefault("depths", {})
    if depths.get(name):
        yield
        return
    _ensure(client, name)
    ticket = f"{PREFIX}{uuid.uuid4().hex[:12]}"
    _take(client, name, ticket, valid_seconds, time.monotonic() + patience_seconds)
    depths[name] = 1
    try:
        yield
    finally:
        del depths[name]
        client.delete_registered_model_tag(name, ticket)


def _take(client: MlflowClient, name: str, ticket: str, valid_seconds: float, end: float) -> None:
    while True:
        until = time.time() + valid_seconds
        client.set_registered_model_tag(name, ticket, f"{until:.3f} {socket.gethostname()} {os.getpid()}")
        others = {key: text for key, text in _tickets(client, name).items() if key != ticket}
        expired = [key for key, text in others.items() if _until(text) < time.time()]
        for key in expired:
            client.delete_registered_model_tag(name, key)
        if len(expired) == len(others):
            return
        client.delete_registered_model_tag(name, ticket)
        if time.monotonic() > end:
            holder = " process ".join(
                next(text for key, text in others.items() if key not in expired).split()[1:]
            )
            raise InputError(
                f"{name} is being changed by {holder} and has been for too long: wait until that is done, or "
                f"delete the tags {PREFIX}… of {name} in MLflow if it has died."
            )
        time.sleep(random.uniform(0.05, 0.5))


def _tickets(client: MlflowClient, name: str) -> dict[str, str]:
    tags = client.get_registered_model(name).tags
    return {key: text for key, text in tags.items() if key.startswith(PREFIX)}


def _until(text: str) -> float:
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):  # no ticket of ours: nobody holds anything by it
        return 0.0


def _ensure(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
