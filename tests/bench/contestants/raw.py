"""The limit: ready bytes, and nothing but SMTP."""

import smtplib
import socket
import threading
from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import make_msgid
from typing import Any

from tests.bench import workload
from tests.bench.config import Config
from tests.bench.contestants.base import Contestant


class _Raw(Contestant):
    def prepare(self, config: Config, first: int, count: int) -> None:
        self.port = config.smtp_port
        self.connections = config.connections if config.delay else 1
        self.ready = {i: (workload.address(i), _bytes(i)) for i in range(first, first + count)}

    def bulk(self, first: int, count: int) -> None:
        mails = [self.ready[i] for i in range(first, first + count)]
        shares = [mails[n :: self.connections] for n in range(self.connections)]
        threads = [threading.Thread(target=self.send, args=[share]) for share in shares if share]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def send(self, mails: Sequence[tuple[str, bytes]]) -> None:
        raise NotImplementedError


class RawSmtplib(_Raw):
    name = "raw_smtplib"
    title = "raw: smtplib, ready bytes"
    scale = 5

    def send(self, mails: Sequence[tuple[str, bytes]]) -> None:
        with smtplib.SMTP("127.0.0.1", self.port) as connection:
            for recipient, data in mails:
                connection.sendmail(workload.SENDER, [recipient], data)


class RawPipelined(_Raw):
    """RFC 2920, across mails: the next one's commands go out with this one's body."""

    name = "raw_pipelined"
    title = "raw: pipelined (RFC 2920)"
    scale = 10

    def send(self, mails: Sequence[tuple[str, bytes]]) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as sock, sock.makefile("rb") as replies:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _expect(replies, b"220")
            sock.sendall(b"EHLO bench.example\r\n")
            _expect(replies, b"250")
            body = b""
            for recipient, data in mails:
                sock.sendall(body + _envelope(recipient))
                for code in [b"250"] * (3 if body else 2) + [b"354"]:
                    _expect(replies, code)
                body = data + b".\r\n"
            sock.sendall(body + b"QUIT\r\n")
            _expect(replies, b"250")


def _envelope(recipient: str) -> bytes:
    return f"MAIL FROM:<{workload.SENDER}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()


def _expect(replies: Any, code: bytes) -> None:
    while (line := replies.readline())[3:4] == b"-":
        pass
    if not line.startswith(code):
        raise AssertionError(f"expected {code!r}, got {line!r}")


def _bytes(i: int) -> bytes:
    from django.template.loader import render_to_string

    context = workload.context(i)
    message = EmailMessage(policy=SMTP)
    message["Subject"] = render_to_string(workload.SUBJECT, context).strip()
    message["From"], message["To"] = workload.SENDER, workload.address(i)
    message["Message-ID"] = make_msgid(domain="bench.example")
    message.set_content(render_to_string(workload.TEXT, context))
    message.add_alternative(render_to_string(workload.TEMPLATE, context), subtype="html")
    return message.as_bytes()
