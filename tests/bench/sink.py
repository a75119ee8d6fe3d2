"""A fast SMTP server that keeps no mail, but knows each that came: its Message-ID, its recipients, the time.

It takes pipelined commands (RFC 2920). ``delay`` seconds pass before each answer, as on a long line: what
arrives together is answered together, and meanwhile more may be on its way.
"""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

GREETING = b"220 sink.example ESMTP\r\n"
EHLO = b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 20000000\r\n"
FINE, GO_AHEAD, BYE, WHAT = b"250 OK\r\n", b"354 go ahead\r\n", b"221 bye\r\n", b"500 what?\r\n"
DOT = b"\r\n.\r\n"
_MESSAGE_ID = re.compile(rb"^message-id:\s*(\S+)", re.IGNORECASE | re.MULTILINE)


@dataclass
class Received:
    """What came since the last reset."""

    message_ids: list[bytes] = field(default_factory=list)
    recipients: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    size: int = 0
    connections: int = 0

    def keep(self, data: bytes, recipients: list[bytes]) -> None:
        found = _MESSAGE_ID.search(data, 0, max(data.find(b"\r\n\r\n"), 0))
        self.message_ids.append(found[1] if found else b"")
        self.recipients.extend(recipients)
        self.times.append(time.monotonic())
        self.size += len(data)

    def summary(self) -> dict:
        """``wrong`` names what came twice or without a Message-ID, at most a few of them."""
        counts = Counter(self.message_ids) + Counter(self.recipients)
        wrong = [name.decode() or "no Message-ID" for name, n in counts.items() if n > 1 or not name]
        return {
            "mails": len(self.times),
            "recipients": len(set(self.recipients)),
            "wrong": wrong[:5],
            "times": self.times,
            "size": self.size / max(len(self.times), 1),
            "connections": self.connections,
        }


class Smtp(asyncio.Protocol):
    def __init__(self, server: "Server") -> None:
        self.server = server
        self.buffer = b""
        self.in_data = False
        self.to: list[bytes] = []

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.server.received.connections += 1
        self.answer(GREETING)

    def answer(self, replies: bytes) -> None:
        if self.server.delay:
            asyncio.get_running_loop().call_later(self.server.delay, self.transport.write, replies)
        else:
            self.transport.write(replies)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        replies = []
        while (reply := self.body() if self.in_data else self.command()) is not None:
            replies.append(reply)
        if replies:
            self.answer(b"".join(replies))
        if replies and replies[-1] is BYE:
            asyncio.get_running_loop().call_later(self.server.delay, self.transport.close)

    def body(self) -> bytes | None:
        end = self.buffer.find(DOT)
        if end < 0:
            return None
        data, self.buffer = self.buffer[: end + 2], self.buffer[end + len(DOT) :]
        self.in_data = False
        self.server.keep(data, self.to)
        return FINE

    def command(self) -> bytes | None:
        end = self.buffer.find(b"\r\n")
        if end < 0:
            return None
        line, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
        match line[:4].upper():
            case b"RCPT":
                self.to.append(line[line.find(b"<") + 1 : line.rfind(b">")])
            case b"MAIL" | b"RSET" | b"HELO":
                self.to = []
            case b"DATA":
                self.in_data = True
                return GO_AHEAD
            case b"EHLO":
                return EHLO
            case b"QUIT":
                return BYE
            case verb if verb != b"NOOP":
                return WHAT
        return FINE


class Server:
    """The SMTP side, and on a second port what the harness asks: ``reset``, ``wait N``, ``report``."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.received = Received()
        self.wanted = 0
        self.there = asyncio.Event()

    def keep(self, data: bytes, recipients: list[bytes]) -> None:
        self.received.keep(data, recipients)
        if len(self.received.times) >= self.wanted:
            self.there.set()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        verb, _, value = (await reader.readline()).decode().strip().partition(" ")
        answer = await getattr(self, f"on_{verb}")(value)
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def on_reset(self, delay: str) -> None:
        self.delay, self.received = float(delay), Received()

    async def on_wait(self, number: str) -> float:
        self.wanted = int(number)
        self.there.clear()
        if len(self.received.times) < self.wanted:
            await self.there.wait()
        return self.received.times[-1]

    async def on_report(self, _: str) -> dict:
        return self.received.summary()

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        smtp = await loop.create_server(lambda: Smtp(self), "127.0.0.1", 0, backlog=512)
        control = await asyncio.start_server(self.control, "127.0.0.1", 0)
        print(json.dumps([s.sockets[0].getsockname()[1] for s in (smtp, control)]), flush=True)
        async with smtp, control:
            await asyncio.gather(smtp.serve_forever(), control.serve_forever())


class Sink:
    """The server in a process of its own, for the harness: ``with Sink() as sink``, SMTP at ``sink.port``."""

    def __enter__(self) -> "Sink":
        argv = [sys.executable, __file__]
        self.popen = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.port, self.control = json.loads(self.popen.stdout.readline())
        return self

    def __exit__(self, *exc: object) -> None:
        self.popen.kill()
        self.popen.wait(10)
        self.popen.stdout.close()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def reset(self, delay: float = 0) -> None:
        """Forget what came; from now on each answer takes ``delay`` seconds."""
        self._ask(f"reset {delay}")

    def wait(self, number: int, timeout: float) -> float:
        """The time (``time.monotonic``) of the last mail, once ``number`` came; raises ``TimeoutError``."""
        return self._ask(f"wait {number}", timeout)

    def report(self) -> dict:
        return self._ask("report")

    def _ask(self, command: str, timeout: float = 30):
        with (
            socket.create_connection(("127.0.0.1", self.control), timeout) as sock,
            sock.makefile("r") as lines,
        ):
            sock.sendall(command.encode() + b"\n")
            return json.loads(lines.readline())


def main(argv: Sequence[str] = ()) -> None:
    asyncio.run(Server(delay=float(argv[0]) if argv else 0).serve())


if __name__ == "__main__":
    main(sys.argv[1:])
