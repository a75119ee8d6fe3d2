"""Mail that was queued one by one goes together where many wait.

A chain costs Celery and the database nearly as much for one email as for a hundred. So in a lane that is
busy, the first stage takes others along that wait there for chains of their own, and passes all of them on as
one slice; a chain whose email went along ends with its first task. On an idle system nothing of this happens,
and nothing is asked.

The mark is a hint, like a message: what went along with a task that was lost has its time with the dispatcher
as before, and the claim in deliver decides who sends.
"""

import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections, router, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from celery_mailer import conf
from celery_mailer.models import Email
from celery_mailer.models.connection import survives_lost_connection
from celery_mailer.values import TOGETHER, Status

LOOK = 500  # emails that are due, among which a process looks for such as wait for their chains
BUSY = 0.1  # seconds since the last single email, up to which a process takes its lane for busy
MOMENT = 0.03  # seconds to wait for more, where there are some


class _Lately:
    """When this process was last asked for a single email."""

    at = float("-inf")

    def busy(self) -> bool:
        now = time.monotonic()
        busy, self.at = now - self.at < BUSY, now
        return busy


_lately = _Lately()


@survives_lost_connection
def gather(own: UUID, priority: int) -> list[UUID]:
    """``own`` with what it takes along of its lane, or nothing if it went along with another."""
    if not _lately.busy():
        return [own]
    if not Email.objects.filter(pk=own, status=Status.QUEUED).exclude(reason=TOGETHER).exists():
        return []
    company = _company(own, priority, conf.get().batch_size - 1)
    _lately.at = time.monotonic()
    return [own, *company]


def _company(own: UUID, priority: int, most: int) -> list[UUID]:
    found = _take(own, priority, most)
    if 0 < len(found) < most:
        # Many are coming: in a moment there are more, and they share what a slice costs.
        time.sleep(MOMENT)
        found += _take(own, priority, most - len(found))
    return found


def _take(own: UUID, priority: int, most: int) -> list[UUID]:
    now = timezone.now()
    found = _marked(_fresh(own, priority, now)[:most])
    return found if len(found) == most else found + _marked(_overdue(own, priority, now)[: most - len(found)])


def _fresh(own: UUID, priority: int, now: datetime) -> "QuerySet[Email, Any]":
    """What was queued less than a lease ago, and not touched since: its chain is on its way."""
    emails = _alone(
        Email.objects.filter(priority=priority, due_at__gt=now, due_at__lte=now + conf.get().lease)
    )
    return emails.exclude(pk=own).order_by("due_at").values_list("pk", flat=True)


def _overdue(own: UUID, priority: int, now: datetime) -> list[UUID]:
    """What waits for longer, of the first that are due: to a full lane the dispatcher adds nothing."""
    due = Email.objects.filter(priority=priority, due_at__lte=now).order_by("due_at")
    first = list(due.values_list("pk", flat=True)[:LOOK])
    return list(_alone(Email.objects.filter(pk__in=first)).exclude(pk=own).values_list("pk", flat=True))


def _alone(emails: "QuerySet[Email]") -> "QuerySet[Email]":
    """Those that were queued one by one, and have not gone along yet."""
    on_time = Q(scheduled_at=None) | Q(scheduled_at__lte=timezone.now())
    return emails.filter(on_time, status=Status.QUEUED, reason="", batch=None)


def _marked(ids: Iterable[UUID]) -> list[UUID]:
    """Mark those of ``ids`` that no other process is about to mark, and return them."""
    using = router.db_for_write(Email)
    ids = list(ids)
    if not ids:
        return []
    rows = Email.objects.using(using).filter(pk__in=ids, status=Status.QUEUED, reason="")
    with transaction.atomic(using=using):
        if connections[using].features.has_select_for_update_skip_locked:
            rows = rows.select_for_update(skip_locked=True)
        ids = list(rows.order_by("pk").values_list("pk", flat=True))
        Email.objects.using(using).filter(pk__in=ids).update(reason=TOGETHER)
    return ids
