"""Records what happened to emails: once each, in any order, also before the email itself is known."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections, router, transaction
from django.utils import timezone

from celery_mailer.models import Email, Event
from celery_mailer.models.recipient import searchable
from celery_mailer.tracking.consequences import follow
from celery_mailer.tracking.mail_parts import storable_text
from celery_mailer.tracking.matching import Names, find
from celery_mailer.values import EventKind

LOOK_AGAIN = timedelta(seconds=10)  # for the email of an event; then after as long as it has waited already
GIVE_UP_AFTER = timedelta(days=1)  # with looking: the email of an event is committed by then, or not ours
LONGEST_TEXT = 1_000  # characters that are kept of a server's words
FOREIGN = ("recipient", "message_id", "provider_message_id", "event_id", "text", "url")


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened to one recipient of an email, as whoever heard of it tells it.

    The email is named by our id, by our Message-ID or by the provider's id, whichever is known; ``recipient``
    may be left out where the email has only one. ``event_id`` is the teller's own, by which it is known when
    it comes twice; without one, an event is the same if all else is, ``at`` included: so the time is taken
    where it happens, not where it is recorded. ``machine`` opens and clicks are kept and not counted.
    """

    kind: EventKind
    at: datetime
    recipient: str = ""
    email_id: UUID | None = None
    message_id: str = ""
    provider: str = ""
    provider_message_id: str = ""
    event_id: str = ""
    bounce: str = ""
    code: int | None = None
    enhanced_code: str = ""
    text: str = ""
    url: str = ""
    machine: bool = False

    @property
    def names(self) -> Names:
        message_id = self.message_id.strip()
        if message_id and not message_id.startswith("<"):
            message_id = f"<{message_id}>"
        return Names(self.email_id, message_id[:255], self.provider_message_id[:255])

    @property
    def key(self) -> str:
        """The same for the same event, by whom and however often it is told."""
        identity: Sequence[object] = [self.event_id]
        if not self.event_id:
            identity = [*(str(name or "") for name in self.names), self.at.isoformat(), self.url]
        parts = [self.provider, self.kind, searchable(self.recipient) if self.recipient else "", *identity]
        return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def record(happenings: Iterable[Happening]) -> int:
    """Store what is new of ``happenings`` with all that follows from it; returns how many that were.

    It is all one transaction: what was not recorded may be told again, and what was does nothing.
    """
    by_key = {happening.key: happening for happening in map(_storable, happenings)}
    if not by_key:
        return 0
    with transaction.atomic(using=router.db_for_write(Event)):
        emails = find([happening.names for happening in by_key.values()])
        now = timezone.now()
        # In one order, so that two that tell the same cannot deadlock.
        events = [_event(key, by_key[key], emails.get(by_key[key].names), now) for key in sorted(by_key)]
        Event.objects.bulk_create(events, ignore_conflicts=True)
        stored = set(Event.objects.filter(pk__in=[e.pk for e in events]).values_list("pk", flat=True))
        new = [event for event in events if event.pk in stored]
        follow([event for event in new if event.email is not None])
    return len(new)


def _storable(happening: Happening) -> Happening:
    """What others tell, also ESPs, which would tell for ever what cannot be stored."""
    cleaned: dict[str, Any] = {name: storable_text(getattr(happening, name)) for name in FOREIGN}
    return replace(happening, **cleaned)


def _event(key: str, happening: Happening, email: Email | None, now: datetime) -> Event:
    names = happening.names
    return Event(
        key=key,
        kind=happening.kind,
        email=email,
        recipient=recipient_of(email, happening.recipient),
        at=happening.at,
        received_at=now,
        provider=happening.provider[:64],
        bounce=happening.bounce,
        code=happening.code,
        enhanced_code=happening.enhanced_code[:12],
        text=happening.text[:LONGEST_TEXT],
        url=happening.url,
        machine=happening.machine,
        named_email=names.email_id if email is None else None,
        named_message_id=names.message_id if email is None else "",
        named_provider_message_id=names.provider_message_id if email is None else "",
        match_at=now + LOOK_AGAIN if email is None and any(names) else None,
    )


def recipient_of(email: Email | None, given: str) -> str:
    """The recipient of ``email`` that ``given`` is: it may be where the only one has mail forwarded to."""
    address = searchable(given)[:320] if given else ""
    if email is None:
        return address
    known = {searchable(recipient) for recipient in email.recipients}
    return known.pop() if len(known) == 1 else address


def match_parked(limit: int) -> int:
    """Look for the emails of up to ``limit`` events that came before them; returns how many events."""
    now = timezone.now()
    using = router.db_for_write(Event)
    with transaction.atomic(using=using):
        due = Event.objects.using(using).filter(match_at__lte=now).order_by("match_at")
        if connections[using].features.has_select_for_update_skip_locked:
            due = due.select_for_update(skip_locked=True)
        parked = list(due[:limit])
        names = {e.pk: Names(e.named_email, e.named_message_id, e.named_provider_message_id) for e in parked}
        emails = find(names.values())
        found = [event for event in parked if _adopt(event, emails.get(names[event.pk]), now)]
        follow(found)
    return len(parked)


def _adopt(event: Event, email: Email | None, now: datetime) -> bool:
    """Give ``event`` its email, or the time to look again; returns whether this gave it one."""
    if email is None:
        age = now - event.received_at
        again = now + max(age, LOOK_AGAIN) if age < GIVE_UP_AFTER else None
        Event.objects.filter(pk=event.pk, email=None).update(match_at=again)
        return False
    event.email, event.recipient = email, recipient_of(email, event.recipient)
    values = {"email": email, "recipient": event.recipient, "match_at": None, "named_email": None}
    values |= {"named_message_id": "", "named_provider_message_id": ""}
    return bool(Event.objects.filter(pk=event.pk, email=None).update(**values))
