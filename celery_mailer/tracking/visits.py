"""From a request to the task that writes: opens and clicks wait in this process, and go in bundles.

A view only appends to a queue. A thread publishes what is there, a few times in a second: a message for each
request would cost more than the request, and wait for a broker that does not answer. While the broker is
away, the visits wait here, up to ``MOST``; at the end of the process they are published a last time. What is
lost is what a killed process holds: a fifth of a second, or all since the broker went away. (A file would
outlive the process; but it needs a place that is writable, private and shared by the right processes, which
every installation would have to be asked for.)

Threads must run: in uWSGI, ``enable-threads``.
"""

import atexit
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable
from datetime import datetime
from multiprocessing.util import Finalize
from typing import Any

from celery_mailer import logs
from celery_mailer.chain import PUBLISH_ONCE
from celery_mailer.tokens import Mark
from celery_mailer.tracking.recording import record_visits
from celery_mailer.values import EventKind

MOST = 100_000  # visits that wait for the broker, about 60 MB
BUNDLE = 500  # visits in a message
EVERY = 0.2  # seconds
AGAIN = 2.0  # seconds, after the broker did not take a bundle

Visit = dict[str, Any]


def visit(kind: EventKind, at: datetime, mark: Mark, url: str, machine: bool) -> Visit:
    """What the task has to know, as JSON; of nobody in particular, also not the link."""
    if mark.email_id is not None:
        whose: Visit = {"email": str(mark.email_id), "url": url, "id": uuid.uuid4().hex}
    else:
        whose = {"stream": mark.stream, "batch": str(mark.batch_id) if mark.batch_id else None}
    return {"kind": kind.value, "at": at.isoformat(), "machine": machine, **whose}


def publish(bundle: list[Visit]) -> None:
    record_visits.apply_async((bundle,), **PUBLISH_ONCE)


class Waiting:
    """The visits of this process that no broker has yet."""

    def __init__(self, publish: Callable[[list[Visit]], None], most: int = MOST) -> None:
        self.publish = publish
        self.most = most
        self._begin()

    def _begin(self) -> None:
        """Also of a forked process: what waits in its parent is the parent's to publish."""
        self.visits: deque[Visit] = deque()
        self.lost = 0
        self._publishing = threading.Lock()
        self._filled = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, visit: Visit) -> None:
        """Queue ``visit``; never waits, never raises. When there is no room, it is lost, and that is said."""
        if len(self.visits) >= self.most:
            self.lost += 1
            return
        self.visits.append(visit)
        self._filled.set()
        if self._thread is None:
            # A child of multiprocessing, as the workers of uvicorn and granian are, ends without ``atexit``.
            Finalize(None, self.close, exitpriority=0)
            self._thread = threading.Thread(target=self._run, name="celery_mailer visits", daemon=True)
            self._thread.start()

    def flush(self) -> bool:
        """Publish what waits; false when the broker did not take all of it."""
        with self._publishing:
            while self.visits:
                bundle = [self.visits[i] for i in range(min(BUNDLE, len(self.visits)))]
                try:
                    self.publish(bundle)
                except Exception as error:
                    logs.visits_wait(error, len(self.visits))
                    return False
                for _ in bundle:
                    self.visits.popleft()
            if self.lost:
                logs.visits_lost(self.lost, "for too long")
                self.lost = 0
        return True

    def _run(self) -> None:
        pause = threading.Event()  # never set: a clock that a test can see through
        while True:
            self._filled.wait()
            self._filled.clear()
            pause.wait(EVERY)
            while not self.flush():
                pause.wait(AGAIN)

    def close(self) -> None:
        """At the end of the process."""
        if not self.flush():
            logs.visits_lost(len(self.visits), "when the process ended")


waiting = Waiting(publish)
atexit.register(waiting.close)
os.register_at_fork(after_in_child=waiting._begin)
