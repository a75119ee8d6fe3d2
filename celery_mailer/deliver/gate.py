"""The gate: what is asked of an email before anybody claims it. The policy is the list; the steps follow.

A step sees the email and the time, and answers ``None`` (go on), ``WAIT`` (leave it, another message
will come), or the move to make with its typed reason. Nothing here costs an attempt.
"""

from dataclasses import dataclass
from datetime import datetime

from django.utils.timezone import get_default_timezone

from celery_mailer import conf
from celery_mailer.deliver.pauses import pauses
from celery_mailer.models import Email
from celery_mailer.models.pause import PAUSED
from celery_mailer.models.transitions import BROKEN, EXPIRE, HOLD, Move

QUIET = "quiet_hours"  # the reason of mail that waits for the end of its stream's quiet hours


@dataclass(frozen=True, slots=True)
class Stop:
    """Why an email does not pass; without a ``move`` it stays as it is."""

    move: Move | None
    reason: str = ""
    detail: str = ""
    due_at: datetime | None = None  # of a move that ends in waiting


WAIT = Stop(None)


def not_before_its_time(email: Email, now: datetime) -> Stop | None:
    """A message that comes early (repeated, reordered, sent by hand) must not send scheduled mail."""
    return WAIT if email.scheduled_at is not None and now < email.scheduled_at else None


def not_after_it_expires(email: Email, now: datetime) -> Stop | None:
    return Stop(EXPIRE, "expired") if email.expires_at is not None and now >= email.expires_at else None


def has_recipients(email: Email, now: datetime) -> Stop | None:
    return None if email.recipients else Stop(BROKEN, "no_recipients")


def was_rendered(email: Email, now: datetime) -> Stop | None:
    """A deliver that comes without its render leaves the email to the chain that the dispatcher starts."""
    return WAIT if email.content.needs_rendering and not hasattr(email, "rendered") else None


def not_paused(email: Email, now: datetime) -> Stop | None:
    pause = pauses.holding(email, now)
    return Stop(HOLD, PAUSED, str(pause), pause.again_at(now)) if pause is not None else None


def not_in_quiet_hours(email: Email, now: datetime) -> Stop | None:
    """High and ``now`` wait, too: mail that has to wake people up belongs to another stream."""
    stream = conf.get().streams.get(email.stream)
    if stream is None or stream.quiet_hours is None:
        return None
    until = stream.quiet_hours.until(now, get_default_timezone())
    return Stop(HOLD, QUIET, str(stream.quiet_hours), until) if until is not None else None


STEPS = (
    not_before_its_time, not_after_it_expires, has_recipients, not_paused, not_in_quiet_hours, was_rendered,
)  # fmt: skip


def check(email: Email, now: datetime) -> Stop | None:
    """The first step that stops ``email``, or ``None`` if it passes."""
    return next((stop for step in STEPS if (stop := step(email, now))), None)
