"""A small IMAP server (RFC 3501, a part of it) on loopback, with a mailbox that a test fills and looks into.

``ImapServer(messages, tls="implicit")`` speaks TLS from the first byte, ``tls="starttls"`` on demand, by the
certificate of ``localhost.crt``. ``drop_at`` names commands (``STORE``) at which it closes the connection.
"""

import base64
import re
import socketserver
import ssl
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

CERTIFICATE, KEY = (Path(__file__).with_name(f"localhost.{kind}") for kind in ("crt", "key"))
USER, PASSWORD = "bounces", 'p/ä"s\\s'


@dataclass
class Message:
    uid: int
    raw: bytes
    flags: set[str] = field(default_factory=set)


class ImapServer:
    """``with ImapServer(…) as server``: listens on ``server.port``."""

    def __init__(
        self,
        messages: list[bytes],
        *,
        tls: str = "",
        folder: str = "INBOX",
        plain: bool = True,
        host="127.0.0.1",
    ):
        self.messages = [Message(7 + 3 * i, raw) for i, raw in enumerate(messages)]
        self.folder = folder
        self.host = host
        self.plain = plain  # whether AUTHENTICATE PLAIN is offered
        self.drop_at: set[str] = set()
        self.said: Counter[str] = Counter()  # commands
        self.fetched = 0  # bytes
        self.tls = tls
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(CERTIFICATE, KEY)

    def __enter__(self) -> "ImapServer":
        self._server = socketserver.ThreadingTCPServer((self.host, 0), _Session, bind_and_activate=False)
        self._server.imap = self
        self._server.daemon_threads = False  # joined when it closes
        self._server.server_bind()
        self._server.server_activate()
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def flags(self) -> list[set[str]]:
        return [message.flags for message in self.messages]


class _Session(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.imap: ImapServer = self.server.imap
        self.request.settimeout(20)
        self.logged_in = self.selected = False
        with suppress(OSError, EOFError):
            if self.imap.tls == "implicit":
                self._wrap()
            self._file = self.request.makefile("rb")
            self._say("* OK ready")
            while self._command(self._line()):
                pass
        with suppress(AttributeError, OSError):
            self._file.close()
        self.request.close()

    def _wrap(self) -> None:
        self.request = self.imap.context.wrap_socket(self.request, server_side=True)

    def _line(self) -> str:
        line = self._file.readline()
        if not line:
            raise EOFError
        return line.decode().rstrip("\r\n")

    def _say(self, text: str | bytes) -> None:
        self.request.sendall((text if isinstance(text, bytes) else text.encode()) + b"\r\n")

    def _command(self, line: str) -> bool:
        tag, _, rest = line.partition(" ")
        name, _, arguments = rest.removeprefix("UID ").partition(" ")
        self.imap.said[name] += 1
        if name in self.imap.drop_at:
            return False
        if name in ("SEARCH", "FETCH", "STORE"):
            assert rest.startswith("UID ")
            assert self.selected
        answer = getattr(self, f"_{name.lower()}")(arguments)
        self._say(f"{tag} {answer}")
        if name == "STARTTLS":
            self._wrap()
            self._file = self.request.makefile("rb")
        return name != "LOGOUT"

    def _capability(self, _: str) -> str:
        words = "IMAP4rev1" + " AUTH=PLAIN" * self.imap.plain + " STARTTLS" * (self.imap.tls == "starttls")
        self._say(f"* CAPABILITY {words}")
        return "OK done"

    def _starttls(self, _: str) -> str:
        return "OK begin"

    def _authenticate(self, _: str) -> str:
        self._say("+ ")
        return self._let_in(base64.b64decode(self._line()).decode().split("\0")[1:])

    def _login(self, arguments: str) -> str:
        user, password = re.fullmatch(r'(\S+) "((?:\\.|[^"])*)"', arguments).groups()
        return self._let_in([user, re.sub(r"\\(.)", r"\1", password)])

    def _let_in(self, login: list[str]) -> str:
        self.logged_in = login[-1:] == [PASSWORD]
        return "OK welcome" if self.logged_in else f"NO {' '.join(login)} is wrong"  # some repeat it

    def _select(self, arguments: str) -> str:
        self.selected = self.logged_in and arguments == f'"{self.imap.folder}"'
        self._say(f"* {len(self.imap.messages)} EXISTS")
        return "OK [READ-WRITE] selected" if self.selected else "NO there is no such folder"

    def _search(self, arguments: str) -> str:
        assert arguments == "UNSEEN"
        found = [str(m.uid) for m in self.imap.messages if "\\Seen" not in m.flags]
        self._say(" ".join(["* SEARCH", *found]))
        return "OK done"

    def _fetch(self, arguments: str) -> str:
        found = re.fullmatch(r"(\d+) \(BODY\.PEEK\[\]<0\.(\d+)>\)", arguments)
        for number, message in enumerate(self.imap.messages, 1):
            if message.uid == int(found[1]):
                raw = message.raw[: int(found[2])]
                self.imap.fetched += len(raw)
                head = f"* {number} FETCH (UID {message.uid} BODY[]<0> {{{len(raw)}}}\r\n"
                self._say(head.encode() + raw + b")")
        return "OK done"

    def _store(self, arguments: str) -> str:
        uid, _, flags = arguments.split(" ", 2)
        for message in self.imap.messages:
            if message.uid == int(uid):
                message.flags |= set(flags.strip("()").split())
        return "OK done"

    def _logout(self, _: str) -> str:
        self._say("* BYE")
        return "OK bye"
