"""An SMTP server on loopback that answers, and misbehaves, as a test tells it to.

``ScriptedSmtp({"RCPT": "550 no", "dot": drop}, {})`` plays the first script on the first connection and the
second on every later one. A script names steps: ``connect``, the verbs (``RCPT a@b.example`` for one
recipient), ``body`` (the body's first line is there) and ``dot``. What happens there is a reply, an action
(``drop``, ``reset``, ``silence``, ``freeze``, ``after(…)``, ``trickle(…)``, ``take``), a list of those, or
``each(…)``. A step that is not named goes well. Nothing waits longer than ``PATIENCE`` seconds, and every
thread ends with the ``with`` block.
"""

import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path

# Self-signed, good for a hundred years, its key beside it: for tests on loopback only.
CERTIFICATE = Path(__file__).with_name("localhost.crt")
PATIENCE = 20
BEAT = 0.02  # seconds between the bytes of a trickle


@dataclass(frozen=True)
class Taken:
    """A message that the server took; ``data`` is what arrived, without the dots that transport adds."""

    sender: str
    recipients: list[str]
    data: bytes

    @property
    def message(self) -> EmailMessage:
        return BytesParser(policy=default).parsebytes(self.data)


class _Over(Exception):
    """The dialogue ended here."""


def drop(session: "Session") -> None:
    """Close the connection, as a server does that stops."""
    raise _Over


def reset(session: "Session") -> None:
    """Break the connection with a RST, as a host does that crashed."""
    session.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise _Over


def silence(session: "Session") -> None:
    """Never answer, but read on, until the client goes away."""
    while session.sock.recv(65536):
        pass
    raise _Over


def freeze(session: "Session") -> None:
    """Never answer, and read nothing either."""
    session.server.stopping.wait(PATIENCE)
    raise _Over


def take(session: "Session") -> None:
    """Keep the message, and say nothing."""
    session.keep()


def after(seconds: float) -> Callable[["Session"], None]:
    """Let ``seconds`` pass."""

    def waiting(session: "Session") -> None:
        session.server.stopping.wait(seconds)

    return waiting


def trickle(text: str) -> Callable[["Session"], None]:
    """Begin a reply that never ends: ``text`` over and over, byte by byte."""

    def trickling(session: "Session") -> None:
        for char in itertools.cycle(text):
            session.sock.sendall(char.encode())
            if session.server.stopping.wait(BEAT):
                raise _Over

    return trickling


@dataclass(frozen=True)
class each:  # noqa: N801 written like the other actions
    """The first action the first time on a connection, and so on; the last one stays."""

    actions: tuple

    def __init__(self, *actions: object) -> None:
        object.__setattr__(self, "actions", actions)


class Session:
    """One connection: ``commands`` is what the client said, without its messages.

    ``pipelined`` says whether it ever said more before it had the answer.
    """

    def __init__(self, server: "ScriptedSmtp", sock: socket.socket, script: dict) -> None:
        self.server = server
        self.sock = sock
        self.commands: list[str] = []
        self.ended = False
        self.pipelined = False
        self._script = script
        self._count: dict[str, int] = {}
        self._file = sock.makefile("rb")
        self._sender, self._recipients, self._data = "", [], b""

    def run(self) -> None:
        with suppress(_Over, OSError):
            self._dialogue()
        self._file.close()
        self.sock.close()
        with self.server.changed:
            self.ended = True
            self.server.changed.notify_all()

    def hang_up(self) -> None:
        """Close the connection from the test's thread: the client has it before this returns."""
        self.sock.shutdown(socket.SHUT_RDWR)

    def say(self, text: str) -> None:
        self.sock.sendall(text.replace("\n", "\r\n").encode("latin-1") + b"\r\n")

    def verbs(self) -> list[str]:
        return [command.split(" ")[0].upper() for command in self.commands]

    def keep(self) -> None:
        with self.server.changed:
            self.server.taken.append(Taken(self._sender, list(self._recipients), self._data))
            self.server.changed.notify_all()

    def _dialogue(self) -> None:
        if self.server.tls == "implicit":
            self._secure()
        self._play("connect", "220 scripted.example ready")
        while line := self._file.readline():
            command = line.decode("latin-1").rstrip("\r\n")
            with self.server.changed:
                self.commands.append(command)
                self.server.changed.notify_all()
            verb = command.split(" ")[0].upper()
            self.pipelined |= self._more_is_there()
            getattr(self, f"_on_{verb.lower()}", self._on_other)(verb, command)

    def _more_is_there(self) -> bool:
        """Whether the next line came together with this one."""
        self.sock.setblocking(False)
        try:
            return bool(self._file.peek(1))
        except (BlockingIOError, ssl.SSLWantReadError, OSError):
            return False
        finally:
            self.sock.settimeout(PATIENCE)

    def _on_ehlo(self, verb: str, command: str) -> None:
        lines = ["scripted.example", *self.server.extensions]
        self._play(verb, "\n".join(f"250-{line}" for line in lines[:-1]) + f"\n250 {lines[-1]}")

    def _on_starttls(self, verb: str, command: str) -> None:
        if self._play(verb, "220 go ahead").startswith("220"):
            self._secure()

    def _on_auth(self, verb: str, command: str) -> None:
        self._play(verb, "235 welcome")

    def _on_mail(self, verb: str, command: str) -> None:
        if self._play(verb, "250 fine").startswith("2"):
            self._sender, self._recipients = _address(command), []

    def _on_rcpt(self, verb: str, command: str) -> None:
        one = f"RCPT {_address(command)}"
        if self._play(one if one in self._script else verb, "250 fine").startswith("2"):
            self._recipients.append(_address(command))

    def _on_data(self, verb: str, command: str) -> None:
        if not self._play(verb, "354 go ahead").startswith("354"):
            return
        self._data, lines = b"", []
        while (line := self._file.readline()) != b".\r\n":
            if not line:
                raise _Over
            if not lines:
                self._play("body", "")
            lines.append(line[1:] if line.startswith(b".") else line)
        self._data = b"".join(lines)
        self._play("dot", "250 taken")

    def _on_quit(self, verb: str, command: str) -> None:
        self._play(verb, "221 bye")
        raise _Over

    def _on_other(self, verb: str, command: str) -> None:
        self._play(verb, "250 fine")

    def _play(self, step: str, default: str) -> str:
        """Do what the script says for ``step``; returns the last reply."""
        action = self._script.get(step, default)
        if isinstance(action, each):
            number = self._count[step] = self._count.get(step, 0) + 1
            action = action.actions[min(number, len(action.actions)) - 1]
        said = ""
        for one in action if isinstance(action, list) else [action]:
            if callable(one):
                one(self)
            elif one:
                said = one
                if step == "dot" and said.startswith("2"):
                    self.keep()  # before the client hears of it
                self.say(said)
        return said

    def _secure(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
        self._file.close()
        self.sock = context.wrap_socket(self.sock, server_side=True)
        self._file = self.sock.makefile("rb")


def _address(command: str) -> str:
    return command[command.index("<") + 1 : command.rindex(">")]


class ScriptedSmtp:
    """``with ScriptedSmtp(script, …) as server``: listens on ``server.port``.

    ``extensions`` are EHLO's lines; ``tls`` is ``"implicit"`` for TLS from the first byte (STARTTLS needs
    only its extension). ``sessions`` and ``taken`` grow in the order of events.
    """

    def __init__(self, *scripts: dict, extensions: tuple[str, ...] = ("SIZE",), tls: str = "") -> None:
        self.sessions: list[Session] = []
        self.taken: list[Taken] = []
        self.extensions = extensions
        self.tls = tls
        self.changed = threading.Condition()
        self.stopping = threading.Event()
        self._scripts = scripts or ({},)
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket()
        # A small window, so that a client notices early that nobody reads.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "ScriptedSmtp":
        self._listener.listen()
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        for session in list(self.sessions):
            with suppress(OSError):
                session.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a session of the scripted server did not end"

    def wait_for(self, condition: Callable[["ScriptedSmtp"], bool]) -> None:
        """Return once ``condition(self)`` holds; fails after ``PATIENCE`` seconds."""
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self), PATIENCE), "the server waited in vain"

    def _accept(self) -> None:
        for number in itertools.count():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            session = Session(self, sock, self._scripts[min(number, len(self._scripts) - 1)])
            with self.changed:
                self.sessions.append(session)
                self.changed.notify_all()
            self._start(session.run)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()
