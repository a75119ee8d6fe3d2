"""One page that tells how the mail is doing, and refreshes itself. All of it is bounded, and says so."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from celery_mailer import census, routing
from celery_mailer.admin.cluster import Answer, asker
from celery_mailer.admin.health import healths, held
from celery_mailer.admin.lists import BOUND
from celery_mailer.admin.pages import listing
from celery_mailer.admin.plots import Column, Part, stacked
from celery_mailer.admin.reputations import DAYS as REPUTATION_DAYS
from celery_mailer.admin.reputations import reputations
from celery_mailer.admin.tallies import CAP, HOUR, MINUTES, Tally, hours, minutes, tallies, together
from celery_mailer.admin.troubles import troubles
from celery_mailer.admin.words import LANES, STATUSES
from celery_mailer.models import Email, Pause
from celery_mailer.values import FINAL, Priority, Status

DAYS = 7
UNCOUNTED = gettext_lazy("not counted yet")
ENDS: dict[Any, str | Promise] = {status: word for status, word in STATUSES.items() if status in FINAL}


@dataclass(frozen=True)
class Lane:
    """``depth`` and ``workers`` are ``None`` as long as nobody has said."""

    mark: str
    word: str | Promise
    queue: str
    waiting: int
    oldest_due: datetime | None
    pause: Pause | None
    depth: int | None
    workers: int | None


@dataclass(frozen=True)
class Plot:
    title: str | Promise
    drawing: SafeString
    legend: list[Part]
    cut: bool


def dashboard(model_admin: Any, request: HttpRequest) -> HttpResponse:
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    now, answer = timezone.now(), asker.latest()
    rows = lanes(answer, now)
    overdue = min((lane.oldest_due for lane in rows if lane.oldest_due and not lane.pause), default=None)
    return listing(
        model_admin,
        request,
        "email/dashboard.html",
        _("Dashboard"),
        now=now,
        empty=not Email.objects.exists(),
        troubles=troubles(answer, overdue, now),
        lanes=rows,
        bound=BOUND,
        cap=CAP,
        uncertain=Email.objects.filter(status=Status.UNCERTAIN)[:BOUND].count(),
        sending=Email.objects.filter(lease_until__isnull=False)[:BOUND].count(),
        plots=plots(now),
        reputations=reputations(now),
        reputation_days=REPUTATION_DAYS,
        healths=healths(),
        answer=answer,
    )


def lanes(answer: Answer | None, now: datetime) -> list[Lane]:
    """The lanes, the most urgent first; two queries for each, which look at ``BOUND`` rows at most."""
    pauses = held(now)
    return [_lane(priority, word, answer, pauses, now) for priority, word in LANES.items()]


def _lane(
    priority: Priority, word: Any, answer: Answer | None, pauses: Mapping[Any, Pause], now: datetime
) -> Lane:
    waiting = Email.objects.filter(priority=priority, due_at__isnull=False)
    queue, told = routing.lane(priority), answer is not None and not answer.fault
    return Lane(
        priority.label,
        word,
        queue,
        waiting[:BOUND].count(),
        census.waits_since(priority, now, BOUND),
        pauses.get((Pause.Subject.LANE, priority.label)),
        answer.depths.get(queue) if told and answer else None,
        sum(queue in queues for queues in answer.workers.values()) if told and answer else None,
    )


def plots(now: datetime) -> list[Plot]:
    """What was sent in the last hour, and what became of emails in the last day and week."""
    until = tallies.deadline()
    fives = minutes(now)
    recent = tallies.of(fives, MINUTES, now, until)
    past = hours(now, (DAYS - 1) * 24 + _local(now).hour)  # from the first midnight on
    this_hour = together(t for start, t in zip(fives, recent, strict=True) if start >= past[-1] + HOUR)
    whole = [*tallies.of(past, HOUR, now, until), this_hour]
    past.append(past[-1] + HOUR)
    days = [(day, together(t for _, t in group)) for day, group in _by_day(past, whole)]
    return [
        _plot(_("Sent in the last hour, by lane"), fives, recent, "H:i", 2, lane_parts),
        _plot(_("What became of emails in the last day"), past[-24:], whole[-24:], "H:i", 4, status_parts),
        _plot(
            _("What became of emails in the last week"),
            [d for d, _ in days],
            [t for _, t in days],
            "D j",
            1,
            status_parts,
        ),
    ]


def _by_day(starts: Sequence[datetime], found: Sequence[Tally | None]) -> Iterable[Any]:
    pairs = zip(map(_local, starts), found, strict=True)
    return ((day, list(group)) for day, group in groupby(pairs, key=lambda pair: pair[0].date()))


def _local(moment: datetime) -> datetime:
    return timezone.localtime(moment) if timezone.is_aware(moment) else moment


def lane_parts(tally: Tally) -> list[Part]:
    numbers = tally.by_lane()
    return [Part(priority.label, word, numbers[priority]) for priority, word in LANES.items()]


def status_parts(tally: Tally) -> list[Part]:
    numbers = tally.by_status()
    return [Part(str(status), word, numbers[status]) for status, word in ENDS.items()]


def _plot(
    title: str,
    starts: Sequence[Any],
    found: Sequence[Tally | None],
    labels: str,
    every: int,
    parts: Callable[[Tally], list[Part]],
) -> Plot:
    columns = [
        Column(_label(start, labels), missing=UNCOUNTED)
        if tally is None
        else Column(_label(start, labels), parts(tally))
        for start, tally in zip(starts, found, strict=True)
    ]
    all_parts = [part for column in columns for part in column.parts]
    marks = dict.fromkeys((part.mark, part.word) for part in all_parts)
    legend = [Part(mark, word, sum(p.number for p in all_parts if p.mark == mark)) for mark, word in marks]
    return Plot(
        title, stacked(title, columns, every), legend, any(tally is not None and tally.cut for tally in found)
    )


def _label(start: Any, labels: str) -> str:
    return date_format(_local(start) if isinstance(start, datetime) else start, labels)
