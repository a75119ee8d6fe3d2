"""Reads the mail that comes back: delivery reports, complaints, and bounces as text alone.

Nothing in it can be trusted but that whoever sent it has seen our email: it is matched by the token
in the address that it came to, or by our Message-ID in what it returns. What has neither is kept for the
admin.
"""

import hashlib
import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from email.utils import parsedate_to_datetime
from uuid import UUID

from django.utils import timezone

from celery_mailer.return_path import email_ids
from celery_mailer.tracking import arf, dsn, other_bounces, plain_bounces
from celery_mailer.tracking.events import Happening
from celery_mailer.tracking.mail_parts import Said, enclosed, header, parts, text_of

# Where a bounce came to (RFC 5321, section 4.4: the return path); servers note it in one of these.
CAME_TO = ("Delivered-To", "X-Original-To", "Envelope-To", "To")
MESSAGE_ID = re.compile(r"<[^<>\s@]+@[^<>\s]+>")
WHOLE = ("message/rfc822", "message/global")
AS_TEXT = ("text/rfc822-headers", "message/rfc822-headers", "message/global-headers", "text/plain")
IN_TEXT = re.compile(r"^\s*Message-ID:\s*(<[^<>\s]+>)", re.IGNORECASE | re.MULTILINE)


def read(raw: bytes) -> list[Happening]:
    """What the mail ``raw`` says of ours, by recipient; nothing, if it is no bounce.

    Raises ``RecursionError`` for what is nested by the thousand, as no mail is but one made for it.
    """
    mail = message_from_bytes(raw)
    said = arf.read(mail) or dsn.read(mail) or plain_bounces.read(mail) or other_bounces.read(mail)
    if not said:
        return []
    at = _sent_at(mail)
    email_id, message_id = _our_id(mail), _returned_message_id(mail)
    event_id = header(mail, "Message-ID") or hashlib.sha256(raw).hexdigest()
    if email_id is None and not message_id:
        said = said[:1]  # for a person to see: it can have no effect
    return [_happening(one, at, email_id, message_id, event_id) for one in said]


def _happening(said: Said, at: datetime, email_id: UUID | None, message_id: str, event_id: str) -> Happening:
    return Happening(
        said.kind,
        at,
        recipient=said.recipient,
        email_id=email_id,
        message_id=message_id,
        provider=said.by,
        event_id=event_id,
        bounce=said.bounce,
        code=said.code,
        enhanced_code=said.enhanced_code,
        text=said.text,
    )


def _sent_at(mail: Message) -> datetime:
    try:
        at = parsedate_to_datetime(header(mail, "Date"))
        # In UTC here, where it shows whether there it still is a date.
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError, IndexError):
        return timezone.now()


def _our_id(mail: Message) -> UUID | None:
    """The email whose return path the bounce came to, perhaps by way of other addresses."""
    came_to = (str(value) for name in CAME_TO for value in mail.get_all(name, ()))
    return next(email_ids(" ".join(came_to)), None)


def _returned_message_id(mail: Message) -> str:
    """The Message-ID of the email that was returned, whole, as its headers, or in a text."""
    for part in parts(mail):
        found = ""
        if part is not mail and part.get_content_type() in WHOLE:
            found = _first(header(enclosed(part), "Message-ID"))
        elif part.get_content_type() in AS_TEXT and (line := IN_TEXT.search(text_of(part))):
            found = line[1]
        if found:
            return found
    return _first(header(mail, "In-Reply-To")) or _first(header(mail, "References"))


def _first(value: str) -> str:
    found = MESSAGE_ID.search(value)
    return found[0] if found else ""
