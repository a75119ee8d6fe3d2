"""The circuit breaker: a provider that keeps failing is left alone by all workers, until a mail gets through.

Closed: mail flows, and costs no query. Open: nobody uses the provider before ``retry_at``. Half-open: one
worker has won the trial, hands one mail over, and what comes of it closes the breaker or opens it again.

One row per provider is the truth. A rule (a pure function) says what the row is to become; it is written
only if nobody has written since it was read, else the rule is asked again. So of all workers one opens the
breaker (and logs it), and one wins the trial. A trial has a lease: if its worker is killed, another may try.

It opens on a rate: faults that outweigh what went well, counted over about half a minute, and more than a
few of them. It opens at once for what the next mail would only repeat: a refused login. Being throttled is no
fault: ``limits.throttle`` keeps mail away for as long as the provider asks.

No stampede on return: once closed, the first mails are let in by a count that all workers share, and that
doubles every few seconds. Meanwhile the rest goes by another provider, or waits, each for a time of its own.
"""

import math
import random
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid4

from django.db import router, transaction
from django.utils import timezone

from celery_mailer import conf
from celery_mailer.deliver.breaker_log import record
from celery_mailer.deliver.pauses import Pauses, Recent, pauses
from celery_mailer.models import Pause, ProviderState
from celery_mailer.models.pause import HORIZON, PAUSED
from celery_mailer.models.provider import HELD, State
from celery_mailer.values import Kind, Phase, Reply, Result

T = TypeVar("T")

MEMORY = 30.0  # seconds after which a count has faded to a third
FEW = 4.0  # faults, faded, that open nothing yet
# The share of failures from which on it opens. With 0.5 a provider that fails three times in ten is shut out
# within a thousand mails in one of six runs, by bad luck at the start; with this in one of twenty.
RATE = 0.6
FIRST, LONGEST = timedelta(seconds=10), timedelta(minutes=5)  # the rest after the first opening, and at most
PARKED = timedelta(minutes=5)  # the rest after a fault that a person must mend
RAMP = timedelta(seconds=30)  # after closing, until all may come
LET_IN, DOUBLING = 10, 3.0  # hand-overs that are let in at once, and after how many seconds twice as many
SOON = timedelta(seconds=2)  # the shortest wait for somebody else's trial
SHARE = timedelta(seconds=2)  # how often a process tells what went well, while others see faults
TRIES = 20  # times that others may be faster

_FAULTS = frozenset({Kind.CONNECTION, Kind.PROVIDER})
_NO_NEWS = frozenset({Kind.NO_ANSWER, Kind.THROTTLED})  # speak neither for the provider nor against it


@dataclass(slots=True)
class Passage:
    """Leave to use a provider for ``most`` hand-overs. With a ``token`` it is the trial, and for one."""

    alias: str
    most: int
    token: UUID | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The provider may not be used before ``until``. ``reason``: ``paused``, or ``provider_open``."""

    until: datetime
    reason: str = HELD


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be written into a row; if it changes the state, the log tells why."""

    values: dict[str, Any]
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """Hand-overs that went well, fading away."""

    ok: float
    at: datetime
    told_at: datetime  # when the row learnt of what came before

    def faded(self, now: datetime) -> "Tally":
        return replace(self, ok=self.ok * faded(self.at, now), at=now)


def faded(since: datetime, now: datetime) -> float:
    """What is left of one that was counted at ``since``."""
    return math.exp(-max(0.0, (now - since).total_seconds()) / MEMORY)


def fault_of(result: Result) -> Reply | None:
    """The provider's fault in ``result``, if it has one: what is wrong with an email is no fault."""
    reply = result.summary
    if reply.kind == Kind.THROTTLED:
        return None
    line_died = reply.kind == Kind.NO_ANSWER and reply.phase == Phase.DOT
    return reply if not result.usable or reply.kind in _FAULTS or line_died else None


def rest(openings: int, fault: Reply, chance: float) -> timedelta:
    """How long a provider is left alone; ``chance`` (0 to 1) spreads what opened together."""
    if fault.retry_after is not None:
        return min(fault.retry_after, HORIZON)
    if fault.kind == Kind.PROVIDER:
        return PARKED
    doubled = FIRST * int(2 ** min(openings - 1, 10))
    return min(doubled, LONGEST) * (1 + chance / 4)


def admitted(
    row: ProviderState, *, wanted: int, now: datetime, lease: timedelta, chance: float
) -> tuple[Step | None, Passage | Held]:
    """Whether mail may go by the provider now. A passage holds once its step, if there is one, is written."""
    if row.state == State.CLOSED:
        return _let_in(row, wanted, now, chance)
    ends = row.retry_at or row.trial_until or now
    if now >= ends:
        token = uuid4()
        values = {"state": State.HALF_OPEN, "since": now, "retry_at": None}
        reason = "trial" if row.state == State.OPEN else "trial_lost"
        return Step(values | {"trial": token, "trial_until": now + lease}, reason), Passage(
            row.alias, 1, token
        )
    if row.state == State.OPEN:
        return None, Held(ends + chance * min(RAMP, (ends - now) / 2))
    # A trial takes a moment, as a rule; the longer it takes, the less often it is looked at.
    return None, Held(min(ends, now + max(SOON, now - row.since) * (1 + chance)))


def _let_in(
    row: ProviderState, wanted: int, now: datetime, chance: float
) -> tuple[Step | None, Passage | Held]:
    calm = now - row.since
    if not row.openings or calm >= RAMP:
        return None, Passage(row.alias, wanted)
    room = int(LET_IN * 2 ** (calm.total_seconds() / DOUBLING)) - row.let_in
    if room <= 0:
        return None, Held(now + SOON / 2 + chance * (RAMP - calm))
    most = min(wanted, room)
    return Step({"let_in": row.let_in + most}), Passage(row.alias, most)


def counted(
    row: ProviderState, *, ok: float, fault: Reply | None, usable: bool, now: datetime, chance: float
) -> tuple[Step | None, datetime | None]:
    """The row after ``ok`` good answers and perhaps a fault; and until when it is open, if it is."""
    if row.state != State.CLOSED:
        return None, row.retry_at or now + SOON  # said by one who came before it opened
    left = faded(row.counted_at, now)
    good, bad = row.ok * left + ok, row.faults * left + (fault is not None)
    if fault is not None and ((fault.kind == Kind.PROVIDER and not usable) or _too_many(good, bad)):
        return _opened(row, fault, now, chance)
    step = Step({"ok": good, "faults": bad, "counted_at": now} | _words_of(fault, now))
    return step, None


def _too_many(good: float, bad: float) -> bool:
    return bad > FEW and bad >= RATE * (good + bad)


def tried(
    row: ProviderState, *, token: UUID, fault: Reply | None, now: datetime, chance: float
) -> tuple[Step | None, datetime | None]:
    """The row after the trial; and until when it is open, if it is. One whose lease ran out says nothing."""
    if row.trial != token:
        return None, None
    if fault is not None:
        return _opened(row, fault, now, chance)
    values = {"state": State.CLOSED, "since": now, "ok": 1.0, "faults": 0.0, "counted_at": now, "let_in": 0}
    return Step(values | {"trial": None, "trial_until": None}, "trial_ok"), None


def unused(row: ProviderState, *, token: UUID, now: datetime) -> tuple[Step | None, None]:
    """The row after a trial for which no mail was handed over: the next may try at once."""
    if row.trial != token:
        return None, None
    values = {"state": State.OPEN, "since": now, "retry_at": now, "trial": None, "trial_until": None}
    return Step(values, "trial_unused"), None


def _opened(row: ProviderState, fault: Reply, now: datetime, chance: float) -> tuple[Step, datetime]:
    # What comes back and falls again has not got well: it goes on resting longer and longer.
    again = row.state != State.CLOSED or now - row.since < LONGEST
    openings = row.openings + 1 if again else 1
    retry_at = now + rest(openings, fault, chance)
    values = {"state": State.OPEN, "since": now, "openings": openings, "retry_at": retry_at}
    values |= {"trial": None, "trial_until": None, "ok": 0.0, "faults": 0.0, "counted_at": now}
    words = f"{fault.code or ''} {fault.text}".strip()
    return Step(values | _words_of(fault, now), str(fault.kind), words), retry_at


def _words_of(fault: Reply | None, now: datetime) -> dict[str, Any]:
    return {"kind": str(fault.kind), "text": fault.text, "fault_at": now} if fault else {}


class Breakers:
    """The breakers of all providers, as this process sees them: read once per second, written when needed."""

    def __init__(
        self,
        clock: Callable[[], datetime] = timezone.now,
        chance: Callable[[], float] = random.random,
        paused: Pauses = pauses,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._pauses = paused
        self._rows = Recent(lambda: {row.alias: row for row in ProviderState.objects.all()})
        self._tallies: dict[str, Tally] = {}

    def forget(self) -> None:
        """Forget what was read and counted."""
        self._rows.forget()
        self._tallies.clear()

    def enter(self, alias: str, wanted: int) -> Passage | Held:
        """Leave to hand up to ``wanted`` mails over to ``alias``, or until when not.

        Give every passage to ``leave`` in the end: a trial that was not used is then another's.
        """
        held = self.peek(alias)
        if held is not None:
            return held
        now = self._clock()
        row = self._rows.at(now).get(alias)
        if row is None:
            return Passage(alias, wanted)
        lease = conf.get().lease * 1.5  # half for the opening, half for the hand-over, and some for the rest
        rule = partial(admitted, wanted=wanted, now=now, lease=lease, chance=self._chance())
        return self._step(row, rule) or Held(now + SOON)

    def peek(self, alias: str) -> Held | None:
        """Until when ``alias`` cannot be used, as far as can be told without asking for a passage."""
        now = self._clock()
        pause = self._pauses.of(Pause.Subject.PROVIDER, alias, now)
        if pause is not None:
            return Held(pause.again_at(now), PAUSED)
        row = self._rows.at(now).get(alias)
        if row is None:
            return None
        step, answer = admitted(row, wanted=1, now=now, lease=conf.get().lease, chance=self._chance())
        return answer if step is None and isinstance(answer, Held) else None

    def note(self, passage: Passage, result: Result) -> datetime | None:
        """Learn what came of a hand-over, or of an opening that failed.

        Returns until when the provider is not to be used, or ``None`` to go on.
        """
        if result.summary.kind == Kind.MESSAGE:
            return None  # it did not come as far as the provider
        now, fault = self._clock(), fault_of(result)
        if passage.token is not None:
            rule = partial(tried, token=passage.token, fault=fault, now=now, chance=self._chance())
            until = self._step(self._row(passage.alias, now), rule)
            passage.token = None
        else:
            until = self._count(passage.alias, result, fault, now)
        return until or (None if result.usable else now + (result.summary.retry_after or FIRST))

    def leave(self, passage: Passage) -> None:
        """The passage is over. What its trial was not used for, another may do at once."""
        token, passage.token = passage.token, None
        if token is not None:
            now = self._clock()
            self._step(self._row(passage.alias, now), partial(unused, token=token, now=now))

    def switch(self, alias: str, rule: Callable[..., tuple[Step | None, None]]) -> None:
        """Make the step of ``rule(row, now=…)``, whatever state ``alias`` is in (``breaker_switch``)."""
        now = self._clock()
        self._step(self._row(alias, now), partial(rule, now=now))

    def _count(self, alias: str, result: Result, fault: Reply | None, now: datetime) -> datetime | None:
        tally = self._tallies.get(alias, Tally(0.0, now, now)).faded(now)
        went_well = fault is None and result.summary.kind not in _NO_NEWS
        tally = self._tallies[alias] = replace(tally, ok=tally.ok + went_well)
        row = self._rows.at(now).get(alias)
        if fault is None and not (row and _watched(row, tally, now)):
            return None
        self._tallies[alias] = Tally(0.0, now, now)
        rule = partial(
            counted, ok=tally.ok, fault=fault, usable=result.usable, now=now, chance=self._chance()
        )
        return self._step(row or self._row(alias, now), rule)

    def _row(self, alias: str, now: datetime) -> ProviderState:
        row = self._rows.at(now).get(alias)
        if row is None:
            values = {"since": now, "counted_at": now}
            row = ProviderState.objects.get_or_create(alias=alias, defaults=values)[0]
        return row

    def _step(self, row: ProviderState, rule: Callable[[ProviderState], tuple[Step | None, T]]) -> T | None:
        """Make ``rule``'s step and return its answer; ``None`` if others were faster all the time."""
        for _ in range(TRIES):
            step, answer = rule(row)
            if step is None or self._write(row, step):
                return answer
            row = ProviderState.objects.get_or_create(alias=row.alias)[0]
            self._rows.at(self._clock())[row.alias] = row
        return None

    def _write(self, row: ProviderState, step: Step) -> bool:
        # A copy, in whole: another thread must never see the new version beside the old values.
        after = copy(row)
        for name, value in {**step.values, "version": row.version + 1}.items():
            setattr(after, name, value)
        using = router.db_for_write(ProviderState)
        with transaction.atomic(using=using):
            unchanged = ProviderState.objects.using(using).filter(pk=row.pk, version=row.version)
            if not unchanged.update(**step.values, version=after.version):
                return False
            if "state" in step.values:
                record(row, after, step.reason, step.detail, self._clock())
        self._rows.at(self._clock())[row.alias] = after
        return True


def _watched(row: ProviderState, tally: Tally, now: datetime) -> bool:
    """Whether what went well is to be told now: somebody sees faults, and a rate has two sides.

    At once as long as little is known at all, later now and then.
    """
    left = faded(row.counted_at, now)
    if row.state != State.CLOSED or row.faults * left < 0.5:
        return False
    return 5 * tally.ok >= (row.ok + row.faults) * left or now - tally.told_at >= SHARE


breakers = Breakers()
