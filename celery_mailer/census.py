"""What is in the tables at this moment, in numbers: for commands, metrics and health checks.

Nothing here reads the whole table of emails: what waits, is being sent or is held has an index that holds
little else, and of what is final only the latest is counted.
"""

from datetime import datetime

from django.db.models import Case, Count, Min, Q, QuerySet, When
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
    """By lane, for how many seconds the email that may be sent for longest has waited; 0 if none waits."""
    ages = dict.fromkeys(LANES, 0.0)
    emails = _perhaps_due(now).order_by().values("priority").annotate(since=_since(now))
    for priority, since in emails.values_list("priority", "since"):
        if since is not None:
            lane = lane_of(priority)
            ages[lane] = max(ages[lane], (now - since).total_seconds())
    return ages


def waits_since(priority: Priority, now: datetime, bound: int) -> datetime | None:
    """Since when the one waits that may be sent for longest, of the first ``bound`` that the dispatcher will
    look at."""
    first = _perhaps_due(now).filter(priority=priority).order_by("due_at")[:bound]
    since: datetime | None = first.aggregate(since=_since(now))["since"]
    return since


def _perhaps_due(now: datetime) -> QuerySet[Email]:
    return Email.objects.filter(due_at__lte=now + conf.get().lease)  # a message under way ends by then


def _since(now: datetime) -> Min:
    """One that nobody has tried yet waits since it was queued, or scheduled for: the dispatcher moves its
    ``due_at`` on with each message that it publishes, also if no worker serves the lane. Others wait since
    they are due.
    """
    untried = Q(status=Status.QUEUED, attempt_count=0) & ~Q(scheduled_at__gt=now)
    return Min(
        Case(When(untried, then=Coalesce("scheduled_at", "created_at")), When(due_at__lte=now, then="due_at"))
    )
