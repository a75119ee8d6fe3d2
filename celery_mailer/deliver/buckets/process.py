"""Limits of this process alone: for tests, and for the time that Redis does not answer."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from celery_mailer.deliver.buckets import rules
from celery_mailer.deliver.buckets.contract import Ask, Level, Verdict
from celery_mailer.deliver.buckets.rules import State

TIDY_EVERY = 1_000  # buckets that were opened, after which the idle ones are forgotten


def wall_clock() -> int:
    return time.time_ns() // 1_000


class ProcessBuckets:
    """``Buckets`` on states in memory; the base of any store that can lock its states (``open``)."""

    def __init__(self, clock: Callable[[], int] = wall_clock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._states: dict[str, State] = {}
        self._opened = 0

    @contextmanager
    def open(
        self, keys: Collection[str], quiet: Collection[str] = frozenset()
    ) -> Iterator[Mapping[str, State]]:
        """The states of ``keys``, which nobody else sees until the end of the block; changes are kept.

        Those that are ``quiet`` change only where they are slowed down.
        """
        with self._lock:
            self._opened += len(keys)
            if self._opened >= TIDY_EVERY:
                now, self._opened = self.clock(), 0
                self._states = {k: s for k, s in self._states.items() if s.useful_until() > now}
            yield {key: self._states.setdefault(key, State()) for key in keys}

    def take(self, asks: Sequence[Ask], within: int, patience: int, token: str) -> tuple[int, list[Verdict]]:
        buckets = {bucket for ask in asks for bucket in ask}
        quiet = {bucket.key for bucket in buckets if not (bucket.interval or bucket.quota)}
        with self.open({bucket.key for bucket in buckets}, quiet) as states:
            now = self.clock()
            return now, rules.take(asks, states, now, within, patience, token)

    def give_back(self, spent: Iterable[tuple[Ask, int]], token: str) -> None:
        spent = list(spent)
        with self.open({bucket.key for ask, _ in spent for bucket in ask}) as states:
            rules.give_back(spent, states, self.clock(), token)

    def hold(self, key: str, duration: int) -> None:
        with self.open([key]) as states:
            rules.hold(states[key], self.clock(), duration)

    def slow_down(self, key: str) -> None:
        with self.open([key]) as states:
            rules.slow_down(states[key], self.clock())

    def connect(self, key: str, token: str, size: int, lease: int) -> bool:
        with self.open([key]) as states:
            return rules.connect(states[key], self.clock(), token, size, lease)

    def release(self, key: str, token: str) -> None:
        with self.open([key]) as states:
            rules.release(states[key], token)

    def look(self, keys: Collection[str]) -> tuple[int, dict[str, Level]] | None:
        with self._lock:
            now = self.clock()
            return now, {key: rules.level(self._states.get(key) or State(), now) for key in keys}
