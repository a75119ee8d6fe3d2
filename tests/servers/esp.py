"""An ESP's HTTP API on loopback that answers, and misbehaves, as a test tells it to.

``EspServer((202, {...}), drop)`` gives the first answer to the first request, the second to all later ones.
An answer is ``(status, body)`` or ``(status, body, headers)``, where a dict or list is sent as JSON and a
string as it is; or an action (``drop``, ``cut``, ``silence``). ``server.requests`` is what came.
"""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

PATIENCE = 20


@dataclass(frozen=True)
class Request:
    path: str
    headers: Any  # case-insensitive
    body: bytes
    connection: int  # the same for requests over one connection

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, list[str]]:
        """The fields of a form, in either encoding."""
        kind = self.headers["Content-Type"]
        if kind.startswith("application/x-www-form-urlencoded"):
            return parse_qs(self.body.decode())
        parts = BytesParser(policy=default).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + self.body)
        fields: dict[str, list[str]] = {}
        for part in parts.iter_parts():
            name = part.get_param("name", header="content-disposition")
            fields.setdefault(name, []).append(part.get_content())
        return fields


def drop(handler: "_Handler") -> None:
    """Close the connection without a word."""
    handler.close_connection = True


def cut(handler: "_Handler") -> None:
    """Begin an answer, and close the connection in the middle of it."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": ')
    handler.close_connection = True


def silence(handler: "_Handler") -> None:
    """Never answer."""
    handler.server.stopping.wait(PATIENCE)
    handler.close_connection = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True
    server: "_Server"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        answer = self.server.note(Request(self.path, self.headers, body, self.client_address[1]))
        if callable(answer):
            answer(self)
        else:
            self._answer(*answer)

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        is_json = not isinstance(body, str)
        data = (json.dumps(body) if is_json else body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json" if is_json else "text/html",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, answers: tuple[Any, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._lock = threading.Lock()

    def note(self, request: Request) -> Any:
        with self._lock:
            self.requests.append(request)
            return self.answers[min(len(self.requests), len(self.answers)) - 1]

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that went away


class EspServer:
    """``with EspServer(answer, …) as server``: listens at ``server.url``."""

    def __init__(self, *answers: tuple[Any, ...] | Callable[["_Handler"], None]) -> None:
        self._server = _Server(answers)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    @property
    def requests(self) -> list[Request]:
        return self._server.requests

    def __enter__(self) -> "EspServer":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stopping.set()
        with suppress(OSError):
            self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server did not end"
