"""An end to every wait: smtplib's timeout is for each read of the socket, and so bounds nothing in all.

A server that sends a byte now and then would hold a worker for hours, whose lease ran out over mail that
it still hands over. With a ``Clock``, one reply takes a step's time at most, and all of them together the
time until its deadline.
"""

import io
import smtplib
import socket
import ssl
import time
from contextlib import suppress
from functools import cache, partial
from typing import Any

from django.core.mail.backends import smtp

CHUNK = 16 * 1024  # bytes: the largest TLS record (RFC 8446, section 5.1), for which one timeout holds
MAX_LINE = 8192  # bytes of one line of a reply; RFC 5321, section 4.5.3.1.5, allows 512


class Clock:
    """What is left of the time for the step under way. Seconds, by ``time.monotonic``."""

    def __init__(self, step: float) -> None:
        self.step = step  # what a server may take for one reply
        self._deadline = self._until = 0.0

    def start(self, seconds: float) -> None:
        """All steps from now on must end within ``seconds``."""
        self._deadline = time.monotonic() + seconds
        self.next_step()

    def next_step(self) -> None:
        self._until = min(time.monotonic() + self.step, self._deadline)

    def last_step(self) -> None:
        """The step that begins now may take all that is left."""
        self._until = self._deadline

    def left(self) -> float:
        """How long the step may still take. Raises ``TimeoutError`` if that is no time at all."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("took too long")
        return left


def keep_time(backend: smtp.EmailBackend, clock: Clock) -> smtp.EmailBackend:
    """Let the connections that ``backend`` opens obey ``clock``, from the greeting on.

    The backend comes ready made (out of ``MAILERS``), perhaps of a project's own class: so its class is
    extended in place. A subclass that opens connections its own way keeps smtplib's timeouts.
    """
    base: Any = type(backend)

    class Punctual(base):  # type: ignore[misc]
        @property
        def connection_class(self) -> Any:
            kind = super().connection_class
            known = isinstance(kind, type) and issubclass(kind, smtplib.SMTP)
            return partial(_punctual(kind), clock) if known else kind

    backend.__class__ = Punctual
    return backend


class _PunctualSMTP(smtplib.SMTP):
    def __init__(self, clock: Clock, *args: Any, **kwargs: Any) -> None:
        self.clock = clock
        super().__init__(*args, **kwargs)

    def putcmd(self, cmd: str, args: str = "") -> None:
        self.clock.next_step()
        super().putcmd(cmd, args)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:  # a new connection, or TLS begins
            self.file = io.BufferedReader(_Reader(self.sock, self.clock))
        return super().getreply()


@cache
def _punctual(kind: type[smtplib.SMTP]) -> Any:
    return type(f"Punctual{kind.__name__}", (_PunctualSMTP, kind), {})


class _Reader(io.RawIOBase):
    """A socket's incoming side, each read of which waits for what is left of the step."""

    def __init__(self, sock: Any, clock: Clock) -> None:
        self._sock = sock
        self._clock = clock
        self.patient = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._clock.left() if self.patient else 0)
        _acknowledge_at_once(self._sock)
        try:
            return int(self._sock.recv_into(buffer))
        except (BlockingIOError, ssl.SSLWantReadError):
            return None  # what a raw stream says when nothing is there (`io.RawIOBase`)


def _acknowledge_at_once(sock: socket.socket) -> None:
    """A server that writes its replies to a group one by one, with Nagle's algorithm on, waits before the
    second for the acknowledgement of the first, which Linux holds back for 40 ms: measured, per message.
    The option lasts for one read or so (tcp(7)), and exists on Linux only."""
    if hasattr(socket, "TCP_QUICKACK"):
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class Line:
    """An open session's two directions: what is sent, and the replies, one by one."""

    def __init__(self, connection: smtplib.SMTP, clock: Clock) -> None:
        self.clock = clock
        self._sock: Any = connection.sock
        self._reader = _Reader(self._sock, clock)
        self._file = io.BufferedReader(self._reader)
        connection.file = self._file  # of whatever class it is; what the server said unasked is dropped

    def write(self, data: bytes) -> int:
        """Send ``data``; returns how many bytes the system took, fewer than all if the line fails.

        What it did not take did not leave. Why it failed is for the next reply to say: a server that has
        had enough often gives its reason before it hangs up.
        """
        view, taken = memoryview(data), 0
        try:
            while taken < len(data):
                self._sock.settimeout(self.clock.left())
                taken += self._sock.send(view[taken : taken + CHUNK])
        except OSError:
            pass
        return taken

    def reply(self) -> tuple[int, bytes]:
        """The next reply's code and words (RFC 5321, section 4.2); -1 for what is no reply.

        Raises ``OSError`` if the line ends before the reply does, or the clock's step before both.
        """
        line = self._said()
        words, code = [line[4:].strip()], line[:3]
        while line[3:4] == b"-":
            line = self._said()
            words.append(line[4:].strip())
            code = code if line.startswith(code) else b""  # one reply has one code, in each of its lines
        return int(code) if code.isdigit() else -1, b"\n".join(words)

    def _said(self) -> bytes:
        line = self._file.readline(MAX_LINE + 1)
        if not line.endswith(b"\n"):
            raise ConnectionError("too long a line" if len(line) > MAX_LINE else "the server hung up")
        return line

    def quiet(self) -> bool:
        """Whether the server has said nothing that was not read."""
        self._reader.patient = False
        try:
            return not self._file.peek(1)
        except OSError:
            return True  # what is said on it from now on will fail, and tell
        finally:
            self._reader.patient = True
