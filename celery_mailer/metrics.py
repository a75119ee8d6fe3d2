"""Metrics for Prometheus (the extra ``prometheus``), made from the tables when they are asked for.

So they are those of the whole installation, whoever is asked, and workers need no port. A counter begins at
zero each day (UTC), which ``rate`` and ``increase`` take for a restart; what comes between the day's last
scrape and midnight is not seen. What was counted once in a day is remembered: only what came since is read.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_not_required
from django.db.models import Count, DurationField, ExpressionWrapper, F, Q, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from celery_mailer import census, conf
from celery_mailer.models import Attempt, Email, Pause, ProviderState
from celery_mailer.models.provider import State
from celery_mailer.values import Status

BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 6 * 3600)  # seconds from when mail could go to when it went
LAG = timedelta(minutes=1)  # what is older is committed: it is counted once

Tally = Counter[tuple[str, ...]]


class Today:
    """Counts of what ``read(since, until)`` finds, from the beginning of the day."""

    def __init__(self, read: Callable[[datetime, datetime], Tally]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._settled: Tally = Counter()
        self._until: datetime | None = None  # up to which ``_settled`` has everything

    def at(self, now: datetime) -> Tally:
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        with self._lock:
            if self._until is None or self._until < midnight:
                self._settled, self._until = Counter(), midnight
            settled = max(self._until, now - LAG)
            self._settled.update(self._read(self._until, settled))
            self._until = settled
            return self._settled + self._read(settled, now + LAG)


def _finished(since: datetime, until: datetime) -> Tally:
    """Emails that became final, with how many of those that were sent took up to each of ``BUCKETS``.

    By ("emails", lane, stream, status), ("within", lane, seconds), ("delay", lane).
    """
    delay = ExpressionWrapper(
        F("finished_at") - Coalesce("scheduled_at", "created_at"), output_field=DurationField()
    )
    emails = Email.objects.filter(finished_at__gte=since, finished_at__lt=until).annotate(delay=delay)
    within = {f"within_{s}": Count("pk", filter=Q(delay__lte=timedelta(seconds=s))) for s in BUCKETS}
    groups = emails.values("priority", "stream", "status")
    rows: Any = groups.annotate(number=Count("pk"), total=Sum("delay"), **within)
    tally: Tally = Counter()
    for row in rows.order_by():
        lane = census.lane_of(row["priority"])
        tally["emails", lane, row["stream"], row["status"]] += row["number"]
        if row["status"] == Status.SENT:
            tally["delay", lane] += int(row["total"] / timedelta(milliseconds=1))
            for seconds in BUCKETS:
                tally["within", lane, str(seconds)] += row[f"within_{seconds}"]
            tally["within", lane, "+Inf"] += row["number"]
    return tally


def _attempted(since: datetime, until: datetime) -> Tally:
    """Attempts by provider, outcome and kind. Their ids are in the order of time."""
    attempts = Attempt.objects.filter(pk__gte=_first_id(since), pk__lt=_first_id(until))
    rows = attempts.values_list("provider", "outcome", "kind").annotate(number=Count("pk")).order_by()
    return Counter({(provider, outcome, kind): number for provider, outcome, kind, number in rows})


def _first_id(at: datetime) -> UUID:
    """The first UUID of that millisecond (RFC 9562, section 5.7)."""
    return UUID(int=int(at.timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62)


class MailerCollector(Collector):
    """For a project's own registry: ``REGISTRY.register(MailerCollector())``."""

    def __init__(self, clock: Callable[[], datetime] = timezone.now) -> None:
        self._clock = clock
        self._finished, self._attempted = Today(_finished), Today(_attempted)

    def describe(self) -> Iterable[Metric]:
        return []  # else the registry would ask the database when it is made

    def collect(self) -> Iterator[Metric]:
        now = self._clock()
        yield from _waiting(now)
        yield from _providers(now)
        finished = self._finished.at(now)
        yield from _of_emails(finished)
        attempts = CounterMetricFamily(
            "celery_mailer_attempts", "Hand-overs to providers.", labels=["provider", "outcome", "kind"]
        )
        for labels, number in sorted(self._attempted.at(now).items()):
            attempts.add_metric(list(labels), number)
        yield attempts


def _waiting(now: datetime) -> Iterator[Metric]:
    emails = GaugeMetricFamily(
        "celery_mailer_emails", "Emails that are not final.", labels=["lane", "status"]
    )
    for lane, counts in census.unfinished().items():
        for status, number in counts.items():
            emails.add_metric([lane, status], number)
    yield emails
    ages = GaugeMetricFamily(
        "celery_mailer_oldest_due_age_seconds",
        "For how long the email has waited that could be sent for longest.",
        labels=["lane"],
    )
    for lane, age in census.oldest_due(now).items():
        ages.add_metric([lane], age)
    yield ages


def _providers(now: datetime) -> Iterator[Metric]:
    not_closed = set(ProviderState.objects.exclude(state=State.CLOSED).values_list("alias", flat=True))
    usable = GaugeMetricFamily(
        "celery_mailer_provider_up",
        "0 while a provider is left alone because it failed.",
        labels=["provider"],
    )
    for alias in conf.get().providers:
        usable.add_metric([alias], alias not in not_closed)
    yield usable
    paused = GaugeMetricFamily("celery_mailer_paused", "What is paused.", labels=["kind", "name"])
    for pause in Pause.objects.order_by("kind", "name"):
        if pause.holds(now):
            paused.add_metric([pause.kind, pause.name], 1)
    yield paused


def _of_emails(tally: Tally) -> Iterator[Metric]:
    emails = CounterMetricFamily(
        "celery_mailer_emails_finished", "Emails that became final.", labels=["lane", "stream", "status"]
    )
    for (what, *labels), number in sorted(tally.items()):
        if what == "emails":
            emails.add_metric(labels, number)
    yield emails
    delays = HistogramMetricFamily(
        "celery_mailer_delivery_delay_seconds",
        "From when an email was queued, or scheduled for, until a provider had accepted it.",
        labels=["lane"],
    )
    for lane in census.LANES:
        buckets = [(f"{seconds:g}", tally["within", lane, str(seconds)]) for seconds in BUCKETS]
        buckets.append(("+Inf", tally["within", lane, "+Inf"]))
        delays.add_metric([lane], buckets, sum_value=tally["delay", lane] / 1000)
    yield delays


_registry = CollectorRegistry()
_registry.register(MailerCollector())


@login_not_required
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """What Prometheus reads. It names providers and streams: mount it where only Prometheus comes."""
    return HttpResponse(generate_latest(_registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)
