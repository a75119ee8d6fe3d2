"""What follows from new events: the email's feedback, figures, suppressions, the end of a doubt, signals."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import router, transaction
from django.db.models import F, Max, Q, Value
from django.db.models.functions import Coalesce, Least
from django.dispatch import Signal
from django.utils import timezone

from celery_mailer import conf, signals
from celery_mailer.models import Email, Event, Feedback, Suppression
from celery_mailer.models.attempt import doubtful
from celery_mailer.models.event import known_to_be_taken
from celery_mailer.models.figure import BOUNCED, COMPLAINED, Key, add, slice_of
from celery_mailer.models.recipient import addressed_to, searchable
from celery_mailer.models.suppression import EVERY_STREAM, Entry, digest_of, suppress
from celery_mailer.models.transitions import CONFIRM, GIVE_UP, TAKEN, move
from celery_mailer.reputation import keys_of
from celery_mailer.values import FINAL, Bounce, EventKind, Status, SuppressionReason

SOFT_BOUNCES = 5  # emails in a row that came back softly, until their address is suppressed
SOFT_BOUNCE_REST = timedelta(days=30)  # for which it then is: a full mailbox may be emptied
COMES_BACK_WITHIN = timedelta(days=7)  # RFC 5321, section 4.5.4.1: servers try for four or five
EVENT = "event"  # the reason of moves that an event makes

TIMES = {
    EventKind.DELIVERED: "delivered_at",
    EventKind.BOUNCED: "bounced_at",
    EventKind.COMPLAINED: "complained_at",
    EventKind.OPENED: "opened_at",
    EventKind.CLICKED: "clicked_at",
    EventKind.UNSUBSCRIBED: "unsubscribed_at",
}
COUNTS = {EventKind.OPENED: "open_count", EventKind.CLICKED: "click_count"}
SIGNALS: dict[str, Signal] = {
    EventKind.DELIVERED: signals.email_delivered,
    EventKind.DEFERRED: signals.email_delayed,
    EventKind.BOUNCED: signals.email_bounced,
    EventKind.COMPLAINED: signals.email_complained,
    EventKind.OPENED: signals.email_opened,
    EventKind.CLICKED: signals.email_clicked,
    EventKind.UNSUBSCRIBED: signals.email_unsubscribed,
    EventKind.REJECTED: signals.email_rejected,
}
REACHED = (EventKind.DELIVERED, EventKind.OPENED, EventKind.CLICKED)


def follow(events: Sequence[Event]) -> None:
    """Do what ``events``, just stored and each with its email, entail; inside their transaction."""
    if events:
        _add_up(events)
        _count(events)
        suppress([*_refusals(events), *_soft_bounces(events)])
        _end_doubt(events)
        _announce(events)


def _add_up(events: Iterable[Event]) -> None:
    """Add new events to their emails' feedback, in an order in which two that do so cannot deadlock."""
    by_email: dict[UUID, list[Event]] = defaultdict(list)
    for event in events:
        if not event.machine and event.email_id is not None:
            by_email[event.email_id].append(event)
    ids = sorted(by_email)
    Feedback.objects.bulk_create([Feedback(email_id=pk) for pk in ids], ignore_conflicts=True)
    for pk in ids:
        changes = _changes(by_email[pk])
        if changes:
            Feedback.objects.filter(pk=pk).update(**changes)


def _changes(events: Iterable[Event]) -> dict[str, Any]:
    """What ``events`` of one email change: the earliest time of each kind, and one more to each count."""
    earliest: dict[str, datetime] = {}
    counted: dict[str, int] = defaultdict(int)
    for event in events:
        kind = EventKind(event.kind)
        if name := TIMES.get(kind):
            earliest[name] = min(earliest.get(name, event.at), event.at)
        if name := COUNTS.get(kind):
            counted[name] += 1
    # COALESCE, because Least is NULL on MariaDB and SQLite if one of its values is.
    times = {name: Least(Coalesce(F(name), Value(at)), Value(at)) for name, at in earliest.items()}
    return {**times, **{name: F(name) + number for name, number in counted.items()}}


def _count(events: Sequence[Event]) -> None:
    """Hard bounces and complaints, of each email one, in the slice in which it was sent."""
    theirs = [event for event in events if _about_its_recipient(event)]
    bounced = {e.email_id: e.email for e in theirs if e.bounce == Bounce.HARD}
    complained = {e.email_id: e.email for e in theirs if e.kind == EventKind.COMPLAINED}
    earlier = Event.objects.exclude(pk__in=[event.pk for event in events])
    numbers: Counter[Key] = Counter()
    for what, emails, same in (
        (BOUNCED, bounced, Q(bounce=Bounce.HARD)),
        (COMPLAINED, complained, Q(kind=EventKind.COMPLAINED)),
    ):
        again = set(
            earlier.filter(same, email_id__in=filter(None, emails)).values_list("email_id", flat=True)
        )
        for pk, email in emails.items():
            if email is not None and pk not in again:
                start = slice_of(email.finished_at or timezone.now())
                numbers.update(keys_of(email.stream, email.batch_id, what, start))
    if numbers:
        add(numbers)


def _refusals(events: Iterable[Event]) -> Iterator[Entry]:
    """What suppresses an address at once."""
    for event in events:
        if not _about_its_recipient(event):
            continue
        if event.bounce == Bounce.HARD:
            yield _entry(event, SuppressionReason.HARD_BOUNCE)
        elif event.kind == EventKind.COMPLAINED:
            yield _entry(event, SuppressionReason.COMPLAINT)
        elif event.kind == EventKind.UNSUBSCRIBED and event.email is not None:
            yield _entry(event, SuppressionReason.UNSUBSCRIBE, event.email.stream)


def _soft_bounces(events: Iterable[Event]) -> Iterator[Entry]:
    last = {e.recipient: e for e in events if e.bounce == Bounce.SOFT and _about_its_recipient(e)}
    until = timezone.now() + SOFT_BOUNCE_REST
    for address, event in last.items():
        if _comes_back(address, _proven(address)) and _comes_back(address, _quiet(address)):
            yield _entry(event, SuppressionReason.SOFT_BOUNCE, expires_at=until)


def _comes_back(address: str, since: datetime | None) -> bool:
    """Whether ``SOFT_BOUNCES`` emails to ``address`` came back softly after ``since``."""
    # Of emails to it only: anybody can send us a bounce about anybody.
    to_it = Q(email__address=address) | Q(email__further_recipients__address=address)
    soft = Event.objects.filter(to_it, recipient=address, bounce=Bounce.SOFT)
    if since is not None:
        soft = soft.filter(at__gt=since)
    return soft.values("email_id").distinct().count() >= SOFT_BOUNCES


def _proven(address: str) -> datetime | None:
    """When an email is known to have reached ``address``, or a person released it, last."""
    reached = Event.objects.filter(recipient=address, kind__in=REACHED).aggregate(last=Max("at"))["last"]
    mine = Suppression.objects.filter(digest=digest_of(address))
    released = mine.aggregate(last=Max("released_at"))["last"]
    return max(filter(None, (reached, released)), default=None)


def _quiet(address: str) -> datetime | None:
    """When the last email to ``address`` was sent that has not come back, and will not any more.

    A mail server tells of no delivery. Asked last: this reads all emails to the address.
    """
    before = timezone.now() - COMES_BACK_WITHIN
    sent = Email.objects.filter(addressed_to(address), status=Status.SENT, finished_at__lt=before)
    last: datetime | None = sent.filter(feedback__bounced_at=None).aggregate(at=Max("finished_at"))["at"]
    return last


def _about_its_recipient(event: Event) -> bool:
    """Whether the email was sent to whom the event names: anybody can send us a bounce about anybody."""
    if event.email is None or conf.get().override_recipients:
        return False
    return event.recipient in {searchable(recipient) for recipient in event.email.recipients}


def _entry(
    event: Event, reason: str, stream: str = EVERY_STREAM, expires_at: datetime | None = None
) -> Entry:
    return Entry(event.recipient, reason, stream, expires_at, event.email_id)


def _end_doubt(events: Iterable[Event]) -> None:
    """Of an email that a provider may have, an event says whether it has it.

    Also a bounce says so: it came back from further on. Only a rejection says the contrary, and for all of
    the email only where it has one recipient. What already waits for a second hand-over is in doubt too.
    """
    told = {e.email: e for e in events if e.email is not None and e.email.status not in FINAL}
    uncertain = {email.pk for email in told if email.status == Status.UNCERTAIN}
    taken = known_to_be_taken(uncertain | doubtful([email.pk for email in told]))
    for email, event in told.items():
        tell = partial(
            move, [email.pk], reason=EVENT, detail=f"{event.kind}, says {event.provider or 'the recipient'}"
        )
        if email.pk in taken:
            _ = tell(CONFIRM) or tell(TAKEN)
        elif event.kind == EventKind.REJECTED and email.pk in uncertain and len(email.recipients) == 1:
            tell(GIVE_UP)


def _announce(events: Iterable[Event]) -> None:
    """Tell the project once it is committed; without receivers this costs nothing."""
    by_kind: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_kind[event.kind].append(event)
    for kind, happened in by_kind.items():
        if SIGNALS[kind].has_listeners(Email):
            send = partial(SIGNALS[kind].send_robust, sender=Email, events=happened)
            transaction.on_commit(send, using=router.db_for_write(Event), robust=True)
