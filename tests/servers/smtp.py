"""A real SMTP server on loopback (aiosmtpd) that keeps what it received, and takes pipelined commands."""

import asyncio
import email
import secrets
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


def free_port() -> int:
    """One below those that the system gives out by itself: nobody else gets it before it is used."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True)
class Received:
    sender: str
    recipients: list[str]
    data: bytes

    @property
    def message(self) -> EmailMessage:
        return email.message_from_bytes(self.data, policy=default)


class _Handler:
    def __init__(self, server: "SmtpServer") -> None:
        self.server = server

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        # It reads line by line and answers each, which is all that it takes; it only does not say so.
        return [responses[0], "250-PIPELINING", *responses[1:]]

    async def handle_MAIL(self, server, session, envelope, address, options):
        if self.server.refuses():
            return "421 4.3.2 not now"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 fine"

    async def handle_DATA(self, server, session, envelope):
        if self.server.delay:
            self.server.held += 1
            await asyncio.sleep(self.server.delay)
        self.server.keep(Received(envelope.mail_from, list(envelope.rcpt_tos), envelope.content))
        return "250 taken"


class SmtpServer:
    """``with SmtpServer() as server``: listens on ``server.port``; ``server.received`` grows.

    It answers to the final dot after ``delay`` seconds, refuses a message whenever ``refuses()``, and wants
    a login if it was given a ``password``.
    """

    def __init__(self, delay: float = 0, port: int | None = None, password: str = "") -> None:
        self.received: list[Received] = []
        self.times: list[float] = []  # by ``time.monotonic``
        self.held = 0  # messages that were not answered at once, see ``delay``
        self.refuses = lambda: False
        self.password = password
        self.delay = delay
        self._lock = threading.Lock()
        self.port = port or free_port()
        login = {"auth_require_tls": False, "authenticator": self._authenticate}
        self._controller = Controller(
            _Handler(self),
            hostname="127.0.0.1",
            port=self.port,
            ready_timeout=60,
            **(login if password else {}),
        )

    def _authenticate(self, server, session, envelope, mechanism, data) -> AuthResult:
        return AuthResult(success=data.password.decode() == self.password, handled=False)

    def keep(self, received: Received) -> None:
        with self._lock:
            self.received.append(received)
            self.times.append(time.monotonic())

    def __enter__(self) -> "SmtpServer":
        self._controller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._controller.stop()

    def counts(self) -> Counter:
        """How often each Message-ID arrived."""
        return Counter(r.message["Message-ID"] for r in list(self.received))

    def wait_for(self, number: int, timeout: float = 30) -> list[Received]:
        """The mails received, once there are ``number`` of them; fails after ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while len(self.received) < number and time.monotonic() < end:
            threading.Event().wait(0.02)
        assert len(self.received) >= number, f"{len(self.received)} of {number} mails arrived in {timeout} s"
        return list(self.received)
