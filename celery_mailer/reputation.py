"""How the world takes our mail: too much that comes back, or is called spam, is warned of and then paused.

Mail servers judge a sender by these shares, and who ignores them is not delivered any more, whatever he
sends. So beat counts what was sent, by slices of time, and compares what came back of it. A stream goes by
the last week, a batch by all of it. An event counts for the slice in which its email was sent, whenever it
comes: so the shares are of the same emails, and after a pause only what was sent since then counts.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from django.db import router, transaction
from django.db.models import Count, Exists, OuterRef
from django.utils import timezone

from celery_mailer import conf, logs
from celery_mailer.models import Alarm, Batch, Email, Figure, Pause, Suppression
from celery_mailer.models.figure import (
    BOUNCED,
    COMPLAINED,
    REFUSED,
    SLICE,
    Key,
    latest,
    put,
    slice_of,
    sums,
    worst,
)
from celery_mailer.models.pause import hold
from celery_mailer.values import FINAL, Kind, Level, Measure, ReputationPolicy, Status, SuppressionReason

WINDOW = timedelta(days=7)  # by which a stream is judged, and in which a batch is looked at
SLICES = 100  # that one run counts, if it has been long since the last
WORST = 1_000  # batches that are looked at
US = "celery_mailer"  # who made the pause

Names = tuple[str, str]  # kind and name, as of a pause


@dataclass(frozen=True, slots=True)
class Standing:
    """Of ``total`` emails that servers took, or refused for good, so many came back and were called spam."""

    total: int
    bounces: int
    complaints: int

    @classmethod
    def of(cls, numbers: Mapping[str, int]) -> "Standing":
        """From figures, by what they count."""
        refused = numbers.get(REFUSED, 0)
        total = numbers.get(Status.SENT, 0) + refused
        return cls(total, numbers.get(BOUNCED, 0) + refused, numbers.get(COMPLAINED, 0))

    def number(self, measure: Measure) -> int:
        return self.bounces if measure == Measure.BOUNCES else self.complaints

    def share(self, measure: Measure) -> float:
        """0 to 1; events may be counted before what they are about."""
        return min(1.0, self.number(measure) / self.total) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Level
    measure: Measure


def judge(standing: Standing, policy: ReputationPolicy) -> Verdict | None:
    """The worst that is to be said of it, if anything is."""
    if standing.total < policy.minimum:
        return None
    for level, limit_of in ((Level.PAUSE, policy.pause), (Level.WARN, policy.warn)):
        for measure in (Measure.COMPLAINTS, Measure.BOUNCES):
            if standing.share(measure) >= limit_of(measure):
                return Verdict(level, measure)
    return None


# Counting.


def count(now: datetime) -> int:
    """Count what became final since the last run, and the slice before once more; returns how many slices.

    The time of an email is taken before its commit, so a slice changes for a moment after its end.
    """
    last = latest(Figure.Subject.STREAM, [*FINAL, REFUSED])
    since = now - WINDOW if last is None else max(last - SLICE, now - WINDOW)
    done = 0
    while done < SLICES:
        ended = Email.objects.filter(finished_at__gte=since).order_by("finished_at")
        first = ended.values_list("finished_at", flat=True).first()
        if first is None:
            break
        start = slice_of(first)
        put(_counted(start))
        since, done = start + SLICE, done + 1
    return done


def _counted(start: datetime) -> Counter[Key]:
    """The figures of one slice: two queries, which read its part of the index of ``finished_at``."""
    ended = Email.objects.filter(finished_at__gte=start, finished_at__lt=start + SLICE).order_by()
    nobody = Suppression.objects.filter(email=OuterRef("pk"), reason=SuppressionReason.HARD_BOUNCE)
    refused = ended.filter(Exists(nobody), status=Status.FAILED, reason=Kind.RECIPIENT)
    groups = list(ended.values_list("status", "stream", "batch").annotate(number=Count("pk")))
    for stream, batch, number in refused.values_list("stream", "batch").annotate(number=Count("pk")):
        groups.append((REFUSED, stream, batch, number))
    numbers: Counter[Key] = Counter()
    for what, stream, batch, number in groups:
        for key in keys_of(stream, batch, what, start):
            numbers[key] += number
    return numbers


def keys_of(stream: str, batch: UUID | None, what: str, start: datetime) -> Iterator[Key]:
    """The figures to which an email belongs."""
    yield Key(str(Figure.Subject.STREAM), stream, str(what), start)
    if batch is not None:
        yield Key(str(Figure.Subject.BATCH), str(batch), str(what), start)


# Watching.


def watch() -> dict[str, int]:
    """Count, and warn of or pause what has reached its limits; returns the numbers of slices, and of each."""
    now = timezone.now()
    counts = {"slices": count(now), Level.WARN.label: 0, Level.PAUSE.label: 0}
    # In this order: an alarm and its pause are made together.
    alarms = {(alarm.kind, alarm.name): alarm for alarm in Alarm.objects.all()}
    held = {(row.kind, row.name) for row in Pause.objects.all() if row.holds(now)}
    for names, alarm in alarms.items():
        if alarm.level == Level.PAUSE and names not in held:  # a person has let it go on
            _change(alarm, level="", since=now)
    for case in [*_streams(alarms, now), *_batches(alarms, now)]:
        reached = _settle(case, alarms.pop((case.kind, case.name), None), held, now)
        if reached is not None:
            counts[reached.label] += 1
    for alarm in alarms.values():  # nothing is to be said of them any more
        if alarm.level == Level.WARN:
            _change(alarm, level="", at=now)
    return counts


@dataclass(frozen=True, slots=True)
class Case:
    """A stream or a batch of which something is to be said; ``may_pause``: if it is bad enough."""

    kind: str
    name: str
    standing: Standing
    verdict: Verdict
    may_pause: bool

    @property
    def number(self) -> int:
        return self.standing.number(self.verdict.measure)

    def __str__(self) -> str:
        came = "came back" if self.verdict.measure == Measure.BOUNCES else "were called spam"
        share = 100 * self.standing.share(self.verdict.measure)
        return f"{self.number} of {self.standing.total} emails {came} ({share:.3g} %)"


def standings(alarms: Mapping[Names, Alarm], now: datetime) -> dict[str, Standing]:
    """By name, how the streams of the settings stand; one query."""
    kind = str(Figure.Subject.STREAM)
    found = sums(kind, {name: _since(alarms.get((kind, name)), now - WINDOW) for name in conf.get().streams})
    return {name: Standing.of(numbers) for name, numbers in found.items()}


def _since(alarm: Alarm | None, earliest: datetime) -> datetime:
    return earliest if alarm is None or alarm.since is None else max(alarm.since, earliest)


def _streams(alarms: Mapping[Names, Alarm], now: datetime) -> Iterator[Case]:
    for name, standing in standings(alarms, now).items():
        policy = conf.get().reputation_policy(name)
        if verdict := judge(standing, policy):
            yield Case(str(Figure.Subject.STREAM), name, standing, verdict, policy.pause_stream)


def _batches(alarms: Mapping[Names, Alarm], now: datetime) -> Iterator[Case]:
    """Those of which something came back that they sent in the last week; the worst, if there are many."""
    kind = str(Figure.Subject.BATCH)
    names = worst(kind, [REFUSED, BOUNCED, COMPLAINED], now - WINDOW, WORST)
    since = {name: alarm.since if (alarm := alarms.get((kind, name))) else None for name in names}
    settings = conf.get()
    fewest = min(settings.reputation_policy(stream).minimum for stream in settings.streams)
    found = sums(kind, since)
    enough = {name: numbers for name, numbers in found.items() if Standing.of(numbers).total >= fewest}
    for batch in Batch.objects.filter(pk__in=enough):
        standing = Standing.of(enough[str(batch.pk)])
        if verdict := judge(standing, settings.reputation_policy(_stream_of(batch))):
            goes_on = batch.reading or _ended(str(batch.pk)) < batch.total
            may_pause = goes_on and batch.cancelled_at is None
            yield Case(kind, str(batch.pk), standing, verdict, may_pause)


def _stream_of(batch: Batch) -> str:
    """The emails of a batch have one; what has no emails any more goes by the project's rules."""
    return Email.objects.filter(batch=batch).order_by("pk").values_list("stream", flat=True).first() or ""


def _ended(name: str) -> int:
    numbers = sums(Figure.Subject.BATCH, {name: None})[name]
    return sum(numbers[status] for status in FINAL)


def _settle(case: Case, alarm: Alarm | None, held: Collection[Names], now: datetime) -> Level | None:
    """Bring the alarm of ``case`` up to date; returns the level if that is new.

    What is paused already, for whatever reason, is left so: it is only warned of.
    """
    names = (case.kind, case.name)
    if alarm is None:
        values = {"measure": case.verdict.measure, "at": now}
        alarm, _ = Alarm.objects.get_or_create(kind=case.kind, name=case.name, defaults=values)
    if alarm.level == Level.PAUSE:
        return None
    pausing = case.verdict.level == Level.PAUSE and case.may_pause and names not in held
    level = Level.PAUSE if pausing else Level.WARN
    new = level != alarm.level
    with transaction.atomic(using=router.db_for_write(Alarm)):
        won = _change(
            alarm,
            level=level,
            measure=case.verdict.measure,
            number=case.number,
            total=case.standing.total,
            at=now if new else alarm.at,
        )
        if won and new:
            if pausing:
                hold(case.kind, case.name, str(case), by=US)
            line = partial(logs.conspicuous, case.kind, case.name, str(level.label), str(case))
            transaction.on_commit(line, using=router.db_for_write(Alarm), robust=True)
    return level if won and new else None


def _change(alarm: Alarm, **values: object) -> bool:
    """Whether this call changed it: another that runs at the same time may have been first."""
    changed = Alarm.objects.filter(pk=alarm.pk, level=alarm.level).update(**values)
    for name, value in values.items():
        setattr(alarm, name, value)
    return bool(changed)
