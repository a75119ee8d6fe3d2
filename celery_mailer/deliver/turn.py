"""How long a slice goes on, and whether it keeps anybody waiting.

A slice gives way to other lanes after ``SECONDS``. An urgent mail may have to wait for about three tasks of a
worker's (one that runs and one fetched ahead, twice), so this is a third of the second we promise. But each
slice costs the database and Celery as much as a dozen emails, and the server a break in what is pipelined;
with a server that is far away only a dozen fit into one. So where a slice can see that nobody else waits, it
goes on, and looks again as often. If not even its own lane has anything, workers may be idle beside it: it
passes on half of what it has left.
"""

import threading
import time
from collections.abc import Collection
from enum import Enum
from uuid import UUID

from celery import Celery

from celery_mailer import routing
from celery_mailer.broker import outstanding
from celery_mailer.deliver.fetched import fetched

SECONDS = 0.3
LONGEST = 3.0


class Waiting(Enum):
    """What waits for the worker beside the slice that runs."""

    NOTHING = "nothing"
    SAME = "more of its lane"
    OTHERS = "tasks of other queues, or nobody knows"


class Others:
    """What else there is for the workers of ``lane`` to do."""

    def __init__(self, app: Celery, lane: str | None) -> None:
        self.app = app
        self.lane = lane

    def waiting(self) -> Waiting:
        if self.lane is None:
            return Waiting.OTHERS
        here = fetched(self.lane)
        if here is None or here.others:
            return Waiting.OTHERS
        there = _queues.waiting(self.app, self.lane)
        return Waiting.SAME if here.same and there is Waiting.NOTHING else there

    def pass_on(self, ids: Collection[UUID]) -> None:
        """Leave ``ids`` to whoever is free, after what waits in the lane."""
        routing.deliver_rest(self.app, ids, self.lane)


class Turn:
    """The time that a slice has: ``seconds``, or up to ``LONGEST`` while no ``others`` wait."""

    def __init__(self, seconds: float, others: Others | None) -> None:
        now = time.monotonic()
        self._others = others
        self._seconds = seconds
        self._ask_at = now + seconds
        self._idle = False
        goes_on = others is not None and others.waiting() is not Waiting.OTHERS
        self._end = now + (LONGEST if goes_on else seconds)

    def left(self) -> float:
        """Seconds to plan with."""
        return self._end - time.monotonic()

    def over(self) -> bool:
        now = time.monotonic()
        if self._others is not None and self._ask_at <= now < self._end:
            self._ask_at = now + self._seconds
            waiting = self._others.waiting()
            self._idle = waiting is Waiting.NOTHING
            if waiting is Waiting.OTHERS:
                self._end = now
        return now >= self._end

    def idle(self) -> Others | None:
        """The others, if nothing waited when it was last looked; said once for each look."""
        told, self._idle = self._idle, False
        return self._others if told else None


class _Queues:
    """What the broker said of its queues, for all slices of the process: to ask costs as much as an email."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_at: dict[str, float] = {}
        self._said: dict[str, Waiting] = {}

    def waiting(self, app: Celery, lane: str) -> Waiting:
        """What those that this worker serves hold. That they hold nothing, only one slice is told."""
        with self._lock:
            now = time.monotonic()
            if now - self._asked_at.get(lane, float("-inf")) < SECONDS:
                known = self._said[lane]
                return Waiting.SAME if known is Waiting.NOTHING else known
            self._asked_at[lane] = now
            others = outstanding(*(name for name in app.amqp.queues.consume_from if name != lane))
            if others != 0:
                self._said[lane] = Waiting.OTHERS
            else:
                self._said[lane] = Waiting.NOTHING if outstanding(lane) == 0 else Waiting.SAME
            return self._said[lane]


_queues = _Queues()
