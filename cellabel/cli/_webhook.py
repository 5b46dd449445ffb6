"""A receiver of alerts on this machine, so that a demo shows what arrives at a laboratory's webhook."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from cellabel.cli._services import LOCALHOST

__all__ = ["Webhook"]

LARGEST_BODY = 1_000_000


class Webhook:
    """Listens while its block lasts; every alert that arrives becomes a line of a file.

    Args:
        file: JSON lines, appended.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._server = ThreadingHTTPServer((LOCALHOST, 0), _handler(file))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """As apprise takes it."""
        return f"json://{LOCALHOST}:{self._server.server_port}/"

    @property
    def received(self) -> list[dict[str, Any]]:
        """What has arrived, also in earlier runs over this file."""
        if not self.file.exists():
            return []
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def __enter__(self) -> Webhook:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(file: Path) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(min(length, LARGEST_BODY))
            try:
                content = json.dumps(json.loads(body))
            except ValueError:
                self.send_error(400, "not JSON")
                return
            with lock, file.open("a") as lines:
                lines.write(content + "\n")
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """The file is the log."""

    return Handler
