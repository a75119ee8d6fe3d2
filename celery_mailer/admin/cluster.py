"""What the broker and the workers say, asked in the background: a page never waits for them.

How long an answer takes is not ours to say: Celery's workers have a second to reply, and a broker that hangs
replies never, whatever its client's timeouts are. So one thread asks, a page takes the latest answer, and
while a question hangs no other is asked.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from celery import current_app

from celery_mailer import routing
from celery_mailer.values import Priority

FRESH = 4.0  # seconds for which an answer is not asked for again
PATIENCE = 6.0  # seconds after which a question is taken to hang
REPLIES = 1.0  # seconds that workers have to reply
CONNECT = 2  # seconds that the connection may take, where the broker's client knows of such a limit


@dataclass(frozen=True)
class Answer:
    """``depths``: messages by queue. ``workers``: their queues by name. ``fault``: why there are none."""

    broker: str = ""
    fault: str = ""
    depths: Mapping[str, int] = field(default_factory=dict)
    workers: Mapping[str, list[str]] = field(default_factory=dict)


def ask() -> Answer:
    """Ask the broker and the workers; takes a second where all is well. Raises nothing."""
    address = ""
    try:
        with current_app.connection_for_read(connect_timeout=CONNECT) as connection:
            address = connection.as_uri()  # without its password
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT)
            depths = {queue: _depth(connection, queue) for queue in lanes()}
            found = current_app.control.inspect(timeout=REPLIES, connection=connection).active_queues()
        workers = {name: sorted(queue["name"] for queue in queues) for name, queues in (found or {}).items()}
        return Answer(address, "", depths, workers)
    except Exception as error:  # each transport has its own
        return Answer(address, type(error).__name__)


def lanes() -> list[str]:
    """The queues of the lanes, the most urgent first."""
    return list(dict.fromkeys(routing.lane(priority) for priority in reversed(Priority)))


def _depth(connection: Any, queue: str) -> int:
    """How many messages wait in ``queue``; none in one that nobody has made yet."""
    try:
        with connection.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)
    except connection.channel_errors:
        return 0


class Asker:
    """The latest answer, and one question at a time for the next."""

    def __init__(self, ask: Callable[[], Answer] = ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._thread: threading.Thread | None = None
        self._answer: Answer | None = None

    def latest(self) -> Answer | None:
        """The latest answer; ``None`` while the first one is on its way."""
        with self._lock:
            now = self._clock()
            asking = self._thread is not None and self._thread.is_alive()
            if asking and now - self._asked_at > PATIENCE:
                return Answer(self._answer.broker if self._answer else "", "TimeoutError")
            if not asking and now - self._asked_at >= FRESH:
                self._asked_at = now
                self._thread = threading.Thread(target=self._run, name="celery_mailer.cluster", daemon=True)
                self._thread.start()
        return self._answer

    def wait(self, seconds: float) -> None:
        """Wait until a question that is under way is answered, but no longer."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self) -> None:
        self._answer = self._ask()


asker = Asker()
