"""The words of the project as values: statuses, priorities, outcomes, failures, replies.

Nothing here does I/O or knows Django's settings; every other module may import it.
"""

import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from django.db.models import IntegerChoices, TextChoices


class Status(TextChoices):
    """Where an email stands. The moves between them are in ``models.transitions``."""

    QUEUED = "queued", "queued"  # moved on by a chain; by the dispatcher when no chain came
    SENDING = "sending", "sending"  # moved on by log; by the rescuer when the lease ran out
    DEFERRED = "deferred", "deferred"  # moved on by the dispatcher when due
    UNCERTAIN = "uncertain", "uncertain"  # moved on by stream policy, a provider's event, or a person
    SENT = "sent", "sent"  # final: a provider accepted it
    FAILED = "failed", "failed"  # final
    EXPIRED = "expired", "expired"  # final
    SUPPRESSED = "suppressed", "suppressed"  # final
    CANCELLED = "cancelled", "cancelled"  # final


WAITING = frozenset({Status.QUEUED, Status.DEFERRED})
FINAL = frozenset({Status.SENT, Status.FAILED, Status.EXPIRED, Status.SUPPRESSED, Status.CANCELLED})


LOG_NOTHING, LOG_FAILURES, LOG_ALL = range(3)  # which attempts are kept of an email that is final


class Priority(IntegerChoices):
    """How urgent an email is; ``now`` is sent in the caller's process and retried in the high lane."""

    LOW = 0, "low"
    MEDIUM = 1, "medium"
    HIGH = 2, "high"
    NOW = 3, "now"


class Outcome(TextChoices):
    """What came of one attempt, for the email or for one recipient."""

    ACCEPTED = "accepted", "accepted"
    DEFERRED = "deferred", "deferred"
    REJECTED = "rejected", "rejected"
    UNCERTAIN = "uncertain", "uncertain"


class Kind(StrEnum):
    """The kind of a failure: it selects the retry rule and is the typed reason on rows."""

    NONE = ""
    CONNECTION = "connection"  # unreachable, or the line broke before the final dot
    TEMPORARY = "temporary"  # the server said 4yz
    PROVIDER = "provider"  # login refused, service refused: the provider's fault, not the email's
    THROTTLED = "throttled"  # too fast for the provider, or over a quota: costs no attempt
    SENDER = "sender"  # 5yz to MAIL
    RECIPIENT = "recipient"  # 5yz to RCPT
    CONTENT = "content"  # 5yz to DATA or to the message itself
    MESSAGE = "message"  # the message could not be built
    NO_ANSWER = "no_answer"  # the line broke or fell silent after the final dot
    WORKER_LOST = "worker_lost"  # the worker vanished between the claim and the fact


class Phase(StrEnum):
    """The step of an SMTP session (RFC 5321, section 4.1.4) in which an attempt ended."""

    CONNECT = "connect"
    LOGIN = "login"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    DOT = "dot"


# Reasons of an email that is queued: it goes along with another one's chain, or somebody waits for its own.
TOGETHER, ALONE = "together", "alone"


class EventKind(TextChoices):
    """What the world says of an email after it was handed over; about one recipient each."""

    DELIVERED = "delivered", "delivered"  # the recipient's server has it
    DEFERRED = "deferred", "deferred"  # the provider has it, and could not deliver it yet
    BOUNCED = "bounced", "bounced"  # it came back; ``Bounce`` says what that means for the address
    COMPLAINED = "complained", "complained"  # the recipient calls it spam
    OPENED = "opened", "opened"
    CLICKED = "clicked", "clicked"
    UNSUBSCRIBED = "unsubscribed", "unsubscribed"
    REJECTED = "rejected", "rejected"  # the provider had taken it, and then refused to send it


EMAIL_ID = "mailer_email"  # our id, among what ESPs tell in their events; Postmark takes 20 characters


class Bounce(TextChoices):
    """What a bounce says about the address; one for its policy, content or size says nothing (empty)."""

    HARD = "hard", "hard"  # there is no such address
    SOFT = "soft", "soft"  # it may take mail again


class SuppressionReason(TextChoices):
    HARD_BOUNCE = "hard_bounce", "hard bounce"
    SOFT_BOUNCE = "soft_bounce", "soft bounces"
    COMPLAINT = "complaint", "complaint"
    UNSUBSCRIBE = "unsubscribe", "unsubscribed"
    MANUAL = "manual", "by hand"
    IMPORTED = "imported", "imported"


class OnUncertain(StrEnum):
    RESEND = "resend"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Reply:
    """A provider's normalised answer.

    ``code`` is the SMTP (RFC 5321, section 4.2) or HTTP status code, ``text`` the server's words.
    ``retry_after`` is how long the provider itself asks us to wait, at least. ``message_id`` is the
    provider's own id of the mail to this recipient, by which its events name it. An outcome ``deferred`` of
    the kind ``no_answer`` may have been taken all the same; to repeat it is safe, but only by the same
    provider, and soon, while it knows the key that went with it.
    """

    outcome: Outcome
    kind: Kind = Kind.NONE
    phase: Phase | None = None
    code: int | None = None
    text: str = ""
    retry_after: timedelta | None = None
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What one attempt came to: the summary, and each recipient's reply by bare address.

    ``usable`` is false when the provider itself could not be reached or refused us, so that
    trying it with the next email of the slice would only repeat the failure.
    """

    summary: Reply
    recipients: Mapping[str, Reply] = field(default_factory=dict)
    usable: bool = True


# What the outcomes of several recipients add up to: the first that occurs decides. Doubt comes
# first because it forbids a blind retry; a rejection of some beside an acceptance is still sent.
_PRECEDENCE = (Outcome.UNCERTAIN, Outcome.DEFERRED, Outcome.ACCEPTED, Outcome.REJECTED)


def summarise(recipients: Mapping[str, Reply]) -> Result:
    """Add the replies to each recipient up to one result. ``recipients`` must not be empty."""
    return Result(min(recipients.values(), key=lambda r: _PRECEDENCE.index(r.outcome)), recipients)


def everyone(addresses: list[str], reply: Reply, *, usable: bool = True) -> Result:
    """The same reply for every recipient."""
    return Result(reply, dict.fromkeys(addresses, reply), usable)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again: times are ``timedelta``, ``wait`` names a tenacity strategy (``log.retry``)."""

    max_attempts: int
    wait: str
    min: timedelta
    max: timedelta
    give_up_after: timedelta


class Measure(TextChoices):
    """What the reputation of a sender goes by."""

    BOUNCES = "bounces", "hard bounces"
    COMPLAINTS = "complaints", "complaints"


class Level(TextChoices):
    """How bad it is with a stream or a batch; nothing, if it is well."""

    WARN = "warn", "warned"
    PAUSE = "pause", "paused"


@dataclass(frozen=True, slots=True)
class ReputationPolicy:
    """The shares of emails, 0 to 1, at which a stream or a batch is conspicuous (``reputation.judge``)."""

    bounces_warn: float
    bounces_pause: float
    complaints_warn: float
    complaints_pause: float
    minimum: int
    pause_stream: bool

    def warn(self, measure: Measure) -> float:
        return self.bounces_warn if measure == Measure.BOUNCES else self.complaints_warn

    def pause(self, measure: Measure) -> float:
        return self.bounces_pause if measure == Measure.BOUNCES else self.complaints_pause


@dataclass(frozen=True, slots=True)
class EmailRequest:
    """What a door hands to ``enqueue``: every argument that all doors know, normalised by none yet."""

    to: Any = None
    cc: Any = None
    bcc: Any = None
    reply_to: Any = None
    from_email: Any = None
    subject: Any = ""
    message: Any = ""
    html_message: Any = ""
    template: Any = None
    context: Mapping[str, Any] | None = None
    language: Any = None
    headers: Mapping[str, Any] | None = None
    priority: Any = None
    stream: str | None = None
    provider: str | None = None
    scheduled_at: Any = None
    expires_at: Any = None
    idempotency_key: str | None = None
    tags: Any = None
    metadata: Mapping[str, Any] | None = None
    sensitive: bool = False
    track_opens: Any = None
    track_clicks: Any = None
    attachments: Any = None
    render_on_delivery: bool = False
    log_level: Any = None
    shape: Mapping[str, Any] | None = None
    id: uuid.UUID | None = None


class _Clock:
    """Milliseconds since 1970 with 12 bits of fraction, never the same twice in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def tick(self) -> int:
        ns = time.time_ns()
        ticks = (ns // 1_000_000 << 12) | (ns % 1_000_000 * 4096 // 1_000_000)
        with self._lock:
            self._last = max(ticks, self._last + 1)
            return self._last


_clock = _Clock()


def uuid7() -> uuid.UUID:
    """A time-ordered UUID (RFC 9562, section 5.7), increasing within this process.

    The 12 bits after the milliseconds hold its fraction (RFC 9562, section 6.2, method 3), so
    that ids made one after the other sort in the order they were made, also in a bulk insert.
    """
    ticks = _clock.tick()
    value = (ticks >> 12) << 80 | 0x7 << 76 | (ticks & 0xFFF) << 64
    return uuid.UUID(int=value | 0b10 << 62 | int.from_bytes(os.urandom(8)) >> 2)
