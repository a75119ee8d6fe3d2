"""What a store of limits is, whatever it is made of.

Times and durations are whole microseconds; times count from 1970 by the store's own clock.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple, Protocol

from celery_mailer import conf

SECOND = 1_000_000


def moment(time: int) -> datetime:
    """``time`` as the project's rows have it: naive local time without ``USE_TZ``."""
    seconds, rest = divmod(time, SECOND)
    return datetime.fromtimestamp(seconds, UTC if conf.use_tz() else None) + timedelta(microseconds=rest)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limit. Without an ``interval`` and a ``quota`` it only stops what is held, or slowed down.

    ``interval`` lies between two units on average; a unit may come up to ``tolerance`` before its time, which
    is what makes bursts, and makes good what came late. ``quota`` units may be used in any 24 hours. Units
    of a ``bookable`` bucket are given for a time ahead, because its owner sends one email after the other; of
    another bucket, only those that are free by then.
    """

    key: str
    interval: int = 0
    tolerance: int = 0
    quota: int = 0
    bookable: bool = False


Ask = Mapping[Bucket, int]  # what one hand-over takes: units (recipients) of each bucket


class Turn(IntEnum):
    NOW = 0  # the units were taken, for a time within reach
    SOON = 1  # nothing was taken; worth asking again in a moment
    LATER = 2  # nothing was taken; it stands in the line, to come again at its time


class Verdict(NamedTuple):
    """The answer for one hand-over: when, and, if it must wait, for which bucket."""

    turn: Turn
    at: int
    by: Bucket | None


class Level(NamedTuple):
    """How full one bucket is: for people to see; nothing is decided by it."""

    tat: int  # when its next unit is due on average (GCRA); in the past: it is idle
    pace: float  # the part of its rate that it is left with
    used: int  # units of its quota, in the last 24 hours
    places: int  # connections


class Buckets(Protocol):
    """A store. Each method is one step that no other caller can come between.

    A store that cannot be reached raises what its client raises.
    """

    def take(self, asks: Sequence[Ask], within: int, patience: int, token: str) -> tuple[int, list[Verdict]]:
        """The time, and a verdict for each of ``asks``, which are served in their order.

        All units of a hand-over are taken, or none; the times of what is taken do not decrease. Units are
        booked up to ``within`` ahead. What would be free in more than ``patience`` gets a place in the line:
        the line only spreads when they come again, and keeps no units for them.
        """

    def give_back(self, spent: Iterable[tuple[Ask, int]], token: str) -> None:
        """Return what ``take`` with ``token`` gave for those times and was not used.

        Units of a quota come back. Those of a rate do unless somebody booked behind them: to hand them out
        again at a later time would make that time too busy.
        """

    def hold(self, key: str, duration: int) -> None:
        """Let nothing through the bucket for ``duration`` from now; a longer hold stays."""

    def slow_down(self, key: str) -> None:
        """Halve the bucket's rate, which then grows back (``rules``)."""

    def connect(self, key: str, token: str, size: int, lease: int) -> bool:
        """Whether ``token`` has one of ``size`` places, from now for ``lease``. To ask again is to renew."""

    def release(self, key: str, token: str) -> None:
        """Free the place of ``token``, if it has one."""

    def look(self, keys: Collection[str]) -> tuple[int, dict[str, Level]] | None:
        """The time, and the level of each of ``keys``; ``None`` while nobody can say. Changes nothing."""
