"""What beat drives: dispatch, rescue, settle, match events, watch, cleanup; and its rows in the database.

Every job may run twice at once (two beats double every tick), is bounded per run, and returns its counts.
Each is a Celery task; called directly it is a plain function, which is what the commands do.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from celery import shared_task
from django.db import connections, router, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from celery_mailer import batches, chain, conf, options, reputation, routing
from celery_mailer.broker import outstanding
from celery_mailer.deliver.pauses import pauses
from celery_mailer.deliver.routes import candidates
from celery_mailer.deliver.slice import in_doubt
from celery_mailer.log.settle import settle as judge
from celery_mailer.log.settle import unjudged
from celery_mailer.models import Attempt, Batch, Email, Pause, ProviderChange
from celery_mailer.models.alarm import delete_old_alarms
from celery_mailer.models.attachment import delete_unused
from celery_mailer.models.bucket import delete_expired_buckets
from celery_mailer.models.captured import delete_captured
from celery_mailer.models.connection import survives_lost_connection
from celery_mailer.models.event import delete_unknown_events
from celery_mailer.models.figure import delete_old_figures
from celery_mailer.models.suppression import delete_expired_suppressions
from celery_mailer.models.template import delete_unused_versions
from celery_mailer.models.transitions import REQUEUE, WAKE, drop_content, move
from celery_mailer.schedule import SCHEDULE
from celery_mailer.tracking.events import match_parked
from celery_mailer.values import Kind, Outcome, Priority, Status

DISPATCH_LIMIT = 2_000  # emails woken at a time, for one priority
OUTSTANDING = 1_000  # messages in a lane above which the dispatcher adds none
SHORT = 100  # messages in a lane up to which it wakes more in the same run
SETTLE_AFTER = timedelta(seconds=15)  # the log task normally comes within this time
KEEP_UNUSED = timedelta(days=1)  # an attachment that no email has, since it was last given to one
STEP = 1_000  # rows that the other jobs take at a time
STEPS = 50  # how often they do so in one run, at most


@shared_task(name=routing.DISPATCH, serializer="json", ignore_result=True)
@survives_lost_connection
def dispatch() -> dict[str, int]:
    """Start chains for emails that are due: retries, scheduled mail, and whose message was lost.

    A taken email becomes due again a lease later, should this message be lost too. A lane whose queue is
    long gets nothing more: its emails have their messages already, or can wait in the database as well as
    in the broker; so a backlog does not multiply messages.
    """
    counts = {"dispatched": 0, **batches.tend()}
    for priority in reversed(Priority):
        number, published = _wake(priority)
        counts["dispatched"] += number
        if not published:
            break
    return counts


def _wake(priority: int) -> tuple[int, bool]:
    """Start chains for what is due in a lane: more than ``DISPATCH_LIMIT`` only while its queue stays short.

    Returns how many emails were taken, and whether the broker has their messages.
    """
    number, waiting, most = 0, outstanding(routing.lane(priority)) or 0, OUTSTANDING
    while waiting < most:
        taken = _take_due(priority, timezone.now())
        number += len(taken)
        if taken and not chain.start(taken, priority):
            return number, False
        if len(taken) < DISPATCH_LIMIT:
            break
        waiting, most = waiting + ceil(len(taken) / conf.get().batch_size), SHORT
    return number, True


def _take_due(priority: int, now: datetime) -> list[Any]:
    using = router.db_for_write(Email)
    due = Email.objects.using(using).filter(pauses.passing(now), priority=priority, due_at__lte=now)
    due = due.order_by("due_at")
    with transaction.atomic(using=using):
        if connections[using].features.has_select_for_update_skip_locked:
            due = due.select_for_update(skip_locked=True)
        ids = list(due.values_list("pk", flat=True)[:DISPATCH_LIMIT])
        return move(ids, WAKE, due_at=now + conf.get().lease, due_at__lte=now)


@shared_task(name=routing.RESCUE, serializer="json", ignore_result=True)
@survives_lost_connection
def rescue() -> dict[str, int]:
    """Take emails back from workers that vanished: their lease ran out.

    What has a fact is judged by it. Of the rest, what may have been handed over becomes uncertain, with
    an attempt that says so; what was certainly not begun is queued again, due at once.
    """
    now = timezone.now()
    counts = {"judged": _in_steps(lambda: judge(unjudged().filter(email__lease_until__lt=now)[:STEP]))}
    stuck = Email.objects.filter(lease_until__lt=now).order_by("lease_until")
    claims = set(stuck.values_list("claim", flat=True)[:STEP])
    lost = {claim: _rescue_claim(claim, now) for claim in claims}
    counts["uncertain"] = sum(doubtful for doubtful, _ in lost.values())
    counts["requeued"] = sum(requeued for _, requeued in lost.values())
    return counts


def _rescue_claim(claim: Any, now: datetime) -> tuple[int, int]:
    held = Email.objects.filter(status=Status.SENDING, claim=claim, lease_until__lt=now)
    has_fact = Exists(Attempt.objects.filter(email_id=OuterRef("pk"), claim=claim))
    emails = {e.pk: e for e in held.filter(~has_fact)}
    doubtful, untouched = in_doubt(list(emails))
    with transaction.atomic(using=router.db_for_write(Email)):
        requeued = move(
            untouched, REQUEUE, reason=Kind.WORKER_LOST, due_at=now, claim=claim, lease_until__lt=now
        )
        facts = [_lost_attempt(emails[pk], claim, now) for pk in doubtful]
        Attempt.objects.bulk_create(facts)
        judge(unjudged().filter(pk__in=[f.pk for f in facts]))
    return len(doubtful), len(requeued)


def _lost_attempt(email: Email, claim: Any, now: datetime) -> Attempt:
    routes = candidates(email)
    return Attempt(
        email_id=email.pk,
        claim=claim,
        provider=routes[0] if len(routes) == 1 else "",  # of several, nobody knows which
        started_at=now,
        finished_at=now,
        outcome=Outcome.UNCERTAIN,
        kind=Kind.WORKER_LOST,
        text="the worker vanished between the claim and its report",
    )


@shared_task(name=routing.SETTLE, serializer="json", ignore_result=True)
@survives_lost_connection
def settle() -> dict[str, int]:
    """Judge facts whose log task was lost."""
    overdue = unjudged().filter(finished_at__lt=timezone.now() - SETTLE_AFTER)
    return {"judged": _in_steps(lambda: judge(overdue.all()[:STEP]))}


@shared_task(name=routing.MATCH_EVENTS, serializer="json", ignore_result=True)
@survives_lost_connection
def match_events() -> dict[str, int]:
    """Look for the emails of events that came before them."""
    return {"looked_for": _in_steps(lambda: match_parked(STEP))}


@shared_task(name=routing.WATCH, serializer="json", ignore_result=True)
@survives_lost_connection
def watch() -> dict[str, int]:
    """Count what was sent, and pause streams and batches of which too much comes back."""
    return reputation.watch()


@shared_task(name=routing.CLEANUP, serializer="json", ignore_result=True)
@survives_lost_connection
def cleanup() -> dict[str, int]:
    """Drop contents and delete emails that are final for longer than their stream keeps them."""
    settings, now = conf.get(), timezone.now()
    counts = {"contents_dropped": 0, "emails_deleted": 0}
    old = Email.objects.order_by("finished_at")
    groups = [(old.filter(stream=name), stream) for name, stream in settings.streams.items()]
    groups.append((old.exclude(stream__in=settings.streams), options.Stream()))  # no longer configured
    for emails, stream in groups:
        keep = stream.retention or settings.retention
        counts["emails_deleted"] += _delete(emails.filter(finished_at__lt=now - keep))
        keep = stream.content_retention or settings.content_retention
        counts["contents_dropped"] += _drop(emails.filter(finished_at__lt=now - keep, content__dropped=False))
    counts["files_deleted"] = _in_steps(lambda: delete_unused(now - KEEP_UNUSED, STEP))
    old_captures = now - settings.content_retention
    counts["captured_deleted"] = _in_steps(lambda: delete_captured(old_captures, STEP))
    counts["versions_deleted"] = delete_unused_versions()
    kept_until = now - settings.retention
    counts["events_deleted"] = _in_steps(lambda: delete_unknown_events(kept_until, STEP))
    counts["suppressions_deleted"] = _in_steps(lambda: delete_expired_suppressions(kept_until, STEP))
    counts["buckets_deleted"] = _in_steps(lambda: delete_expired_buckets(now - KEEP_UNUSED, STEP))
    longest = max([settings.retention, *(s.retention for s in settings.streams.values() if s.retention)])
    counts["figures_deleted"] = _in_steps(lambda: delete_old_figures(now - longest, STEP))
    delete_old_alarms(now - longest)
    Pause.objects.filter(until__lt=now).delete()
    ProviderChange.objects.filter(at__lt=now - settings.retention).delete()
    Batch.objects.filter(emails=None, created_at__lt=now - settings.retention).delete()
    return counts


def _delete(emails: QuerySet[Email]) -> int:
    def step() -> int:
        ids = list(emails.values_list("pk", flat=True)[:STEP])
        Email.objects.filter(pk__in=ids).delete()
        return len(ids)

    return _in_steps(step)


def _drop(emails: QuerySet[Email]) -> int:
    def step() -> int:
        ids = list(emails.values_list("pk", flat=True)[:STEP])
        drop_content(ids)
        return len(ids)

    return _in_steps(step)


def _in_steps(step: Callable[[], int]) -> int:
    """Repeat ``step`` while it finds plenty to do; short transactions keep out of everybody's way."""
    total = 0
    for _ in range(STEPS):
        done = step()
        total += done
        if done < STEP:
            break
    return total


def install_schedule() -> int:
    """Make django-celery-beat's rows for the jobs that have none yet; returns how many were made.

    An edited or disabled row stays as it is. A deleted one comes back with the next ``migrate``.
    """
    from django_celery_beat.models import PeriodicTask

    made = 0
    for name, every in SCHEDULE.items():
        if PeriodicTask.objects.filter(Q(name=name) | Q(task=name)).exists():
            continue
        seconds = int(every.total_seconds())
        defaults = {
            "task": name,
            "interval": _interval(seconds),
            "expire_seconds": seconds,  # a tick that no worker took in time: the next one does its work
            "description": _purpose(name),
        }
        made += PeriodicTask.objects.get_or_create(name=name, defaults=defaults)[1]
    return made


def _interval(seconds: int) -> Any:
    from django_celery_beat.models import IntervalSchedule

    # Not get_or_create: nothing keeps equal intervals from being there twice.
    same = {"every": seconds, "period": IntervalSchedule.SECONDS}
    return IntervalSchedule.objects.filter(**same).first() or IntervalSchedule.objects.create(**same)


def _purpose(name: str) -> str:
    jobs = {
        routing.DISPATCH: dispatch,
        routing.RESCUE: rescue,
        routing.SETTLE: settle,
        routing.MATCH_EVENTS: match_events,
        routing.WATCH: watch,
        routing.CLEANUP: cleanup,
    }
    return (jobs[name].__doc__ or "").partition("\n")[0]
