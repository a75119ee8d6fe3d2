"""The one function behind all doors: check, insert, start the chain on commit.

Everything is checked before anything is written, and everything is written in the caller's transaction:
rolled back, the emails never existed; committed, they will be handled, whatever becomes of the broker.
"""

from collections.abc import Sequence
from functools import partial

from django.db import IntegrityError, router, transaction
from django.db.models import Q
from django.utils import timezone

from celery_mailer import chain, conf, moment
from celery_mailer.attaching import enclose
from celery_mailer.call import Call
from celery_mailer.exceptions import IdempotencyConflict, InvalidEmail
from celery_mailer.models import Batch, Email
from celery_mailer.models.insertion import insert, insert_both, point
from celery_mailer.models.recipient import note_further
from celery_mailer.signals import email_queued
from celery_mailer.validation import Row
from celery_mailer.validation import row as checked_row
from celery_mailer.values import ALONE, EmailRequest, Priority


def enqueue(requests: Sequence[EmailRequest], *, as_batch: bool = False, start: bool = True) -> list[Email]:
    """Persist ``requests`` and start their chains on commit; the emails come back in the same order.

    A request whose idempotency key (or id) was seen before gives the email of then. Raises
    ``InvalidEmail`` before anything is written. With ``start=False`` the caller starts the chain.
    """
    rows = checked_rows(requests)
    if not start:
        for row in rows:
            row.email.reason = ALONE
    using = router.db_for_write(Email)
    repeatable = any(r.idempotency_key is not None or r.id is not None for r in requests)
    new = (_insert_once if repeatable else _insert)(rows, using, as_batch)
    if start and new:
        _start_on_commit(new, using)
    if email_queued.has_listeners(Email) and any(e.priority != Priority.NOW for e in new):
        queued = [e for e in new if e.priority != Priority.NOW]
        transaction.on_commit(
            partial(email_queued.send_robust, sender=Email, emails=queued), using=using, robust=True
        )
    return [row.email for row in rows]


def checked_rows(requests: Sequence[EmailRequest]) -> list[Row]:
    """The rows for ``requests``, unsaved. Raises ``InvalidEmail`` for the first that has a fault."""
    call = Call(timezone.now(), conf.get().lease)
    rows = []
    for i, request in enumerate(requests):
        try:
            rows.append(checked_row(request, call))
        except InvalidEmail as error:
            error.add_note(f"in email {i} of the call")
            raise
    return rows


def _insert(rows: list[Row], using: str, as_batch: bool) -> list[Email]:
    if not (as_batch and rows):
        return insert_rows(rows, using)
    with transaction.atomic(using=using, savepoint=False):
        batch = Batch.objects.using(using).create(total=len(rows), taken=len(rows))
        for row in rows:
            point(row.email, "batch", batch)
        return insert_rows(rows, using)


def insert_rows(rows: list[Row], using: str) -> list[Email]:
    """Write ``rows`` into the database ``using`` names, all or nothing; returns their emails."""
    emails = [row.email for row in rows]
    if len(rows) == 1 and not rows[0].files and len(emails[0].recipients) == 1:
        insert_both(emails[0], rows[0].content, using)
        return emails
    with transaction.atomic(using=using, savepoint=False):
        insert(emails, using)
        note_further(emails, using)
        insert([row.content for row in rows], using)
        if any(row.files for row in rows):
            enclose([(row.email, row.files) for row in rows], using, timezone.now())
    return emails


def _insert_once(rows: list[Row], using: str, as_batch: bool) -> list[Email]:
    """Insert what is not there yet; ``rows`` then has the earlier email in the place of a repetition."""
    asked = list(rows)
    try:
        with transaction.atomic(using=using):  # a savepoint: the caller's transaction must survive
            return _insert(_replace_known(rows, using), using, as_batch)
    except IntegrityError:
        # The same key was committed by somebody else between the look and the insert.
        rows[:] = asked
        return _insert(_replace_known(rows, using), using, as_batch)


def _replace_known(rows: list[Row], using: str) -> list[Row]:
    """Put the email of then in the place of each repetition in ``rows``; returns those that are new."""
    keys = [row.email.idempotency_key for row in rows if row.email.idempotency_key is not None]
    which = Q(pk__in=[row.email.pk for row in rows]) | Q(idempotency_key__in=keys)
    known: dict[object, Email] = {}
    for email in Email.objects.using(using).filter(which).select_related("content"):
        known[email.pk] = known[email.idempotency_key or email.pk] = email
    new = []
    for i, row in enumerate(rows):
        key = row.email.idempotency_key
        first = known.setdefault(key or row.email.pk, row.email)
        if first is row.email:
            new.append(row)
            continue
        if key is not None and first.content.fingerprint != row.content.fingerprint:
            raise IdempotencyConflict("idempotency_key", f"has been used for another email, {first.pk}")
        rows[i] = row._replace(email=first)
    return new


def _start_on_commit(emails: list[Email], using: str) -> None:
    """Start their chains on commit, together with those of the transaction's other emails, if nobody waits
    for each one's own."""
    connection = transaction.get_connection(using)
    start = _Start(list(emails), set(connection.savepoint_ids))
    if not chain.results_are_kept():
        calls = (call for _, call, _ in reversed(connection.run_on_commit))
        last = next((call for call in calls if isinstance(call, _Start)), None)
        if last and last.savepoints == start.savepoints:  # rolled back together, or not at all
            last.following = start
    transaction.on_commit(start, using=using)


class _Start:
    """What a call leaves for the commit: to start its own emails with those of the calls after it.

    Never with those of a call before: a test may run what one block of it left, and nothing else.
    """

    def __init__(self, emails: list[Email], savepoints: set[str]) -> None:
        self.emails = emails
        self.savepoints = savepoints
        self.following: _Start | None = None
        self._begun = False

    def __call__(self) -> None:
        emails: list[Email] = []
        start: _Start | None = self
        while start and not start._begun:
            start._begun = True
            emails += start.emails
            start = start.following
        if emails:
            _go(emails)


def _go(emails: list[Email]) -> None:
    """After commit: send what is wanted now, start chains for what is due; the dispatcher has the rest."""
    now = timezone.now()
    for priority in sorted({e.priority for e in emails}, reverse=True):
        due = [e for e in emails if e.priority == priority and not (e.scheduled_at and e.scheduled_at > now)]
        if priority == Priority.NOW:
            chain.run([e.pk for e in due])
            for email in due:
                email.refresh_from_db()
        else:
            moment.start([e.pk for e in due], priority)
