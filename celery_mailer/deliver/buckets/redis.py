"""Limits of all workers together, in Redis (or Valkey): each call is one run of one script.

The clock is the server's, so that those of the workers do not matter.
"""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import redis

from celery_mailer.deliver.buckets import rules
from celery_mailer.deliver.buckets.contract import Ask, Bucket, Level, Turn, Verdict
from celery_mailer.deliver.buckets.rules import State
from celery_mailer.deliver.buckets.script import LUA

# The braces keep all keys in one slot of a Redis Cluster, where a script may use no others.
PREFIX = "{celery_mailer}:"


class RedisBuckets:
    """``Buckets`` in the Redis behind ``client``. Raises ``redis.RedisError``."""

    def __init__(self, client: redis.Redis, clock: Callable[[], int] | None = None) -> None:
        self._clock = clock
        self._script = client.register_script(LUA)  # sent by its hash; whole, to a server that forgot it

    def _run(self, step: str, keys: Iterable[str], **request: Any) -> Any:
        now = self._clock() if self._clock else ""
        return self._script([PREFIX + key for key in keys], [step, now, json.dumps(request)])

    def take(self, asks: Sequence[Ask], within: int, patience: int, token: str) -> tuple[int, list[Verdict]]:
        known = _Numbered(asks)
        request = {"asks": [known.units(ask) for ask in asks], "buckets": known.specs()}
        now, *reply = self._run(
            "take", known.keys(), within=within, patience=patience, token=token, **request
        )
        triples = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        return now, [Verdict(Turn(turn), at, known.bucket(by)) for turn, at, by in triples]

    def give_back(self, spent: Iterable[tuple[Ask, int]], token: str) -> None:
        spent = list(spent)
        known = _Numbered([ask for ask, _ in spent])
        numbered = [[at, *known.units(ask)] for ask, at in spent]
        self._run("give_back", known.keys(), token=token, spent=numbered, buckets=known.specs())

    def hold(self, key: str, duration: int) -> None:
        self._run("hold", [key], duration=duration)

    def slow_down(self, key: str) -> None:
        self._run("slow_down", [key])

    def connect(self, key: str, token: str, size: int, lease: int) -> bool:
        return bool(self._run("connect", [key], token=token, size=size, lease=lease))

    def release(self, key: str, token: str) -> None:
        self._run("release", [key], token=token)

    def look(self, keys: Collection[str]) -> tuple[int, dict[str, Level]] | None:
        keys = list(keys)
        now, *found = self._run("look", keys)
        return int(now), {
            key: rules.level(_state(kind, fields), int(now))
            for key, (kind, *fields) in zip(keys, found, strict=True)
        }


def _state(kind: bytes, fields: Sequence[Any]) -> State:
    """What the script keeps as a hash or a sorted set, as ``rules`` has it."""
    names = [name.decode() for name in fields[::2]]
    values = dict(zip(names, fields[1::2], strict=True))
    if kind == b"zset":
        return State(leases={token: int(float(end)) for token, end in values.items()})
    if "tat" not in values:
        return State(hours={hour: int(units) for hour, units in values.items()})
    return State(int(values["tat"]), pace=float(values["pace"]), slowed_at=int(values["slowed_at"]))


class _Numbered:
    """The buckets of several asks, by number: each is written out once. The script counts from 1."""

    def __init__(self, asks: Iterable[Ask]) -> None:
        self._numbers = {bucket: 0 for ask in asks for bucket in ask}
        self._buckets = list(self._numbers)
        self._numbers = {bucket: i for i, bucket in enumerate(self._buckets, start=1)}

    def keys(self) -> list[str]:
        return [bucket.key for bucket in self._buckets]

    def specs(self) -> list[tuple[int, int, int, bool]]:
        return [(b.interval, b.tolerance, b.quota, b.bookable) for b in self._buckets]

    def units(self, ask: Ask) -> list[int]:
        """``ask`` as numbers of buckets, each followed by the units that it takes."""
        return [number for bucket, units in ask.items() for number in (self._numbers[bucket], units)]

    def bucket(self, number: int) -> Bucket | None:
        return self._buckets[number - 1] if number else None
