"""What one process queues within a moment shares a chain.

A message costs its publisher, the broker and a worker more than the email in it: one each, a caller spent
half of its time on publishing. So the first call after a quiet moment publishes at once. What the process
commits in the moment after it, in other transactions but for the same lane, waits for that moment's end, and
a thread publishes it together. One mail on an idle system never waits. While calls go on, moments get longer,
up to ``LONGEST``, for the slices to get larger; a full slice leaves at once.

The thread is not a daemon, so a process that ends waits for it. A process that is killed takes the moment's
messages with it, as one killed just before publishing always did: the emails stand, and the dispatcher has
them when their lease's time is over. Who waits for each email's own result gets each its own chain.
"""

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery import current_app
from celery.signals import worker_process_shutdown
from django.db import connections

from celery_mailer import chain, conf

MOMENT = 0.03  # seconds
LONGEST = 0.24


class Moment:
    """Of one lane. Thread-safe."""

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self._lock = threading.Lock()
        self._length = MOMENT
        self._over = float("-inf")
        self._shared = True
        self._waiting: list[UUID] = []
        self._end: threading.Timer | None = None

    def start(self, ids: Sequence[UUID], full: int) -> None:
        """Have ``ids`` published at the moment's end, or now: if it is the first, or if ``full`` wait."""
        chain.start(self._leaving(ids, full), self.priority)

    def flush(self) -> None:
        with self._lock:
            if self._end is not None:
                self._end.cancel()
            waiting, self._waiting, self._end = self._waiting, [], None
            self._length = min(2 * self._length, LONGEST)
            self._over = time.monotonic() + self._length
        chain.start(waiting, self.priority)

    def _leaving(self, ids: Sequence[UUID], full: int) -> Sequence[UUID]:
        with self._lock:
            now = time.monotonic()
            if self._end is None and now >= self._over:
                self._length = MOMENT
                self._over = now + self._length
                self._shared = not _each_for_itself()
                return ids
            if not self._shared or (self._end is None and not self._wait_for_end(self._over - now)):
                return ids
            self._waiting.extend(ids)
            if len(self._waiting) < full:
                return ()
            waiting, self._waiting = self._waiting, []
            return waiting

    def _wait_for_end(self, seconds: float) -> bool:
        # Celery knows the current app by thread.
        end = threading.Timer(seconds, self._publish, [current_app._get_current_object()])  # type: ignore[attr-defined]
        try:
            end.start()
        except RuntimeError:  # the interpreter is about to end
            return False
        self._end = end
        return True

    def _publish(self, app: Any) -> None:
        app.set_current()
        try:
            self.flush()
        finally:
            connections.close_all()  # this thread's: opened if the broker did not take the messages


_moments: dict[int, Moment] = {}


def start(ids: Sequence[UUID], priority: int) -> None:
    """Publish chains for ``ids``, with what else this process starts in that lane at the same time."""
    if ids:
        _moments.setdefault(priority, Moment(priority)).start(ids, conf.get().batch_size)


def _each_for_itself() -> bool:
    return chain.results_are_kept() or bool(current_app.conf.task_always_eager) or not _threads_run()


def _threads_run() -> bool:
    """Whether threads go on after a request: in uWSGI, only if it was told so."""
    uwsgi = sys.modules.get("uwsgi")
    return uwsgi is None or bool({"enable-threads", "threads"} & set(uwsgi.opt))


def _flush(**_: object) -> None:
    for moment in list(_moments.values()):
        moment.flush()


# A pool's process ends without waiting for its threads.
worker_process_shutdown.connect(_flush, weak=False)
# What waits in the parent is the parent's to publish.
os.register_at_fork(after_in_child=_moments.clear)
