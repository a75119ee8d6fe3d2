"""SMTP, keeping what Django's backend drops: each recipient's reply, the phase in which a line broke.

Django's backend opens the connection (its TLS and login options, a project's own way to log in); the mail
transactions (RFC 5321, section 3.3) are ours. One email to several recipients is one transaction.
"""

import smtplib
import socket
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import EmailMessage
from django.core.mail.backends import smtp

from celery_mailer import logs, options
from celery_mailer.addresses import bare
from celery_mailer.deliver.message import wire_bytes
from celery_mailer.deliver.providers.contract import Outgoing, Parcel, Wire
from celery_mailer.deliver.providers.outcomes import broken_line, error_words, opening_exception
from celery_mailer.deliver.providers.patience import Clock, Line, keep_time
from celery_mailer.deliver.providers.pipeline import Command, Conversation, Transaction
from celery_mailer.deliver.providers.returning import return_path
from celery_mailer.deliver.providers.signing import Signer
from celery_mailer.values import Kind, Outcome, Phase, Reply, Result, everyone

STEP_TIMEOUT = 30.0  # seconds for one reply of the server, unless the backend has its own ``timeout``

# Seconds without use after which the line is checked with a NOOP: servers hang up on idle clients
# (RFC 5321, section 4.5.3.2.7: after 5 minutes at the earliest, but many do so sooner). A line that
# does not answer in so long is given up: a new one costs less than waiting.
CHECK_AFTER_IDLE = 5.0
CHECK_TIMEOUT = 5.0

# Seconds without pipelining on new connections, after one on which it may have gone wrong. Not for ever:
# it may have been the network, or one machine of many behind the server's name.
LOCK_STEP = 300.0


class SmtpProvider:
    """A provider over Django's SMTP backend, or a subclass of it that sends as it does."""

    takes_wire = True

    def __init__(self, alias: str, backend: smtp.EmailBackend, rules: options.Provider) -> None:
        self.alias = alias
        self._clock = Clock(backend.timeout or STEP_TIMEOUT)
        self._backend: Any = keep_time(backend, self._clock)
        self._rules = rules
        self._signer = Signer(rules.dkim) if rules.dkim.domain is not None else None
        self._talk: Conversation | None = None
        self._lock_step_until = 0.0
        self._opened_at = self._used_at = 0.0
        self._sent = 0  # messages drawn for this connection
        self._lines_lost = 0  # messages in a row under which the line failed

    def open(self, timeout: float) -> Reply | None:
        if self._talk is not None and self._fit(timeout):
            self._talk.resume()
            return None
        self.close()
        self._clock.start(timeout)
        try:
            self._backend.timeout = self._clock.left()
            self._backend.open()
            if self._backend.connection is not None:
                self._backend.connection.ehlo_or_helo_if_needed()
        except BaseException as error:
            self.close()
            if isinstance(error, SoftTimeLimitExceeded) or not isinstance(error, Exception):
                raise
            return opening_exception(error)
        if self._backend.connection is None:  # a backend with fail_silently swallows the reason
            self.close()
            return broken_line(Phase.CONNECT, "the backend opened no connection and said nothing")
        self._begin_talk(self._backend.connection)
        return None

    def _begin_talk(self, connection: Any) -> None:
        with suppress(OSError):
            # What is said waits for a reply; Nagle's algorithm would add a delayed ACK (40 ms) to that.
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._opened_at = self._used_at = now = time.monotonic()
        self._sent = 0
        pipelining = connection.has_extn("pipelining") and now >= self._lock_step_until
        self._talk = Conversation(Line(connection, self._clock), pipelining=pipelining)

    def _fit(self, timeout: float) -> bool:
        """Whether the open connection may carry one more message."""
        if self._is_worn():
            return False
        if time.monotonic() - self._used_at < CHECK_AFTER_IDLE:
            return True
        self._clock.start(min(timeout, CHECK_TIMEOUT))
        try:
            code, _ = self._backend.connection.noop()
        except OSError:
            return False
        except BaseException:
            self.abandon()  # interrupted: the answer may still come
            raise
        return bool(code == 250)

    def _is_worn(self) -> bool:
        age = time.monotonic() - self._opened_at
        messages, seconds = self._rules.max_messages_per_connection, self._rules.max_connection_age
        return self._sent >= messages or age > seconds.total_seconds()

    def send(self, message: EmailMessage, recipients: list[str], timeout: float) -> Result:
        deadline = time.monotonic() + timeout
        parcel = Parcel(message, recipients, lambda: True)
        while True:
            results = list(self.send_many(iter([parcel]), deadline - time.monotonic()))
            if results:
                return results[0]
            fault = self.open(deadline - time.monotonic())
            if fault is not None:
                return everyone(recipients, fault, usable=False)

    def send_many(self, parcels: Iterator[Parcel], timeout: float) -> Generator[Result]:
        talk, self._talk = self._talk, None
        if talk is None:
            raise RuntimeError("send before open")
        try:
            for transaction in talk.run(self._transactions(parcels), timeout):
                self._used_at = time.monotonic()
                result = transaction.result()
                usable = self._usable(transaction, result)
                yield result if usable else replace(result, usable=False)
                if not usable:
                    return
            self._talk = None if talk.over else talk
        finally:
            if self._talk is None:
                # Also when interrupted, by a time limit for one: what the server says next would answer to
                # what was under way.
                self.abandon()
            if talk.odd:
                self._lock_step_until = time.monotonic() + LOCK_STEP
                logs.pipelining_off(self.alias, LOCK_STEP)

    def _transactions(self, parcels: Iterator[Parcel]) -> Iterator[Transaction]:
        offers = self._backend.connection.esmtp_features
        for parcel in parcels:
            self._sent += 1
            try:
                sender, data = self._wire(parcel.message)
            except SoftTimeLimitExceeded:
                raise
            except Exception as error:
                reply = Reply(Outcome.REJECTED, Kind.MESSAGE, text=error_words(error))
                yield Transaction(parcel.recipients, parcel.begin, verdict=reply)
            else:
                yield compose(parcel, sender, data, offers)
            if self._is_worn():
                break

    def _wire(self, message: Outgoing) -> tuple[str, bytes]:
        own = return_path(self._rules.return_path, message)
        if not isinstance(message, Wire):
            message = Wire(bare(str(message.from_email)), _lines(wire_bytes(message)))
        data = message.data if message.data.endswith(b"\r\n") else message.data + b"\r\n"
        return own or message.sender, self._signer.sign(data) if self._signer is not None else data

    def _usable(self, transaction: Transaction, result: Result) -> bool:
        """Whether the next email is worth a try.

        Not when the server refuses us, whoever the mail is for, or hung up on a new connection before it
        heard of any recipient. A line that fails later may be this email's doing, so it takes a second
        email in a row to blame the provider.
        """
        self._lines_lost = self._lines_lost + 1 if transaction.lost else 0
        refused = all(reply.kind == Kind.PROVIDER for reply in result.recipients.values())
        refused_at_once = transaction.lost is not None and transaction.phase == Phase.MAIL
        return not (refused or refused_at_once or self._lines_lost > 1)

    def close(self) -> None:
        for connection in self._release():
            # QUIT is a courtesy: the server has answered for every message, so it may neither be waited
            # for nor its reply.
            with suppress(OSError):
                if connection.sock is not None:
                    connection.sock.settimeout(0)
                    connection.putcmd("quit")
            connection.close()

    def abandon(self) -> None:
        for connection in self._release():
            connection.close()

    def _release(self) -> list[smtplib.SMTP]:
        """Take the connections from the backend: the open one, and what a failed ``open`` left half done."""
        self._talk = None
        held = [getattr(self._backend, name, None) for name in ("connection", "_partial_connection")]
        self._backend.connection = self._backend._partial_connection = None
        return [connection for connection in held if connection is not None]


def compose(parcel: Parcel, sender: str, data: bytes, offers: Mapping[str, str]) -> Transaction:
    """The transaction for a server that ``offers`` these extensions: names in lower case, parameters."""
    transaction = Transaction(parcel.recipients, parcel.begin, _transparent(data) + b".\r\n")
    transaction.verdict = _too_large(data, offers) or _unsayable(sender, offers)
    transaction.refused = {r: no for r in parcel.recipients if (no := _unsayable(r, offers))}
    named = [r for r in parcel.recipients if r not in transaction.refused]
    if named and transaction.verdict is None:
        parameters = _parameters(data, [sender, *named], offers)
        transaction.commands.append(Command(Phase.MAIL, f"MAIL FROM:<{sender}>{parameters}\r\n".encode()))
        transaction.commands.extend(Command(Phase.RCPT, f"RCPT TO:<{r}>\r\n".encode(), r) for r in named)
        transaction.commands.append(Command(Phase.DATA, b"DATA\r\n"))
    return transaction


def _too_large(data: bytes, offers: Mapping[str, str]) -> Reply | None:
    """RFC 1870, section 5: the server would refuse it, at the latest when it has taken it all."""
    most = offers.get("size", "")
    if not most.isdecimal() or not 0 < int(most) < len(data):  # zero: there is a limit, but not a fixed one
        return None
    words = f"the message has {len(data)} bytes, the server takes {int(most)} (SIZE, RFC 1870)"
    return Reply(Outcome.REJECTED, Kind.CONTENT, Phase.MAIL, text=words)


def _unsayable(address: str, offers: Mapping[str, str]) -> Reply | None:
    """Why ``address`` cannot be written in a command. The doors let none through that would need SMTPUTF8."""
    if not address.isprintable():
        words = "an address has control characters"
    elif not address.isascii() and "smtputf8" not in offers:
        words = "an address is not ASCII, which the server does not take (SMTPUTF8, RFC 6531)"
    else:
        return None
    return Reply(Outcome.REJECTED, Kind.MESSAGE, text=words)


def _parameters(data: bytes, addresses: list[str], offers: Mapping[str, str]) -> str:
    """What MAIL says of the message: its size, so that the server can refuse it before it is sent (RFC 1870,
    section 4), octets above 127 (RFC 6152), addresses that are not ASCII (RFC 6531, section 3.4)."""
    size = f" SIZE={len(data)}" if "size" in offers else ""
    body = " BODY=8BITMIME" if "8bitmime" in offers and not data.isascii() else ""
    return size + body + ("" if "".join(addresses).isascii() else " SMTPUTF8")


def _lines(data: bytes) -> bytes:
    """``data`` with CRLF for every line break (RFC 5321, section 2.3.8)."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def _transparent(lines: bytes) -> bytes:
    """``lines`` with a second dot where one begins with a dot (RFC 5321, section 4.5.2)."""
    return (b"\r\n" + lines).replace(b"\r\n.", b"\r\n..")[2:]
