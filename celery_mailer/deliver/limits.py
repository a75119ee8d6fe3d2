"""How fast mail may go out: what limits one hand-over, and when its turn is. ``buckets`` does the counting.

One unit is one recipient, as providers count them (https://docs.aws.amazon.com/ses/latest/dg/quotas.html).
A hand-over takes units of its provider's rates and quota, and of the rate of each domain that it goes to,
from all or from none.

What a rate of n per second, minute or hour promises: no such time has more slots than n plus a burst of a
tenth of n, at least 1; on average they are n. They come at equal distances; a burst is possible after less
was sent, and makes good what a busy worker did not ask for in time (in a slow rate no more than a tenth of
a second). What leaves late, by a tenth of a second at most (``Slot.stale``), comes on top at the server. An
email to several recipients needs one free unit to begin, and what follows waits for the others.

A provider that says it is too fast (429, Retry-After) is left alone with ``throttle``. A domain that says
so (421 4.7.x, RFC 3463 section 3.8; https://support.google.com/mail/?p=UnsolicitedRateLimitError) is slowed
down by half with ``slow_down``, for all workers, and comes back by itself.

Where it is kept: ``buckets.chosen``. While Redis does not answer, each process keeps to a tenth of each
limit.
"""

import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from celery_mailer import conf, options, routing
from celery_mailer.deliver.buckets.chosen import store
from celery_mailer.deliver.buckets.contract import SECOND, Ask, Bucket, Level, Turn, Verdict, moment
from celery_mailer.schedule import SCHEDULE
from celery_mailer.schemas import Rate

__all__ = ["Slot", "Turn", "ask", "connect", "give_back", "release", "renew", "slow_down", "take", "throttle"]

LATENESS = SECOND // 10
# What waits longer than from one run of the dispatcher to the next is better left to that.
PATIENCE = SCHEDULE[routing.DISPATCH].total_seconds()
FURTHEST = 86_400.0  # seconds: nothing is booked further ahead


@dataclass(frozen=True, slots=True)
class Slot:
    """When one hand-over may begin.

    ``turn`` says what ``at`` is. ``NOW``: it may begin then, and nobody else will. ``SOON``: it is worth
    asking again then. ``LATER``: the email is to be postponed until then. ``ready`` is the same moment by
    ``time.monotonic``. ``limit`` names what it waits for (never an address).
    """

    turn: Turn
    at: datetime
    ready: float
    limit: str
    booking: tuple[str, Ask, int] | None = None  # for ``give_back``: the call, what was taken, and its time

    @property
    def stale(self) -> bool:
        """Whether it is too late to begin: better give the slot back and ask again."""
        if self.booking is None or not any(bucket.interval for bucket in self.booking[1]):
            return False
        return time.monotonic() > self.ready + LATENESS / SECOND


def ask(alias: str, recipients: Collection[str]) -> Ask:
    """What a hand-over to ``recipients`` (bare addresses) by the provider ``alias`` takes of each limit.

    Nothing where Django's test runner has replaced the providers by its outbox: a project's tests never wait.
    """
    if conf.outbox_only():
        return {}
    wanted = dict.fromkeys(_of_provider(alias), len(recipients))
    for domain, units in Counter(r.rpartition("@")[2].lower() for r in recipients).items():
        wanted |= {_of_domain(domain): units, Bucket(_refusal(alias, domain)): units}
    return wanted


def _of_provider(alias: str) -> list[Bucket]:
    provider = conf.get().providers.get(alias, options.Provider())
    buckets = [Bucket(alias, bookable=True)]
    buckets += [_rate(f"{alias} {rate}", rate, bookable=True) for rate in provider.rate_limit or ()]
    if provider.daily_quota is not None:
        # Not named by its number: who raises it has not sent less so far.
        buckets.append(Bucket(f"{alias} daily quota", quota=provider.daily_quota, bookable=True))
    return buckets


def _of_domain(domain: str) -> Bucket:
    rate = conf.get().domain_limits.get(domain)
    return _rate(f"@{domain}", rate) if rate else Bucket(f"@{domain}")


def _refusal(alias: str, domain: str) -> str:
    return f"{alias} @{domain}"


def _rate(key: str, rate: Rate, *, bookable: bool = False) -> Bucket:
    interval = ceil(rate.seconds * SECOND / rate.number)
    burst = max(1, rate.number // 10)
    tolerance = max((burst - 1) * interval, min(interval, LATENESS))
    return Bucket(key, interval, tolerance, bookable=bookable)


def take(asks: Sequence[Ask], within: float, patience: float = PATIENCE) -> list[Slot]:
    """A slot for each of ``asks``, in their order, with one call of the store.

    Slots are booked up to ``within`` seconds ahead; their times do not decrease. What is free within
    ``patience`` seconds is ``SOON``, what comes after that is ``LATER``, each at a time of its own. One that
    only waits for its domain does not keep those behind it from going.
    """
    token = uuid.uuid4().hex
    if any(asks):
        now, verdicts = store().take(asks, _whole(within), _whole(patience), token)
    else:
        now = time.time_ns() // 1_000
        verdicts = [Verdict(Turn.NOW, now, None)] * len(asks)
    here = time.monotonic() - now / SECOND
    return [_slot(asked, verdict, token, here) for asked, verdict in zip(asks, verdicts, strict=True)]


def _slot(asked: Ask, verdict: Verdict, token: str, here: float) -> Slot:
    turn, at, by = verdict
    booking = (token, asked, at) if asked and turn == Turn.NOW else None
    return Slot(turn, moment(at), here + at / SECOND, by.key if by else "", booking)


def give_back(slots: Collection[Slot]) -> None:
    """Return slots that were not used, or whose email was certainly not taken.

    A quota gets them back. A rate does only if nobody has booked since: a slot that has passed is gone.
    """
    spent: dict[str, list[tuple[Ask, int]]] = defaultdict(list)
    for token, asked, at in filter(None, (slot.booking for slot in slots)):
        spent[token].append((asked, at))
    for token, bookings in spent.items():
        store().give_back(bookings, token)


def throttle(alias: str, wait: timedelta, domain: str = "") -> None:
    """Give out nothing by the provider ``alias`` (to ``domain``) for so long; a longer throttle stays."""
    key = _refusal(alias, domain.lower()) if domain else alias
    store().hold(key, _whole(wait.total_seconds()))


def slow_down(domain: str) -> None:
    """Halve the rate of ``domain`` once more; one without a limit is taken to have 10 per second.

    It grows back in a straight line: a whole rate in 30 minutes. It never falls below a 64th, and several
    complaints within 10 seconds are one.
    """
    store().slow_down(f"@{domain.lower()}")


def connect(alias: str) -> str | None:
    """A token for one connection to ``alias``, or ``None`` while ``MAX_CONNECTIONS`` are open.

    It holds for ``LEASE``: ``renew`` it before each use, and ``release`` it when the connection is closed. A
    killed worker's ends by itself.
    """
    token = uuid.uuid4().hex
    return token if renew(alias, token) else None


def renew(alias: str, token: str) -> bool:
    """Whether the connection may be used. False: its lease ended, and others have its place; close it."""
    provider = conf.get().providers.get(alias, options.Provider())
    if provider.max_connections is None:
        return True
    lease = _whole(conf.get().lease.total_seconds())
    return store().connect(_connections(alias), token, provider.max_connections, lease)


def release(alias: str, token: str) -> None:
    """Give the connection's place to others. Safe to call twice."""
    provider = conf.get().providers.get(alias, options.Provider())
    if provider.max_connections is not None:
        store().release(_connections(alias), token)


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of one limit of a provider is in use, for people to see.

    ``limit`` is as in the settings: ``14/s``, or what it is a number of. ``used`` of ``most`` are in use,
    where it is counted so; ``until`` is when there is room again, if there is none now.
    """

    limit: str
    used: int = 0
    most: int = 0
    until: datetime | None = None


QUOTA, CONNECTIONS, THROTTLE = "daily quota", "connections", "throttle"


def usage(aliases: Collection[str]) -> dict[str, list[Usage]] | None:
    """By alias, its limits and how much of each is in use; ``None`` while the store does not answer.

    One call of the store; it costs no mail its turn.
    """
    buckets = {alias: _of_provider(alias) for alias in aliases}
    keys = [bucket.key for own in buckets.values() for bucket in own]
    seen = store().look([*keys, *map(_connections, aliases)])
    if seen is None:
        return None
    now, levels = seen
    return {alias: [*_usages(alias, own, levels, now)] for alias, own in buckets.items()}


def _usages(alias: str, own: list[Bucket], levels: Mapping[str, Level], now: int) -> Iterator[Usage]:
    for bucket in own:
        level, name = levels[bucket.key], bucket.key.removeprefix(alias).strip()
        free_at = level.tat - bucket.tolerance
        until = moment(free_at) if free_at > now else None
        if bucket.quota:
            yield Usage(QUOTA, level.used, bucket.quota)
        elif bucket.interval or until:
            yield Usage(name or THROTTLE, until=until)
    most = conf.get().providers.get(alias, options.Provider()).max_connections
    if most is not None:
        yield Usage(CONNECTIONS, levels[_connections(alias)].places, most)


def _connections(alias: str) -> str:
    return f"{alias} connections"


def _whole(seconds: float) -> int:
    return round(min(seconds, FURTHEST) * SECOND)
