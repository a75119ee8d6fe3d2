"""Writes down opens and clicks, as far as all who have a say still allow it."""

from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from celery import shared_task
from django.db import Error as DatabaseFailure
from django.db import router, transaction
from django.db.models import Max

from celery_mailer import routing
from celery_mailer.addresses import bare
from celery_mailer.consent import Mode, ceiling, consented
from celery_mailer.models import Attempt, Email, Event
from celery_mailer.models.connection import survives_lost_connection
from celery_mailer.models.tally import Counted, tally
from celery_mailer.tracking.events import Happening, record
from celery_mailer.tracking.machines import is_too_soon
from celery_mailer.values import EventKind, Outcome, Status

WHAT = {EventKind.OPENED: "opens", EventKind.CLICKED: "clicks"}


# About three hours of trying while the database is away. Late acknowledgement: what a lost worker had comes
# again. An event that is told twice is told once, but numbers of nobody in particular may get too high.
@shared_task(
    name=routing.RECORD_VISITS,
    serializer="json",
    ignore_result=True,
    acks_late=True,
    autoretry_for=(DatabaseFailure,),
    retry_backoff=1,
    retry_backoff_max=600,
    max_retries=25,
)
def record_visits(visits: list[dict[str, Any]]) -> int:
    """Record visits as ``visits.visit`` makes them; returns how many were."""
    return record_all(visits)


@survives_lost_connection
def record_all(visits: list[dict[str, Any]]) -> int:
    ids = {UUID(visit["email"]) for visit in visits if "email" in visit}
    emails = Email.objects.in_bulk(ids) if ids else {}
    handed_over = _handed_over(ids)
    happenings: list[Happening] = []
    counts: Counter[Counted] = Counter()
    for visit in visits:
        kind, at = EventKind(visit["kind"]), datetime.fromisoformat(visit["at"])
        if "email" not in visit:
            if ceiling(visit["stream"], WHAT[kind]):
                batch_id = UUID(visit["batch"]) if visit["batch"] else None
                counts[_counted(kind, at, visit["stream"], batch_id, visit["machine"])] += 1
        elif (email := emails.get(UUID(visit["email"]))) is not None:
            machine = visit["machine"] or _is_too_soon(email, at, handed_over.get(email.pk))
            mode = _mode(email, kind)
            if mode == Mode.IDENTIFIED:
                url, event_id = visit["url"], visit["id"]
                happenings.append(
                    Happening(kind, at, email_id=email.pk, event_id=event_id, url=url, machine=machine)
                )
            elif mode == Mode.ANONYMOUS:
                counts[_counted(kind, at, email.stream, email.batch_id, machine)] += 1
    with transaction.atomic(using=router.db_for_write(Event)):
        record(happenings)
        tally(counts)
    return len(happenings) + counts.total()


def _mode(email: Email, kind: EventKind) -> Mode:
    """What may be known now; when the mail was sent, it may have been more."""
    allowed = ceiling(email.stream, WHAT[kind])
    if allowed == Mode.OFF:
        return allowed
    asked = (consented(bare(address), email.stream, recording=True) for address in email.recipients)
    return min([allowed, *asked])


def _counted(kind: EventKind, at: datetime, stream: str, batch_id: UUID | None, machine: bool) -> Counted:
    return Counted(kind, at.astimezone(UTC).date(), stream, batch_id, machine)


def _is_too_soon(email: Email, at: datetime, handed_over: datetime | None) -> bool:
    if handed_over is None and email.status == Status.SENDING:
        return True  # it was not taken yet: a gateway looks into mail before it takes it
    return is_too_soon(at, handed_over or email.finished_at)  # LOG_LEVEL may have let the attempt go


def _handed_over(ids: Collection[UUID]) -> dict[UUID, datetime]:
    """When each of ``ids`` was, for the last time, as far as attempts tell: an email is final only later."""
    taken = Attempt.objects.filter(email_id__in=ids, outcome__in=[Outcome.ACCEPTED, Outcome.UNCERTAIN])
    rows = taken.values("email_id").order_by().annotate(last=Max("finished_at"))
    return dict(rows.values_list("email_id", "last")) if ids else {}
