"""A real SMTP server on loopback. It keeps what it takes, and is unkind to two addresses."""

import email
import socket
from dataclasses import dataclass
from email.policy import default

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

REFUSED = "gone@demo.example"
DEFERRED_ONCE = "busy@demo.example"


@dataclass(frozen=True)
class Received:
    message_id: str
    to: str
    subject: str
    size: int


class MailServer:
    """``with MailServer(port) as server``: ``server.received`` grows while mail comes in."""

    def __init__(self, port: int) -> None:
        self.received: list[Received] = []
        self._deferred: set[str] = set()
        self._controller = Controller(
            self, hostname="127.0.0.1", port=port, server_hostname="mail.demo.example"
        )

    def __enter__(self) -> "MailServer":
        self._controller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._controller.stop()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address == REFUSED:
            return "550 5.1.1 No such person here"
        if address == DEFERRED_ONCE and address not in self._deferred:
            self._deferred.add(address)
            return "451 4.7.1 Greylisted, come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = bytes(envelope.content or b"")
        message = email.message_from_bytes(content, policy=default)
        to = ", ".join(envelope.rcpt_tos)
        self.received.append(Received(message["Message-ID"], to, message["Subject"], len(content)))
        return "250 2.0.0 Taken"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
