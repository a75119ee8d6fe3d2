"""Delivers without a worker: what is due goes through the three stages in this process.

For sites that have a command run by cron, or by a timer of uWSGI's, in the place of workers and beat. So what
beat would repair, let go or cancel is done here, too. Beside workers it does no harm: of all who try, one
claims an email.
"""

import multiprocessing
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from uuid import UUID

from django.db import connections, router, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from celery_mailer import batches, chain, conf
from celery_mailer.deliver import providers
from celery_mailer.deliver.pauses import pauses
from celery_mailer.models import Email
from celery_mailer.models.transitions import WAKE, move
from celery_mailer.periodic import match_events, rescue, settle
from celery_mailer.values import Priority, Status


def drain(
    processes: int = 1, log_level: int | None = None, tell: Callable[[int], None] = lambda number: None
) -> Counter[str]:
    """Deliver all that is due, the urgent first; returns how many emails came to which status.

    ``log_level`` takes the place of that of the emails. ``tell`` hears how many are done; of several
    processes, at their end.
    """
    rescue()
    settle()
    match_events()
    if processes == 1:
        return _work(log_level, tell)
    # Neither a database connection nor an idle one to a provider may be used by two processes.
    connections.close_all()
    fork = multiprocessing.get_context("fork")  # a child has the project set up already
    counts: Counter[str] = Counter()
    with ProcessPoolExecutor(processes, fork) as pool:
        for done in [pool.submit(_work, log_level) for _ in range(processes)]:
            counts += done.result()
            tell(done.result().total())
    return counts


def _work(log_level: int | None, tell: Callable[[int], None] | None = None) -> Counter[str]:
    counts: Counter[str] = Counter()
    stuck: set[UUID] = set()  # what is still queued after its turn, whatever the cause, has no second one
    try:
        while ids := _take(stuck) or _released(stuck):
            taken = Email.objects.filter(pk__in=ids)
            if log_level is not None:
                taken.update(log_level=log_level)
            chain.run(ids)
            statuses = dict(taken.values_list("pk", "status"))
            counts.update(statuses.values())
            stuck.update(pk for pk, status in statuses.items() if status == Status.QUEUED)
            if tell is not None:
                tell(len(ids))
    finally:
        for alias in conf.get().providers:
            providers.close(alias)
    return counts


def _take(stuck: set[UUID]) -> list[UUID]:
    """A slice of the most urgent lane that has anything due."""
    using, now = router.db_for_write(Email), timezone.now()
    for priority in reversed(Priority):
        due = _deliverable(now, using).filter(priority=priority).exclude(pk__in=stuck).order_by("due_at")
        with transaction.atomic(using=using):
            if connections[using].features.has_select_for_update_skip_locked:
                due = due.select_for_update(skip_locked=True)
            ids = list(due.values_list("pk", flat=True)[: conf.get().batch_size])
            lease = conf.get().lease
            # Beyond what another process that drains would take.
            taken = move(ids, WAKE, due_at=now + 2 * lease, due_at__lte=now + lease)
        if taken:
            return taken
    return []


def _released(stuck: set[UUID]) -> list[UUID]:
    """The same, of what batches let go now that nothing else is due."""
    done = True
    while done:
        # Twice: the first sees how the canaries did that were sent here, the second lets go the others.
        done = any([batches.tend(start=False), batches.tend(start=False)])
        if ids := _take(stuck):
            return ids
    return []


def _deliverable(now: datetime, using: str) -> QuerySet[Email]:
    """What is due, and what has a chain of its own under way, for which there may be no worker."""
    waiting = Email.objects.using(using).filter(pauses.passing(now), due_at__lte=now + conf.get().lease)
    return waiting.filter(Q(due_at__lte=now) | Q(status=Status.QUEUED) & ~Q(scheduled_at__gt=now))
