"""The ground of the benchmark: a private broker, the SMTP sink, databases. All are gone in the end."""

import os
import secrets
import shutil
import tempfile
from pathlib import Path

import psycopg

from tests.bench import measure
from tests.bench.sink import Sink
from tests.servers.broker import Broker

ROOT = Path(__file__).parent.parent.parent
SERVER = os.environ.get("BENCH_POSTGRES", "postgres://postgres@127.0.0.1:5432")


class Ground:
    """``with Ground() as ground``: servers that all contestants share, one after the other."""

    def __enter__(self) -> "Ground":
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-bench-"))
        self.prefix = f"bench_{secrets.token_hex(3)}"
        self.databases: list[str] = []
        self.admin = psycopg.connect(f"{SERVER}/postgres", autocommit=True)
        self.postmaster = measure.parent_of(self.admin.execute("SELECT pg_backend_pid()").fetchone()[0])
        self.broker = Broker()
        self.broker.start()
        self.sink = Sink().__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.sink.__exit__(*exc)
        self.broker.stop()
        for name in self.databases:
            self.admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.admin.close()
        shutil.rmtree(self.folder)

    def create_database(self, label: str) -> str:
        name = f"{self.prefix}_{label}"
        self.admin.execute(f"CREATE DATABASE {name}")
        self.databases.append(name)
        return f"{SERVER}/{name}"

    def drop_database(self, url: str) -> None:
        name = url.rpartition("/")[2]
        self.admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        self.databases.remove(name)

    def flush_broker(self) -> None:
        with self.broker.client() as client:
            client.flushall()

    def servers(self) -> dict[str, list[int]]:
        """The processes that are nobody's: their CPU time is shown apart."""
        return {
            "sink": [self.sink.pid],
            "postgres": [self.postmaster],
            "redis": [self.broker.popen.pid],
        }

    def versions(self) -> dict[str, str]:
        with self.broker.client() as client:
            broker = client.info("server")
        return {
            "PostgreSQL": self.admin.execute("SHOW server_version").fetchone()[0].split()[0],
            "Valkey": broker.get("valkey_version") or broker["redis_version"],
        }
