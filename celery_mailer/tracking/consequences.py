"""What follows from new events: the email's feedback, suppressions, the end of a doubt, signals."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import router, transaction
from django.db.models import F, Max, Value
from django.db.models.functions import Coalesce, Least
from django.dispatch import Signal
from django.utils import timezone

from celery_mailer import conf, signals
from celery_mailer.models import Email, Event, Feedback
from celery_mailer.models.recipient import searchable
from celery_mailer.models.suppression import EVERY_STREAM, Entry, suppress
from celery_mailer.models.transitions import CONFIRM, GIVE_UP, move
from celery_mailer.values import Bounce, EventKind, Status, SuppressionReason

SOFT_BOUNCES = 5  # emails in a row that came back softly, until their address is suppressed
SOFT_BOUNCE_REST = timedelta(days=30)  # for which it then is: a full mailbox may be emptied
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
        if _soft_bounces_in_a_row(address) >= SOFT_BOUNCES:
            yield _entry(event, SuppressionReason.SOFT_BOUNCE, expires_at=until)


def _soft_bounces_in_a_row(address: str) -> int:
    """The emails to ``address`` that came back softly since one is known to have reached it."""
    theirs = Event.objects.filter(recipient=address)
    soft = theirs.filter(bounce=Bounce.SOFT)
    reached = theirs.filter(kind__in=REACHED).aggregate(last=Max("at"))["last"]
    if reached is not None:
        soft = soft.filter(at__gt=reached)
    return soft.values("email_id").distinct().count()


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
    the email only where it has one recipient.
    """
    doubtful = [e for e in events if e.email is not None and e.email.status == Status.UNCERTAIN]
    taken = {e.email_id: e for e in doubtful if e.kind != EventKind.REJECTED}
    refused = {e.email_id: e for e in doubtful if e.kind == EventKind.REJECTED and _single(e.email)}
    for how, found in ((CONFIRM, taken), (GIVE_UP, refused)):
        for pk, event in found.items():
            if pk is not None:
                move(
                    [pk], how, reason=EVENT, detail=f"{event.kind}, says {event.provider or 'the recipient'}"
                )


def _single(email: Email | None) -> bool:
    return email is not None and len(email.recipients) == 1


def _announce(events: Iterable[Event]) -> None:
    """Tell the project once it is committed; without receivers this costs nothing."""
    by_kind: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_kind[event.kind].append(event)
    for kind, happened in by_kind.items():
        if SIGNALS[kind].has_listeners(Email):
            send = partial(SIGNALS[kind].send_robust, sender=Email, events=happened)
            transaction.on_commit(send, using=router.db_for_write(Event), robust=True)
