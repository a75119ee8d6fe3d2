"""What is in the tables at this moment, in numbers: for commands, metrics and health checks.

Nothing here reads the whole table of emails: what waits, is being sent or is held has an index that holds
little else, and of what is final only the latest is counted.
"""

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Count, Min, QuerySet
from django.db.models.functions import Coalesce

from celery_mailer import conf
from celery_mailer.models import Email
from celery_mailer.values import Priority, Status

UNFINISHED = [Status.QUEUED, Status.SENDING, Status.DEFERRED, Status.UNCERTAIN]
LANES = [str(p.label) for p in (Priority.HIGH, Priority.MEDIUM, Priority.LOW)]

Counts = dict[str, dict[str, int]]  # by lane, then by status


def lane_of(priority: int) -> str:
    """The lane's name; what was to be sent ``now`` is retried in the high one."""
    return str(Priority(min(priority, Priority.HIGH)).label)


def unfinished() -> Counts:
    """How many emails are not final, by lane and status."""
    counts = _empty(UNFINISHED)
    for emails in (
        Email.objects.filter(due_at__isnull=False),
        Email.objects.filter(lease_until__isnull=False),
        Email.objects.filter(status=Status.UNCERTAIN),
    ):
        _add(counts, emails)
    return counts


def finished(since: datetime) -> Counts:
    """How many emails became final since then, by lane and status."""
    counts = _empty([s for s in Status if s not in UNFINISHED])
    _add(counts, Email.objects.filter(finished_at__gte=since))
    return counts


def _empty(statuses: list[Status]) -> Counts:
    return {lane: dict.fromkeys(map(str, statuses), 0) for lane in LANES}


def _add(counts: Counts, emails: QuerySet[Email]) -> None:
    rows = emails.values_list("priority", "status").annotate(number=Count("pk")).order_by()
    for priority, status, number in rows:
        counts[lane_of(priority)][status] += number


def oldest_due(now: datetime) -> dict[str, float]:
    """By lane, for how many seconds the email that may be sent for longest has waited; 0 if none waits.

    One that nobody has tried yet waits since it was queued, or scheduled for: the dispatcher moves its
    ``due_at`` on with each message that it publishes, also if no worker serves the lane. Others wait since
    they are due.
    """
    ages = dict.fromkeys(LANES, 0.0)
    for priority, since in [*_untried(now), *_due_again(now)]:
        if since is not None:
            lane = lane_of(priority)
            ages[lane] = max(ages[lane], (now - since).total_seconds())
    return ages


def _untried(now: datetime) -> Iterator[tuple[int, datetime | None]]:
    soon = now + conf.get().lease  # what has a message under way is due after that
    emails = Email.objects.filter(status=Status.QUEUED, attempt_count=0, due_at__lte=soon)
    emails = emails.exclude(scheduled_at__gt=now).order_by()
    since = Min(Coalesce("scheduled_at", "created_at"))
    yield from emails.values_list("priority").annotate(since=since).values_list("priority", "since")


def _due_again(now: datetime) -> Iterator[tuple[int, datetime | None]]:
    emails = Email.objects.filter(due_at__lte=now).order_by()
    yield from emails.values_list("priority").annotate(since=Min("due_at")).values_list("priority", "since")
