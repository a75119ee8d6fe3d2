"""What limits mail while the shared store does not answer: this process alone, at a part of each limit.

To let all mail through would break the limits, to let none through would stop the mail. How many processes
there are, nobody can be asked then; a tenth of each limit for each of them keeps it with up to ten, and
mail moves on.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from celery_mailer import logs
from celery_mailer.deliver.buckets.contract import Ask, Bucket, Buckets, Level, Verdict

SHARE = 10  # processes among which a limit is divided
PAUSE = 5.0  # seconds for which a store that failed is not asked again: each time may take a timeout
WARN_EVERY = 60.0  # seconds

T = TypeVar("T")


class Fallback:
    """``Buckets`` that are ``shared``, and ``local`` after one of ``failures``."""

    def __init__(
        self,
        shared: Buckets,
        local: Buckets,
        failures: type[Exception],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared, self._local, self._failures, self._clock = shared, local, failures, clock
        self._ask_again_at = self._warn_again_at = float("-inf")
        self._local_tokens: set[str] = set()

    def _first(self, shared: Callable[[], T], local: Callable[[], T]) -> T:
        if self._clock() >= self._ask_again_at:
            try:
                return shared()
            except self._failures as error:
                self._failed(error)
        return local()

    def _failed(self, error: Exception) -> None:
        now = self._clock()
        self._ask_again_at = now + PAUSE
        if now >= self._warn_again_at:
            self._warn_again_at = now + WARN_EVERY
            logs.limits_without_redis(error, SHARE)

    def take(self, asks: Sequence[Ask], within: int, patience: int, token: str) -> tuple[int, list[Verdict]]:
        def local() -> tuple[int, list[Verdict]]:
            self._local_tokens.add(token)
            return self._local.take([_share(ask) for ask in asks], within, patience, token)

        return self._first(lambda: self._shared.take(asks, within, patience, token), local)

    def give_back(self, spent: Iterable[tuple[Ask, int]], token: str) -> None:
        spent = list(spent)
        if token in self._local_tokens:
            self._local_tokens.discard(token)
            self._local.give_back([(_share(ask), at) for ask, at in spent], token)
        else:
            self._first(lambda: self._shared.give_back(spent, token), lambda: None)

    def hold(self, key: str, duration: int) -> None:
        self._first(lambda: self._shared.hold(key, duration), lambda: self._local.hold(key, duration))

    def slow_down(self, key: str) -> None:
        self._first(lambda: self._shared.slow_down(key), lambda: self._local.slow_down(key))

    def connect(self, key: str, token: str, size: int, lease: int) -> bool:
        return self._first(
            lambda: self._shared.connect(key, token, size, lease),
            lambda: self._local.connect(key, token, max(1, size // SHARE), lease),
        )

    def release(self, key: str, token: str) -> None:
        self._local.release(key, token)
        self._first(lambda: self._shared.release(key, token), lambda: None)

    def look(self, keys: Collection[str]) -> tuple[int, dict[str, Level]] | None:
        # What this process alone has counted meanwhile says nothing about the others.
        return self._first(lambda: self._shared.look(keys), lambda: None)


def _share(ask: Ask) -> Ask:
    return {_part(bucket): units for bucket, units in ask.items()}


def _part(bucket: Bucket) -> Bucket:
    quota = max(1, bucket.quota // SHARE) if bucket.quota else 0
    tolerance = min(bucket.tolerance, bucket.interval)  # no bursts
    return replace(bucket, interval=bucket.interval * SHARE, tolerance=tolerance, quota=quota)
