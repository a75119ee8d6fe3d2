"""The broker, and the workers behind it, asked with bounded patience."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from celery import current_app
from kombu import Connection
from kombu.exceptions import OperationalError

PATIENCE = 2  # seconds for a connection, and for each answer on it
WORKERS_HAVE = 1.0  # seconds to answer

REDIS_TRANSPORTS = ("redis", "rediss", "sentinel")


class Unreachable(Exception):
    """The broker cannot be used; the message is its client's."""


@contextmanager
def connected(timeout: int = PATIENCE) -> Iterator[Connection]:
    """A connection to the broker, whatever patience the project itself has set.

    Raises ``Unreachable`` where there is none to be had, and where it breaks.
    """
    options: dict[str, Any] = {"connect_timeout": timeout}
    if is_redis():
        options["transport_options"] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    try:
        with current_app.connection_for_write(heartbeat=0, **options) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=timeout)
            yield connection
    except Exception as error:  # each transport has exceptions of its own
        raise Unreachable(f"{type(error).__name__}: {error}") from error


def is_redis() -> bool:
    """Whether the project's broker is Redis, as far as its URL says so."""
    try:
        return current_app.connection_for_write().transport_cls in REDIS_TRANSPORTS
    except (KeyError, ValueError):
        return False  # no URL that Celery knows: Celery says so


def can_ask_workers() -> bool:
    """Whether the broker carries questions to workers; Amazon SQS, for one, does not."""
    return bool(current_app.connection_for_write().supports_exchange_type("fanout"))


def queues_by_worker(timeout: float = WORKERS_HAVE) -> dict[str, list[str]]:
    """The queues that each worker serves, of those that answer within ``timeout`` seconds.

    None, if they cannot be asked. Raises ``Unreachable``.
    """
    with connected() as connection:
        if not can_ask_workers():
            return {}
        inspect = current_app.control.inspect(timeout=timeout, connection=connection)
        answers = inspect.active_queues() or {}
    return {name: sorted(queue["name"] for queue in queues) for name, queues in sorted(answers.items())}


def outstanding(*queues: str) -> int | None:
    """How many messages wait in ``queues``; ``None`` if the broker does not know, or cannot be asked."""
    number = 0
    with current_app.pool.acquire(block=True) as pooled:
        connection: Any = pooled  # celery-types takes it for a producer
        try:
            with connection.channel() as channel:
                for name in queues:
                    with suppress(*connection.channel_errors):  # in Redis, an empty one does not exist
                        number += channel.queue_declare(name, passive=True).message_count
        except (OperationalError, NotImplementedError, *connection.connection_errors):
            return None
    return number
