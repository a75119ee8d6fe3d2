"""Stores what ESPs tell Anymail's webhook views, which check who calls, and read the payload.

What raises here is a 500 to the ESP, which then tells it again later.
"""

import hashlib
import json
from typing import Any
from uuid import UUID

from django.utils import timezone

from celery_mailer.tracking.esp_bounces import bounce_of
from celery_mailer.tracking.events import Happening, record
from celery_mailer.values import EMAIL_ID, Bounce, EventKind

# By Anymail's types (``anymail.signals.EventType``). That the ESP has it, or that a bot replied, is no event.
KINDS = {
    "rejected": EventKind.REJECTED,
    "failed": EventKind.REJECTED,
    "bounced": EventKind.BOUNCED,
    "deferred": EventKind.DEFERRED,
    "delivered": EventKind.DELIVERED,
    "opened": EventKind.OPENED,
    "clicked": EventKind.CLICKED,
    "complained": EventKind.COMPLAINED,
    "unsubscribed": EventKind.UNSUBSCRIBED,
}
# What Brevo and SendGrid say of an open by Apple's proxy, which fetches images without anybody looking.
BY_A_PROXY = {"proxy_open", "unique_proxy_open"}


def connect() -> None:
    """Listen to Anymail, where it is installed."""
    try:
        from anymail.signals import tracking
    except ImportError:
        return
    tracking.connect(on_event, dispatch_uid="celery_mailer.tracking")


def on_event(*, event: Any, esp_name: str, **kwargs: Any) -> None:
    """Store an ``AnymailTrackingEvent``."""
    kind = _kind(event, esp_name)
    if kind is not None:
        record([_happening(event, kind, esp_name)])


def _kind(event: Any, esp_name: str) -> EventKind | None:
    if esp_name == "Postal" and event.event_type == "failed":
        return EventKind.BOUNCED  # its "HardFail" is a server's answer
    return KINDS.get(event.event_type)


def _happening(event: Any, kind: EventKind, esp_name: str) -> Happening:
    message_id = str(event.message_id or "")
    return Happening(
        kind,
        event.timestamp or timezone.now(),
        recipient=_recipient(event, kind, esp_name),
        email_id=_email_id(event.metadata),
        # Some ESPs take over the Message-ID that we gave.
        message_id=message_id if "@" in message_id else "",
        provider=esp_name,
        provider_message_id=message_id,
        event_id=_event_id(event),
        bounce=_bounce(event, kind, esp_name),
        text=event.mta_response or event.description or "",
        url=event.click_url or "",
        machine=_by_machine(event.esp_event),
    )


def _recipient(event: Any, kind: EventKind, esp_name: str) -> str:
    """Whom the ESP means; nobody, where it names somebody without knowing it."""
    of_any = esp_name == "Amazon SES" and kind in (EventKind.OPENED, EventKind.CLICKED)
    of_first = esp_name == "Resend" and len(event.esp_event["data"].get("to", ())) > 1
    return "" if of_any or of_first else event.recipient or ""


def _email_id(metadata: Any) -> UUID | None:
    """Ours, which went along with what we sent (``deliver.providers.anymail``)."""
    try:
        return UUID(metadata[EMAIL_ID])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _event_id(event: Any) -> str:
    """The ESP's; where it tells neither an id nor a time, what it says is its id."""
    if event.event_id or event.timestamp:
        return str(event.event_id or "")
    told = json.dumps(event.esp_event, sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def _bounce(event: Any, kind: EventKind, esp_name: str) -> str:
    if kind == EventKind.BOUNCED:
        return bounce_of(event, esp_name)
    # The ESP's own list: it is no address, or came back to it before.
    listed = kind == EventKind.REJECTED and event.reject_reason in ("invalid", "bounced")
    return Bounce.HARD if listed else ""


def _by_machine(esp_event: Any) -> bool:
    return isinstance(esp_event, dict) and (
        esp_event.get("event") in BY_A_PROXY or bool(esp_event.get("sg_machine_open"))
    )
