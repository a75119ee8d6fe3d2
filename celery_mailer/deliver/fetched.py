"""What a worker has fetched ahead, where those can see it that run its tasks.

Threads ask Celery, which is in their own process. The processes of a pool cannot: it is the worker's main
process that takes messages off the queues. So that one counts what it receives, and each of the others what
it begins, in memory that they share; the difference waits. Each number has one writer: there is no lock that
a killed process could keep. What is received and never begins (it was revoked, or its process was killed
before) counts as waiting for as long as the worker lives, which errs on the careful side.
"""

import mmap
from collections.abc import Mapping
from typing import Any, NamedTuple

from billiard.process import current_process
from celery.signals import (
    task_prerun,
    task_received,
    worker_init,
    worker_process_init,
    worker_shutting_down,
)
from celery.worker import state

from celery_mailer import routing
from celery_mailer.values import Priority

PROCESSES = 512  # of one pool; those above see nothing
LANES = (Priority.HIGH, Priority.MEDIUM, Priority.LOW, None)  # the last: whatever is no lane of ours
STOPPING = len(LANES)  # the column, in the main process's row, that says that the worker is to end
COLUMNS = len(LANES) + 1
MAIN = 0  # the main process's row


class Counts:
    """Tasks by lane: in the first row those that the main process has received, in the others those begun."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, 8 * COLUMNS * (PROCESSES + 1))  # shared with what is forked from now on
        self._numbers = memoryview(memory).cast("Q")

    def add(self, row: int, column: int) -> None:
        self._numbers[row * COLUMNS + column] += 1

    def stopping(self) -> bool:
        return self._numbers[STOPPING] > 0

    def wait(self, column: int) -> bool:
        begun = sum(self._numbers[column + COLUMNS :: COLUMNS])  # first: what comes meanwhile then only adds
        return self._numbers[column] > begun


class Fetched(NamedTuple):
    """Whether there are tasks that were fetched and wait: of one's own queue, and of others."""

    same: bool
    others: bool


class _Here:
    """This process's place in its worker, if it is in one."""

    counts: Counts | None = None
    row: int | None = MAIN  # ``None``: it has none


_here = _Here()


def fetched(lane: str) -> Fetched | None:
    """What waits beside a task of the queue ``lane``; ``None`` if nobody knows, or the worker is to end."""
    if _here.row == MAIN:
        return _seen(lane)
    if _here.row is None or _here.counts is None or _here.counts.stopping():
        return None
    own = _column({"routing_key": lane})
    wait = [_here.counts.wait(column) for column in range(len(LANES))]
    return Fetched(wait.pop(own), any(wait))


def _seen(lane: str) -> Fetched | None:
    """As ``fetched``, in the worker's main process."""
    if {state.should_stop, state.should_terminate} != {None}:
        return None
    try:
        waiting = set(state.reserved_requests) - set(state.active_requests)
    except RuntimeError:  # another thread has just taken one
        return None
    lanes = {request.delivery_info.get("routing_key") for request in waiting}
    return Fetched(lane in lanes, bool(lanes - {lane}))


def _column(delivery_info: Mapping[str, Any] | None) -> int:
    return LANES.index(routing.priority_of((delivery_info or {}).get("routing_key") or ""))


@worker_init.connect(weak=False)
def _prepare(**_: object) -> None:
    """Before the pool's processes are forked."""
    _here.counts = Counts()


@worker_process_init.connect(weak=False)
def _find_row(**_: object) -> None:
    """A process of the pool takes the row of its place, and counts on where the one before it ended."""
    index = getattr(current_process(), "index", PROCESSES)
    _here.row = MAIN + 1 + index if index < PROCESSES else None


@task_received.connect(weak=False)
def _count_received(request: Any, **_: object) -> None:
    # One for later is kept by the main process until then: it waits for nobody.
    if _here.counts is not None and not request.eta:
        _here.counts.add(MAIN, _column(request.delivery_info))


@task_prerun.connect(weak=False)
def _count_begun(task: Any, **_: object) -> None:
    if _here.counts is not None and _here.row and not task.request.eta:
        _here.counts.add(_here.row, _column(task.request.delivery_info))


@worker_shutting_down.connect(weak=False)
def _tell_the_end(**_: object) -> None:
    if _here.counts is not None:
        _here.counts.add(MAIN, STOPPING)
