"""One call, many emails: a batch with an email of its own for each recipient, never all in memory.

Recipients are taken in slices: one is checked and inserted, and its chains are started, before the next is
read.

In autocommit each slice is a transaction of its own, so that workers send the first while the last are still
being read. A process that dies in the middle leaves a batch that ``reading`` says is not complete; the same
call with the same key goes through the recipients again and adds those that have no email in the batch. That
goes by address, not by position: a queryset or a file may have changed in the meantime.

Inside a transaction of the caller's all slices belong to it, and to a savepoint of their own: a call that
raises has written nothing. What is to be started at its commit is then read from the database, in pages.

A fault of one recipient is counted and reported on the batch, without the address, and the others get their
mail. A fault of what all have in common is raised before anything is written, as is a list that is not one of
recipients: either meets the first of them.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connections, router, transaction
from django.db.models import QuerySet
from django.utils import timezone

from celery_mailer import chain, conf
from celery_mailer.addresses import named
from celery_mailer.attaching import read_files
from celery_mailer.audience import Audience
from celery_mailer.batches import HELD
from celery_mailer.call import Call
from celery_mailer.enqueue import insert_rows
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Batch, Email
from celery_mailer.models.context import Shared
from celery_mailer.models.insertion import point
from celery_mailer.models.recipient import searchable
from celery_mailer.repetition import hashed_key
from celery_mailer.seen import Seen
from celery_mailer.signals import email_queued
from celery_mailer.sources import Finder
from celery_mailer.validation import Row, parse_priority
from celery_mailer.validation import row as checked_row
from celery_mailer.values import EmailRequest, Priority, Status

SLICE = 2_000  # recipients that are inserted by one transaction, at most
FAULTS = 100  # of the recipients that were refused, so many are described
CANARY_FAILURES = 0.05
HELD_FOR = timedelta(days=3650)  # until somebody lets it go; the dispatcher need not look at it before
BROKER_REST = 10.0  # seconds for which a broker that was not reached is left alone


def persist(
    common: EmailRequest,
    recipients: Iterable[Any],
    key: str | None = None,
    *,
    email_field: str = "email",
    canary: int = 0,
    canary_failures: float = CANARY_FAILURES,
) -> Batch:
    """Persist an email like ``common`` for each of ``recipients``; returns their batch.

    The same ``key`` gives the batch of then, and completes it where the process died in the middle. With
    ``canary``, so many emails go first, and the others when at most the share ``canary_failures`` of them
    failed (``batches``). Raises ``InvalidEmail`` for what is wrong with the whole of the call.
    """
    audience = Audience(recipients, email_field)
    intake = _Intake(common, key, canary, canary_failures)
    whole = connections[intake.using].in_atomic_block
    with transaction.atomic(using=intake.using) if whole else nullcontext():
        return intake.run(audience)


class _Intake:
    """One call, while it takes its recipients."""

    def __init__(self, common: EmailRequest, key: str | None, canary: int, canary_failures: float) -> None:
        self.using = router.db_for_write(Email)
        self.lease = conf.get().lease
        self.templates = Finder()  # one for the call: all get the same version
        self.files = read_files("attachments", common.attachments)
        self.common = _checked(common)
        key = common.idempotency_key if common.idempotency_key is not None else key
        self.key = hashed_key(key)
        _check_canary(canary, canary_failures, self.common)
        self.canary, self.canary_failures = canary, canary_failures
        self.shared = {name: _once(value) for name, value in (self.common.context or {}).items()}
        self.taken = self.valid = 0
        self.faults: list[list[Any]] = []  # position, field, fault
        self.total = 0  # emails in the batch, as far as this call knows
        self.seen = Seen()
        self.alone = True  # nobody else has put an address into this batch
        self.start = _Start(self.common.priority)

    def run(self, audience: Audience) -> Batch:
        batch = Batch.objects.using(self.using).filter(idempotency_key=self.key).first() if self.key else None
        if batch is not None and not batch.reading:
            return batch
        own = not connections[self.using].in_atomic_block
        for items in audience.slices(conf.get().batch_size, SLICE):
            call = Call(timezone.now(), self.lease, self.templates)
            rows = [row for item in items if (row := self._row(audience, item, call)) is not None]
            with transaction.atomic(using=self.using, savepoint=False):
                batch = self._locked(batch or self._new_batch())
                if batch.cancelled_at is not None:
                    return batch
                emails = self._insert(rows, batch)
                if own:
                    self.start.on_commit(emails, self.using)
        if batch is None:
            raise InvalidEmail("recipients", "is empty")
        Batch.objects.using(self.using).filter(pk=batch.pk).update(reading=False)
        batch.reading = False
        if not own:
            transaction.on_commit(partial(self.start.all_of, batch), using=self.using)
        return batch

    def _row(self, audience: Audience, item: Any, call: Call) -> Row | None:
        """What ``item`` comes to, unsaved; or nothing, and its fault is noted."""
        self.taken += 1
        recipient: Mapping[str, Any] = {}
        try:
            recipient = audience.read(item)
            row = checked_row(self._personal(recipient), call)
        except InvalidEmail as error:
            if not (self.valid or _is_theirs(error, recipient)):
                raise  # nobody has passed so far: it is the call that is wrong
            self._note(error)
            return None
        self.valid += 1
        row.content.has_attachments = bool(self.files)
        return row._replace(files=self.files)

    def _note(self, error: InvalidEmail) -> None:
        if len(self.faults) < FAULTS:
            field = "email" if error.field.startswith("to[") else error.field
            self.faults.append([self.taken - 1, field, error.fault])

    def _personal(self, recipient: Mapping[str, Any]) -> EmailRequest:
        email, name = str(recipient["email"]), str(recipient.get("name") or "")
        context = {"email": email, "name": ""} | self.shared | ({"name": name} if name else {})
        return replace(
            self.common,
            to=named(name, email),
            context=context | dict(recipient.get("context") or {}),
            language=recipient.get("language") or self.common.language,
        )

    def _new_batch(self) -> Batch:
        values = {
            "total": 0,
            "reading": True,
            "stage": Batch.Stage.CANARY if self.canary else Batch.Stage.NONE,
            "canary": self.canary,
            "canary_failures": self.canary_failures,
        }
        batches = Batch.objects.using(self.using)
        if self.key is None:
            return batches.create(**values)
        return batches.get_or_create(idempotency_key=self.key, defaults=values)[0]

    def _locked(self, batch: Batch) -> Batch:
        """The batch as it is now, and until this transaction ends; what was taken is written down on it.

        By an update, which locks its row on every database.
        """
        rows = Batch.objects.using(self.using).filter(pk=batch.pk)
        rows.update(taken=self.taken, invalid=self.taken - self.valid, faults=self.faults)
        batch = rows.get()
        self.alone = self.alone and batch.total == self.total
        return batch

    def _insert(self, rows: Sequence[Row], batch: Batch) -> list[Email]:
        new = self._without_duplicates(rows, batch)
        for position, row in enumerate(new, batch.total):
            point(row.email, "batch", batch)
            if position >= batch.canary and batch.stage in (Batch.Stage.CANARY, Batch.Stage.REFUSED):
                row.email.reason = HELD
                row.email.due_at = row.email.created_at + HELD_FOR
        emails = insert_rows(new, self.using)
        self.total = batch.total = batch.total + len(emails)
        Batch.objects.using(self.using).filter(pk=batch.pk).update(total=batch.total)
        return emails

    def _without_duplicates(self, rows: Sequence[Row], batch: Batch) -> list[Row]:
        """The first row for each address that has no email in ``batch``."""
        first: dict[str, Row] = {}
        for row in rows:
            first.setdefault(searchable(row.email.to[0]), row)
        may_be_known = [address for address in first if self.seen.add(address) or not self.alone]
        known = self._known(may_be_known, batch)
        return [row for address, row in first.items() if address not in known]

    def _known(self, addresses: list[str], batch: Batch) -> set[str]:
        if not addresses:
            return set()
        found = Email.objects.using(self.using).filter(address__in=addresses)
        # Not asked for by the batch as well: a planner that thinks it small would read all of it.
        return {address for address, pk in found.values_list("address", "batch_id") if pk == batch.pk}


def _checked(common: EmailRequest) -> EmailRequest:
    """``common`` for one recipient after the other, without what is for the whole batch."""
    if common.to or common.cc or common.bcc:
        raise InvalidEmail("to", "cannot be given together with recipients, nor can cc and bcc")
    if common.context is not None and not isinstance(common.context, Mapping):
        raise InvalidEmail("context", f"is a {type(common.context).__name__}, not a dict")
    priority = parse_priority("low" if common.priority is None else common.priority)
    return replace(common, priority=priority, attachments=None, idempotency_key=None)


def _check_canary(canary: Any, failures: Any, common: EmailRequest) -> None:
    if not isinstance(canary, int) or isinstance(canary, bool) or canary < 0:
        raise InvalidEmail("canary", "must be a number of emails")
    if not isinstance(failures, int | float) or not 0 <= failures <= 1:
        raise InvalidEmail("canary_failures", "must be a share, from 0 to 1")
    if canary and common.priority == Priority.NOW:
        raise InvalidEmail("canary", "cannot be given where all are sent now")


def _once(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else Shared(value)


def _is_theirs(error: InvalidEmail, recipient: Mapping[str, Any]) -> bool:
    """Whether the fault is one of ``recipient``, and not of what all have in common."""
    argument, bracket, _ = error.field.partition("[")
    if argument == "language":
        return bool(recipient.get("language"))
    if argument == "context" and bracket:
        return any(error.field.startswith(f"context[{key!r}]") for key in recipient.get("context") or {})
    return argument in ("to", "email", "context")  # what a context lacks, a recipient could have


class _Start:
    """Starts what was committed: in this process what is to be sent now, else by chains."""

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self.rests_until = 0.0

    def on_commit(self, emails: Sequence[Email], using: str) -> None:
        ids = [email.pk for email in emails if _is_due(email)]
        transaction.on_commit(partial(self._start, ids), using=using)
        if emails and self._somebody_listens():
            tell = partial(email_queued.send_robust, sender=Email, emails=emails)
            transaction.on_commit(tell, using=using, robust=True)

    def all_of(self, batch: Batch) -> None:
        told = self._somebody_listens()
        emails = Email.objects.filter(batch=batch, status=Status.QUEUED)
        for page in _pages(emails if told else emails.only("reason", "scheduled_at")):
            self._start([email.pk for email in page if _is_due(email)])
            if told:
                email_queued.send_robust(sender=Email, emails=page)

    def _somebody_listens(self) -> bool:
        return self.priority != Priority.NOW and email_queued.has_listeners(Email)

    def _start(self, ids: list[UUID]) -> None:
        """While the broker is down, it is not asked for each slice anew: the dispatcher has them, later."""
        if self.priority == Priority.NOW:
            chain.run(ids)
        elif time.monotonic() >= self.rests_until and not chain.start(ids, self.priority):
            self.rests_until = time.monotonic() + BROKER_REST


def _is_due(email: Email) -> bool:
    return email.reason != HELD and (email.scheduled_at is None or email.scheduled_at <= timezone.now())


def _pages(emails: QuerySet[Email]) -> Iterator[list[Email]]:
    emails = emails.order_by("pk")
    page = list(emails[:SLICE])
    while page:
        yield page
        page = list(emails.filter(pk__gt=page[-1].pk)[:SLICE])
