"""What the benchmark asks of a contestant. Django is there only in methods that run in its own processes."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tests.bench.config import Config


class Contestant:
    """One way to send. The class is known to the harness and to the settings; neither has its packages."""

    name: ClassVar[str]
    title: ClassVar[str]
    environment: ClassVar[str] = "own"  # whose packages it needs: requirements/<environment>.txt
    apps: ClassVar[tuple[str, ...]] = ()
    stores: ClassVar[str] = ""  # whose tables, of those who keep rows
    pending: ClassVar[str] = ""  # SQL: whether any of its rows is not in its final state
    scale: ClassVar[int] = 1  # a fast one sends so many times as many mails, or nothing could be measured

    def settings(self, config: Config) -> Mapping[str, Any]:
        """Django settings of its own."""
        return {}

    def workers(self, config: Config) -> list[list[str]]:
        """The processes that send, as arguments of Python."""
        return []

    def prepare(self, config: Config, first: int, count: int) -> None:
        """Before the clock starts, in the caller's process."""

    def bulk(self, first: int, count: int) -> None:
        """Send mails ``first`` to ``first + count`` by the best way there is for many."""
        raise NotImplementedError

    def one(self, i: int) -> None:
        """Send mail ``i`` by the way there is for one."""
        raise NotImplementedError

    def drain(self, config: Config) -> None:
        """Send what is queued, for those whose worker is a command."""
        raise NotImplementedError

    def fill(self, cursor: Any, old: int, waiting: int) -> None:
        """Multiply the one mail in the tables: ``old`` that were sent, ``waiting`` for tomorrow."""
        raise NotImplementedError


def celery_worker(config: Config, *options: str) -> list[str]:
    """The arguments of a Celery worker with as many slots as there may be connections."""
    pool = "threads" if config.threads else "prefork"
    slots = ["--pool", pool, "--concurrency", str(config.connections)]
    return ["-m", "celery", "-A", "tests", "worker", "-l", "WARNING", *slots, *options]


def drain_loop(number: int = 1) -> list[list[str]]:
    """A process that drains again and again, as cron would, but without the wait and without the start."""
    return [["-m", "tests.bench.drain"]] * number


def copy_rows(table: str, values: Mapping[str, str], columns: list[str], source: str) -> str:
    """SQL: ``source`` (FROM, with the specimen as ``s``) into ``table``, with ``values`` for some columns."""
    names = ", ".join(f'"{c}"' for c in columns)
    taken = ", ".join(values.get(c, f's."{c}"') for c in columns)
    return f"INSERT INTO {table} ({names}) SELECT {taken} FROM {source}"


def columns_of(model: Any, without: tuple[str, ...] = ()) -> list[str]:
    return [f.column for f in model._meta.local_concrete_fields if f.column not in without]
