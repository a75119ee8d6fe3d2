"""Writes down opens and clicks, as far as all who have a say still allow it."""

from collections import Counter
from collections.abc import Collection, Iterable
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
from celery_mailer.values import EventKind

WHAT = {EventKind.OPENED: "opens", EventKind.CLICKED: "clicks"}


# About three hours of trying while the database is away. Late acknowledgement: told twice is told once.
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
    sent = _sent_at(emails.values())
    happenings: list[Happening] = []
    counts: Counter[Counted] = Counter()
    for visit in visits:
        kind, at = EventKind(visit["kind"]), datetime.fromisoformat(visit["at"])
        if "email" not in visit:
            if ceiling(visit["stream"], WHAT[kind]):
                batch_id = UUID(visit["batch"]) if visit["batch"] else None
                counts[_counted(kind, at, visit["stream"], batch_id, visit["machine"])] += 1
        elif (email := emails.get(UUID(visit["email"]))) is not None:
            machine = visit["machine"] or is_too_soon(at, sent.get(email.pk))
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
    return min([allowed, *(consented(bare(address), email.stream) for address in email.recipients)])


def _counted(kind: EventKind, at: datetime, stream: str, batch_id: UUID | None, machine: bool) -> Counted:
    return Counted(kind, at.astimezone(UTC).date(), stream, batch_id, machine)


def _sent_at(emails: Iterable[Email]) -> dict[UUID, datetime]:
    """When each was handed over, as far as is known: before it is final, its attempts say it."""
    known = {email.pk: email.finished_at for email in emails}
    sent = {pk: at for pk, at in known.items() if at is not None}
    return sent | _attempted([pk for pk in known if pk not in sent])


def _attempted(ids: Collection[UUID]) -> dict[UUID, datetime]:
    rows = Attempt.objects.filter(email_id__in=ids).values("email_id").order_by()
    return dict(rows.annotate(last=Max("finished_at")).values_list("email_id", "last")) if ids else {}
