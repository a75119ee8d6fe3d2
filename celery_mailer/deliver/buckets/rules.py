"""How limits work: the generic cell rate algorithm, a rolling quota, a brake, and leases. Pure.

*Rates.* GCRA (ITU-T I.371) keeps one number for each bucket: the theoretical arrival time (``tat``) of the
next unit. A unit may come from ``tat - tolerance`` on, and moves ``tat`` on by one interval. A hand-over
needs one free unit to begin and is charged for all it takes, so that mail to more recipients than the rate
allows can go at all, and what follows pays for it: Amazon SES does so too (its words are in
https://github.com/django-ses/django-ses/issues/59).

*Quotas* count the last 24 hours, as Amazon SES does
(https://docs.aws.amazon.com/ses/latest/dg/quotas.html); so they hold for a provider that counts days as
well, whatever its time zone. One counter for each hour: what was used between 15:00 and 16:00 is free again
at 16:00 on the next day, an exact time, and never too early.

*The brake* is multiplicative decrease and additive increase, as in TCP (RFC 5681): halved by each
complaint, the rate grows back in a straight line.

The script in ``redis`` says the same in Lua; one test suite holds all of them to it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from celery_mailer.deliver.buckets.contract import SECOND, Ask, Bucket, Level, Turn, Verdict

HOUR = 3_600 * SECOND
KEPT = 25 * HOUR  # from the beginning of an hour until the last moment in it is a day ago

RECOVERY = HOUR // 2  # from a rate of nothing to the whole; from a half it takes half of it
FLOOR = 1 / 64  # of the rate: a domain is never slowed below it
# What was under way when a server complained will be refused too: that is one complaint, not many.
ONE_COMPLAINT = 10 * SECOND
UNLIMITED = SECOND // 10  # the interval that a bucket without a rate is slowed down from


@dataclass(slots=True)
class State:
    """What is remembered of one bucket."""

    tat: int = 0
    line: int = 0  # the next place in the line
    owner: str = ""  # the token of the last ``take`` that moved ``tat``
    pace: float = 1.0  # the part of its rate that it was left with, when it was slowed down
    slowed_at: int = 0
    hours: dict[str, int] = field(
        default_factory=dict
    )  # units by hour since 1970, as text: it goes into JSON
    leases: dict[str, int] = field(default_factory=dict)  # when each token's ends

    def pace_at(self, now: int) -> float:
        return min(1.0, self.pace + (now - self.slowed_at) / RECOVERY)

    def interval(self, bucket: Bucket, now: int) -> int:
        pace = self.pace_at(now)
        return bucket.interval if pace >= 1 else ceil((bucket.interval or UNLIMITED) / pace)

    def useful_until(self) -> int:
        """From when on it is the same as a fresh one."""
        slowed = self.slowed_at + RECOVERY if self.slowed_at else 0
        hour = max(map(int, self.hours), default=-25)
        return max(self.tat, self.line, slowed, hour * HOUR + KEPT, *self.leases.values())


class _Rate:
    """A bucket without a quota, during one call."""

    def __init__(self, bucket: Bucket, state: State, now: int) -> None:
        self.bucket, self.state, self.now = bucket, state, now
        self.interval = state.interval(bucket, now)
        self.tolerance = bucket.tolerance if self.interval == bucket.interval else 0
        self.behind = now  # those who wait in this call

    def free(self, units: int) -> int:
        return max(self.now, self.state.tat - self.tolerance)

    def place(self, units: int) -> int:
        return max(self.free(units), self.behind)

    def place_in_line(self, units: int) -> int:
        return max(self.place(units), self.state.line)

    def spend(self, units: int, at: int, token: str) -> None:
        if self.interval:
            self.state.tat = max(self.state.tat, at) + units * self.interval
            self.state.owner = token

    def wait(self, units: int, at: int, in_line: bool) -> None:
        self.behind = at + units * self.interval
        if in_line and self.interval:
            self.state.line = self.behind


class _Quota:
    """A bucket with a quota, during one call."""

    def __init__(self, bucket: Bucket, state: State, now: int) -> None:
        self.bucket, self.state, self.now = bucket, state, now
        self.behind = 0  # units that are waited for in this call
        state.hours = {h: n for h, n in state.hours.items() if int(h) * HOUR + KEPT > now}

    def free(self, units: int) -> int:
        room = self.bucket.quota - min(units, self.bucket.quota)
        return self._when(room)

    def place(self, units: int) -> int:
        return self._when(self.bucket.quota - min(units + self.behind, self.bucket.quota))

    place_in_line = place

    def _when(self, room: int) -> int:
        """When no more than ``room`` is in use."""
        used, at = sum(self.state.hours.values()), self.now
        for hour in sorted(map(int, self.state.hours)):
            if used <= room:
                break
            used -= self.state.hours[str(hour)]
            at = hour * HOUR + KEPT
        return at

    def spend(self, units: int, at: int, token: str) -> None:
        hour = str(at // HOUR)
        self.state.hours[hour] = self.state.hours.get(hour, 0) + units

    def wait(self, units: int, at: int, in_line: bool) -> None:
        self.behind += units


_Opened = _Rate | _Quota


def take(
    asks: Sequence[Ask], states: Mapping[str, State], now: int, within: int, patience: int, token: str
) -> list[Verdict]:
    """``Buckets.take``, on the states of all buckets that ``asks`` name; changes them."""
    opened: dict[Bucket, _Opened] = {}
    for bucket in {b: None for ask in asks for b in ask}:
        opened[bucket] = (_Quota if bucket.quota else _Rate)(bucket, states[bucket.key], now)
    verdicts = []
    for ask in asks:
        parts = [(opened[bucket], units) for bucket, units in ask.items()]
        booked = max([now] + [b.free(units) for b, units in parts if b.bucket.bookable])
        others = max([now] + [b.free(units) for b, units in parts if not b.bucket.bookable])
        # One that waits for a bucket of its own must not keep everybody else from the hand-over they share.
        if others <= booked <= now + within:
            for b, units in parts:
                b.spend(units, booked, token)
            verdicts.append(Verdict(Turn.NOW, booked, None))
        else:
            verdicts.append(_put_off(parts, now + patience))
    return verdicts


def _put_off(parts: list[tuple[_Opened, int]], soon: int) -> Verdict:
    places = [b.place(units) for b, units in parts]
    in_line = max(places) > soon
    if in_line:
        places = [b.place_in_line(units) for b, units in parts]
    at = max(places)
    narrowest = [part for part, place in zip(parts, places, strict=True) if place == at]
    for b, units in narrowest:  # the others have room until then
        b.wait(units, at, in_line)
    return Verdict(Turn.LATER if in_line else Turn.SOON, at, narrowest[0][0].bucket)


def give_back(spent: Iterable[tuple[Ask, int]], states: Mapping[str, State], now: int, token: str) -> None:
    """``Buckets.give_back``."""
    for ask, at in spent:
        for bucket, units in ask.items():
            state, hour = states[bucket.key], str(at // HOUR)
            if bucket.quota:
                state.hours[hour] = max(0, state.hours.get(hour, 0) - units)
            elif state.owner == token and state.pace_at(now) >= 1:
                state.tat -= units * bucket.interval


def hold(state: State, now: int, duration: int) -> None:
    """``Buckets.hold``."""
    state.tat = max(state.tat, now + duration)


def slow_down(state: State, now: int) -> None:
    """``Buckets.slow_down``."""
    if now - state.slowed_at >= ONE_COMPLAINT:
        state.pace, state.slowed_at = max(FLOOR, state.pace_at(now) / 2), now


def connect(state: State, now: int, token: str, size: int, lease: int) -> bool:
    """``Buckets.connect``."""
    state.leases = {other: end for other, end in state.leases.items() if end > now}
    if token not in state.leases and len(state.leases) >= size:
        return False
    state.leases[token] = now + lease
    return True


def release(state: State, token: str) -> None:
    """``Buckets.release``."""
    state.leases.pop(token, None)


def level(state: State, now: int) -> Level:
    """``Buckets.look``."""
    used = sum(units for hour, units in state.hours.items() if int(hour) * HOUR + KEPT > now)
    places = sum(end > now for end in state.leases.values())
    return Level(state.tat, state.pace_at(now), used, places)
