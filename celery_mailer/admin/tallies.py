"""How many emails ended, when and how: exact counts of slices of time, each counted once.

To group a million rows takes most of a second, and nobody may wait so long at each refresh. So time is cut
into slices. What has passed is over: its count is kept in the process. Each look counts what is missing,
the newest first, for a bounded time, so that a week of a busy site appears within a few refreshes. A slice
is a range of the index of ``finished_at``, and never more than ``CAP`` of its rows are read.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q
from django.utils import timezone

from celery_mailer.models import Email
from celery_mailer.values import FINAL, Priority, Status

CAP = 100_000  # rows of one slice that are read
BUDGET = 0.1  # seconds that one look may count
OVER = timedelta(
    minutes=1
)  # after its end, a slice changes no more: clocks differ, and commits take a moment
KEPT = 1_000  # slices: a week of hours, and some

MINUTES, HOUR = timedelta(minutes=5), timedelta(hours=1)


@dataclass(frozen=True)
class Tally:
    """Emails by priority and final status. ``cut``: there are more than ``CAP``."""

    numbers: Counter[tuple[int, str]]
    cut: bool = False

    def by_lane(self) -> Counter[int]:
        """What was sent."""
        return Counter({lane: n for (lane, status), n in self.numbers.items() if status == Status.SENT})

    def by_status(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (_, status), number in self.numbers.items():
            found[status] += number
        return found


def together(tallies: Iterable[Tally | None]) -> Tally | None:
    """The sum; ``None`` if one of them is not counted yet."""
    numbers: Counter[tuple[int, str]] = Counter()
    cut = False
    for tally in tallies:
        if tally is None:
            return None
        numbers += tally.numbers
        cut = cut or tally.cut
    return Tally(numbers, cut)


class Tallies:
    """Counts slices, and keeps those that are over."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._kept: dict[tuple[datetime, timedelta], Tally] = {}

    def forget(self) -> None:
        self._kept.clear()

    def of(
        self, starts: Sequence[datetime], width: timedelta, now: datetime, until: float
    ) -> list[Tally | None]:
        """A tally for each slice, in the order of ``starts``; ``None`` for what there was no time for.

        ``until`` is a time of the clock. What may still change is counted in any case.
        """
        found = {start: self._one(start, width, now, until) for start in sorted(starts, reverse=True)}
        return [found[start] for start in starts]

    def deadline(self) -> float:
        return self._clock() + BUDGET

    def _one(self, start: datetime, width: timedelta, now: datetime, until: float) -> Tally | None:
        over = start + width + OVER <= now
        tally = self._kept.get((start, width)) if over else None
        if tally is not None or (over and self._clock() >= until):
            return tally
        tally = counted(start, start + width)
        if over:
            while len(self._kept) >= KEPT:
                self._kept.pop(min(self._kept), None)
            self._kept[start, width] = tally
        return tally


def counted(start: datetime, end: datetime) -> Tally:
    """What ended from ``start`` until before ``end``."""
    rows = Email.objects.filter(finished_at__gte=start, finished_at__lt=end)
    number = rows[:CAP].count()
    if not number:
        return Tally(Counter())
    if number < CAP:
        groups = rows.values_list("priority", "status").annotate(number=Count("pk")).order_by()
        return Tally(Counter({(priority, status): n for priority, status, n in groups}))
    # Django cannot group the rows of a slice; it can count them by condition.
    kinds = {f"{p}_{s}": Count("pk", filter=_is(p, s)) for p in Priority for s in FINAL}
    sums = rows.order_by("finished_at")[:CAP].aggregate(**kinds)
    named = {(int(p), str(s)): sums[f"{p}_{s}"] for p in Priority for s in FINAL}
    return Tally(+Counter(named), cut=True)


def _is(priority: int, status: str) -> Q:
    return Q(priority=priority, status=status)


def minutes(now: datetime) -> list[datetime]:
    """The beginnings of the slices of the last hour, of which the newest is not over."""
    last = now.replace(minute=now.minute - now.minute % 5, second=0, microsecond=0)
    return [last - n * MINUTES for n in reversed(range(13))]


def hours(now: datetime, number: int) -> list[datetime]:
    """The beginnings of the last whole hours before this one, as the clock on the wall has them."""
    local = timezone.localtime(now) if timezone.is_aware(now) else now
    past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return [now - past - n * HOUR for n in range(number, 0, -1)]


tallies = Tallies()
