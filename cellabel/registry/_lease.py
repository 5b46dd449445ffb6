"""One writer at a time across machines: a lease kept in the registry itself.

MLflow has no compare-and-set. What it does have are tags that appear at once, so a lease is taken in two
steps: write a ticket (a tag of the registered model, with the time at which it runs out), then read all
tickets. Who finds no other valid one holds the lease; who finds one withdraws and tries again after a while.
Two never take it together: each read the tickets after writing its own, so one of them saw the other's.

A holder renews its ticket, so that long work does not outlast it. One that was cut off (a sleeping machine, a
network that is down) lets its ticket run out, and another may take the lease: `confirm`, asked before every
write, tells the first one that it has lost it.
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


class LeaseLostError(InputError):
    """The lease ran out while it was held, so somebody else may be changing the same versions by now."""


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
    leases = _leases()
    if name in leases:
        yield
        return
    _ensure(client, name)
    ticket = _Ticket(client, name, valid_seconds)
    _take(ticket, time.monotonic() + patience_seconds)
    leases[name] = ticket
    try:
        with ticket.renewed():
            yield
    finally:
        del leases[name]
        ticket.withdraw()


def confirm(name: str) -> None:
    """Ask, before a change to a registered model, whether this thread's lease of it still holds.

    Raises:
        LeaseLostError: it was held and has run out; who holds none is not stopped.
    """
    ticket = _leases().get(name)
    if ticket is not None and not ticket.is_valid():
        raise LeaseLostError(
            f"The lease of {name} ran out before a change was made (was this machine asleep or cut off from "
            "MLflow?) and another process may have changed its versions: nothing more was changed, try again."
        )


class _Ticket:
    """A claim to a registered model's lease, written and read in its tags."""

    def __init__(self, client: MlflowClient, name: str, valid_seconds: float) -> None:
        self.client, self.name, self.valid_seconds = client, name, valid_seconds
        self.key = f"{PREFIX}{uuid.uuid4().hex[:12]}"
        self.until = 0.0
        self._given_up = threading.Event()

    def write(self) -> None:
        until = time.time() + self.valid_seconds
        text = f"{until:.3f} {socket.gethostname()} {os.getpid()}"
        self.client.set_registered_model_tag(self.name, self.key, text)
        self.until = until

    def withdraw(self) -> None:
        self.client.delete_registered_model_tag(self.name, self.key)

    def is_valid(self) -> bool:
        """Whether it has not run out, and nobody took it for that of a holder that died."""
        return time.time() < self.until and self.key in _tickets(self.client, self.name)

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Keep it valid meanwhile; afterwards no thread is left that could write it again."""
        thread = threading.Thread(target=self._renew, name=f"lease of {self.name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._given_up.set()
            thread.join()

    def _renew(self) -> None:
        from mlflow.exceptions import MlflowException

        while not self._given_up.wait(self.valid_seconds / 3):
            ends = self.until
            try:
                if not self.is_valid():
                    return
                self.write()
            except (MlflowException, OSError):  # what cannot be reached now is asked again until it runs out
                continue
            if time.time() >= ends:  # too late: another may have taken the lease before this was written
                self.until = 0.0
                return


def _leases() -> dict[str, _Ticket]:
    """What this thread holds, by registered model."""
    leases: dict[str, _Ticket] = _held.__dict__.setdefault("leases", {})
    return leases


def _take(ticket: _Ticket, end: float) -> None:
    client, name = ticket.client, ticket.name
    while True:
        ticket.write()
        others = {key: text for key, text in _tickets(client, name).items() if key != ticket.key}
        expired = [key for key, text in others.items() if _until(text) < time.time()]
        for key in expired:
            client.delete_registered_model_tag(name, key)
        if len(expired) == len(others):
            return
        ticket.withdraw()
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
