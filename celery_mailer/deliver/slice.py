"""Delivers one slice of emails: gate, claim, commit, then the network, and facts as they come.

A provider draws emails as it can use them, and may work on several at once: it says when one begins, from
when on it may have been taken, and its results come in the same order (``providers.contract``).

How a crash is kept small. What is claimed together is begun strictly in the order of the ids, and no more
than ``WINDOW`` hand-overs are ever begun without a written fact. So after a crash, of the emails still
under one claim the first ``WINDOW`` (in that order) are in doubt, and all behind them are untouched for
certain: the rescuer needs no other record (see ``in_doubt``).

How two workers are kept apart. A hand-over may take half a lease; none is begun, and no answer taken, with
less than that left, without renewing the lease by compare-and-set first. A worker that was frozen for
longer than its lease finds that it lost the claim, and stops.

How a lane stays fair. A slice ends when its turn is over, and claims no more than its pace so far says it
can do until then: with a slow server the rest stays queued, untouched, for a chain of its own.
"""

import time
import uuid
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import Error as DatabaseFailure
from django.utils import timezone
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from celery_mailer import conf
from celery_mailer.deliver import connections, gate, limits, providers, wire
from celery_mailer.deliver.breaker import Held, Passage, breakers
from celery_mailer.deliver.message import build
from celery_mailer.deliver.pace import Pace
from celery_mailer.deliver.plan import Ready, plan
from celery_mailer.deliver.pressure import learn
from celery_mailer.deliver.providers.contract import Outgoing, Parcel, stream, takes_wire
from celery_mailer.deliver.turn import SECONDS, Others, Turn
from celery_mailer.models import Attempt, Email
from celery_mailer.models.attachment import enclosures_of
from celery_mailer.models.attempt import record
from celery_mailer.models.connection import LOST, drop_dead, survives_lost_connection
from celery_mailer.models.insertion import new
from celery_mailer.models.transitions import CLAIM, RELEASE, move, renew_lease
from celery_mailer.values import Kind, Outcome, Reply, Result, Status

WINDOW = 20  # hand-overs without a written fact, at most
FLUSH_AFTER = 1.0  # seconds after which facts are written, however few
FURTHEST_AHEAD = 5.0  # seconds: how far ahead slots are booked by who has no end in sight
NO_PLACE = timedelta(seconds=2)  # until mail comes again for which no connection was free


def in_doubt(unsettled: Sequence[UUID]) -> tuple[list[UUID], list[UUID]]:
    """Split what a lost worker held without a fact into (may have been handed over, untouched)."""
    ordered = sorted(unsettled)
    return ordered[:WINDOW], ordered[WINDOW:]


_pace = Pace(unknown=WINDOW)


@survives_lost_connection
def deliver_emails(
    ids: Collection[UUID], *, seconds: float = SECONDS, others: Others | None = None
) -> list[UUID]:
    """Deliver what of ``ids`` is queued, and return what there was no time for.

    There are ``seconds``, and more while no ``others`` wait; they get a part if they are idle.
    """
    rest = sorted(set(ids))
    # They are asked where it matters: one mail on an idle system does not wait for that.
    turn = Turn(seconds, others if len(rest) > _pace.fits(seconds) else None)
    held: dict[str, Held] = {}
    while rest:
        left = turn.left()
        size = _pace.fits(left) if not held else len(rest)
        asked = plan(_pass_gate(_load(rest[:size]), timezone.now()), held, min(left, FURTHEST_AHEAD))
        put_back = _Slice(asked.ready, held).run(turn) if asked.ready else []
        if asked.soon and not asked.ready:
            time.sleep(max(0.0, min(asked.again - time.monotonic(), turn.left())))
        rest = put_back + asked.soon + rest[size:]
        if turn.over():
            break
    return rest


def _load(ids: Collection[UUID]) -> list[Email]:
    # What is not asked for here is not read: times take long to make.
    rows = Email.objects.filter(pk__in=ids, status=Status.QUEUED).defer("created_at", "due_at")
    # In Python's order, which ``in_doubt`` goes by: MariaDB sorts UUIDs of other versions than 7 its own way.
    return sorted(rows.select_related("content", "rendered"), key=lambda email: email.pk)


def _pass_gate(emails: list[Email], now: datetime) -> list[Email]:
    passed = []
    stopped: dict[gate.Stop, list[UUID]] = defaultdict(list)
    for email in emails:
        stop = gate.check(email, now)
        if stop is None:
            passed.append(email)
        else:
            stopped[stop].append(email.pk)
    for stop, ids in stopped.items():
        if stop.move is not None:
            move(ids, stop.move, reason=stop.reason, detail=stop.detail, due_at=stop.due_at)
    return passed


@dataclass(slots=True, eq=False)
class _Drawn:
    """An email that its provider has, and gave no result for."""

    ready: Ready
    started_at: datetime
    begun: bool = False  # it may have been taken


class _Slice:
    """Emails that are claimed together, while they are handed over."""

    def __init__(self, ready: list[Ready], held: dict[str, Held]) -> None:
        self.claim = uuid.uuid4()
        self.lease = conf.get().lease
        self.limit = self.lease.total_seconds() / 2  # seconds that one hand-over may take
        self.facts: list[Attempt] = []
        self.held = held  # providers that cannot be used, and until when
        self.drawn: deque[_Drawn] = deque()
        self.done = 0
        self.lost = False  # somebody else has the claim
        self.late = False  # the slots of the others have passed, too
        self.lease_ends = time.monotonic() + self.lease.total_seconds()
        lease_until = timezone.now() + self.lease
        won = set(move([r.email.pk for r in ready], CLAIM, lease_until=lease_until, token=self.claim))
        self.waiting = deque(r for r in ready if r.email.pk in won)
        limits.give_back([r.slot for r in ready if r.email.pk not in won])
        with_files = [r.email.pk for r in self.waiting if r.email.content.has_attachments]
        self.enclosures = enclosures_of(with_files)

    def run(self, turn: Turn) -> list[UUID]:
        """Hand over until the ``turn`` is over; returns what was put back."""
        self.flushed_at = self.since = time.monotonic()
        self.turn = turn
        try:
            while self.waiting and self._may_go_on():
                self._use(self.waiting[0].alias)
        except BaseException:
            # What has begun stays in doubt; the rest need not wait until the lease ends.
            self._take_back()
            self._release(self.waiting)
            raise
        finally:
            self._flush()
        return self._release(self.waiting)

    def _may_go_on(self) -> bool:
        """There is always time for the first; what waits for a provider that is held is planned anew."""
        if self.late or (self.done and self.turn.over()):
            return False
        return self.waiting[0].alias not in self.held and self._still_ours()

    def _release(self, ready: Iterable[Ready]) -> list[UUID]:
        ready = list(ready)
        limits.give_back([r.slot for r in ready])
        due_at = timezone.now() + self.lease  # by then the chain for the rest has come, or was lost
        return move([r.email.pk for r in ready], RELEASE, due_at=due_at, claim=self.claim)

    def _take_back(self) -> None:
        """What a provider drew and did not begin is untouched, and comes first again."""
        self.waiting.extendleft(d.ready for d in reversed(self.drawn) if not d.begun)
        self.drawn.clear()

    def _use(self, alias: str) -> None:
        """Hand over what waits for ``alias``, up to the first email that is for somebody else."""
        passage = breakers.enter(alias, sum(r.alias == alias for r in self.waiting))
        if isinstance(passage, Held):
            self.held[alias] = passage
            return
        try:
            with connections.place(alias) as free:
                if not free:
                    self.held[alias] = Held(timezone.now() + NO_PLACE, str(Kind.THROTTLED))
                else:
                    self._hand_over(passage)
        finally:
            breakers.leave(passage)

    def _hand_over(self, passage: Passage) -> None:
        provider, fault = providers.opened(passage.alias, self.limit)
        if provider is None:
            self._hear(self._draw(), passage, Result(fault, usable=False))
        elif self._still_ours():  # opening may have taken long
            self._stream(passage, provider)

    def _stream(self, passage: Passage, provider: providers.Provider) -> None:
        try:
            with closing(stream(provider, self._parcels(passage, provider), self.limit)) as results:
                for result in results:
                    self._hear(self.drawn[0], passage, result)
                    self._still_ours()
        except (SoftTimeLimitExceeded, DatabaseFailure):
            raise  # ours, through what the provider called
        except Exception as error:
            # A provider answers with values; one that raises has a bug, and nobody knows how far it came.
            provider.close()
            bug = Reply(Outcome.UNCERTAIN, Kind.NO_ANSWER, text=type(error).__name__)
            first = self.drawn[0] if self.drawn else self._draw()
            for drawn in [d for d in self.drawn if d.begun or d is first]:
                self._record(drawn, passage.alias, Result(bug))
        self._take_back()

    def _parcels(self, passage: Passage, provider: providers.Provider) -> Iterator[Parcel]:
        """What the provider is to hand over, composed as it is drawn. There is always time for the first."""
        alias, left = passage.alias, passage.most
        while left and self.waiting and self.waiting[0].alias == alias and alias not in self.held:
            if others := self.turn.idle():
                self._share(others)
            if not self._in_time(self.waiting[0].slot):
                break
            drawn = self._draw()
            composed = self._compose(drawn.ready, provider)
            if isinstance(composed, Result):
                self._record(drawn, alias, composed)
            else:
                left -= 1
                yield Parcel(*composed, partial(self._begin, drawn))
            if self.lost or self.turn.over():
                break

    def _share(self, others: Others) -> None:
        """Pass on half of what is left, if that takes longer than what it costs."""
        half = len(self.waiting) // 2
        if half > _pace.fits(SECONDS / 2):
            behind = [self.waiting.pop() for _ in range(half)]
            others.pass_on(self._release(reversed(behind)))

    def _in_time(self, slot: limits.Slot) -> bool:
        """Wait for ``slot``. One that has passed counts as not given; but for the first there is time."""
        if (wait := slot.ready - time.monotonic()) > 0:
            time.sleep(wait)  # not for no time: even that gives the processor away
        self.late = slot.stale and self.done > 0
        return not self.late

    def _draw(self) -> _Drawn:
        self.drawn.append(_Drawn(self.waiting.popleft(), timezone.now()))
        return self.drawn[-1]

    def _compose(self, ready: Ready, provider: providers.Provider) -> tuple[Outgoing, list[str]] | Result:
        """The message with its recipients, or what the attempt came to without one."""
        email = ready.email
        if ready.recipients is None:
            return Result(Reply(Outcome.REJECTED, Kind.MESSAGE, text="a recipient is no address"))
        if not ready.recipients:
            return Result(Reply(Outcome.ACCEPTED, text="every recipient was settled before"))
        try:
            rows = email, email.content, self.enclosures.get(email.pk, ())
            return (takes_wire(provider) and wire.compose(*rows)) or build(*rows), ready.recipients
        except SoftTimeLimitExceeded:
            raise  # the worker's haste is no fault of the email's
        except Exception as error:
            # A storage that does not answer may do so later; nothing else about a message gets better.
            later = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
            outcome = Outcome.DEFERRED if later else Outcome.REJECTED
            words = f"{type(error).__name__}: {error}"[:500]
            return Result(Reply(outcome, Kind.MESSAGE, text=words))

    def _begin(self, drawn: _Drawn) -> bool:
        """Whether ``drawn`` may be handed over now: the claim is ours, and the window has room for it."""
        if not self._still_ours():
            return False
        under_way = sum(d.begun for d in self.drawn)
        if len(self.facts) + under_way >= WINDOW or time.monotonic() - self.flushed_at >= FLUSH_AFTER:
            self._flush()
        drawn.begun = under_way < WINDOW
        return drawn.begun

    def _hear(self, drawn: _Drawn, passage: Passage, result: Result) -> None:
        """Record what the provider itself has said."""
        self._record(drawn, passage.alias, result)
        until = breakers.note(passage, result)
        if until is not None:
            self.held[passage.alias] = Held(until)
        learn(passage.alias, drawn.ready, result, self.held)

    def _record(self, drawn: _Drawn, alias: str, result: Result) -> None:
        self.drawn.remove(drawn)
        self.done += 1
        self.facts.append(_fact(drawn, self.claim, alias, result))
        now = time.monotonic()
        _pace.learn(now - self.since)
        self.since = now

    def _still_ours(self) -> bool:
        """Whether a hand-over may begin: more than its longest duration is left of the lease, or renewed."""
        if self.lost or self.lease_ends - time.monotonic() > self.limit:
            return not self.lost
        self._flush()
        held = [d.ready.email.pk for d in self.drawn if not d.begun] + [r.email.pk for r in self.waiting]
        lease_ends = time.monotonic() + self.lease.total_seconds()
        if renew_lease(held, self.claim, timezone.now() + self.lease):
            self.lease_ends = lease_ends
        else:
            self.lost = True
        return not self.lost

    def _flush(self) -> None:
        """Write the facts; a database that hiccups now must not turn twenty known outcomes into doubt."""
        self.flushed_at = time.monotonic()
        if not self.facts:
            return
        for attempt in Retrying(
            retry=retry_if_exception_type(LOST),
            # Nobody can rescue these emails either while the database is away, so waiting loses nothing.
            stop=stop_after_delay(max(self.limit, 60)),
            wait=wait_fixed(0.2),
            before_sleep=drop_dead,
            reraise=True,
        ):
            with attempt:
                record(self.facts)
        self.facts = []


def _fact(drawn: _Drawn, claim: UUID, alias: str, result: Result) -> Attempt:
    reply = result.summary
    differ = any(r.outcome != reply.outcome for r in result.recipients.values())
    recipients = {a: [r.outcome, r.code, r.text] for a, r in result.recipients.items()} if differ else {}
    fact = new(
        Attempt,
        email_id=drawn.ready.email.pk,
        claim=claim,
        provider=alias,
        started_at=drawn.started_at,
        finished_at=timezone.now(),
        outcome=reply.outcome,
        kind=reply.kind,
        phase=reply.phase or "",
        code=reply.code,
        text=reply.text,
        retry_after=reply.retry_after,
        recipients=recipients,
    )
    fact.message_ids = {r.message_id for r in result.recipients.values() if r.message_id}
    return fact
