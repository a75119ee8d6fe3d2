"""Every line that this app logs: what it says, at which level, and with which fields.

All go to the logger ``celery_mailer``. Beside its words each has ``extra``, for formatters that write JSON:
the ``event``, which is the name of its function here, and what the words name. Emails are named by their
ids, by which the admin finds them; no line has an address, a subject or a body in it.
"""

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

logger = logging.getLogger("celery_mailer")

# Of the moves in ``models.transitions``: those that somebody should look into, and those that are routine.
# Others are news.
NOTABLE = frozenset({"broken", "doubt"})
ROUTINE = frozenset({"claim", "release", "wake"})


def _log(level: int, event: str, words: str, *args: Any, **fields: Any) -> None:
    logger.log(level, words, *args, extra={"event": event, **fields}, stacklevel=3)


def tells(move: str) -> bool:
    """Whether anybody hears of this move: telling is not worth the while otherwise."""
    return logger.isEnabledFor(_level(move))


def _level(move: str) -> int:
    if move in NOTABLE:
        return logging.WARNING
    return logging.DEBUG if move in ROUTINE else logging.INFO


def moved(move: str, status: str, ids: Sequence[UUID], reason: str) -> None:
    """Emails have a new status, and that is committed: one line for all that moved together."""
    emails = [str(pk) for pk in ids]
    named = emails[0] if len(emails) == 1 else f"{len(emails)} emails"
    why = f" ({reason})" if reason else ""
    fields = {"move": move, "status": str(status), "reason": reason, "emails": emails}
    _log(_level(move), "moved", "%s: %s%s", named, status, why, **fields)


def broker_not_reached(error: Exception, waiting: int) -> None:
    """A message could not be published; the dispatcher will."""
    words = "broker not reached (%s): %d emails wait for the dispatcher"
    _log(logging.WARNING, "broker_not_reached", words, error, waiting, waiting=waiting)


def provider_changed(level: int, alias: str, state: str, reason: str, detail: str) -> None:
    """A circuit breaker has opened or closed, or tries; ``detail`` is without addresses."""
    fields = {"provider": alias, "state": state, "reason": reason}
    _log(level, "provider_changed", "provider %s: %s (%s) %s", alias, state, reason, detail, **fields)


def pipelining_off(alias: str, seconds: float) -> None:
    """An SMTP connection went wrong on which commands were sent ahead of their answers."""
    words = "%s: pipelining went wrong, %d s without it"
    _log(logging.INFO, "pipelining_off", words, alias, seconds, provider=alias)


def limits_without_redis(error: Exception, share: int) -> None:
    """The processes cannot agree on the limits; without the error's own words, which may name the URL."""
    kind = type(error).__name__
    words = "no limits from Redis (%s): each process keeps to 1/%d of them"
    _log(logging.WARNING, "limits_without_redis", words, kind, share, error=kind)


def refused_in_silence(error: Exception) -> None:
    """An email that was given with ``fail_silently`` is not queued; the error names the field at fault."""
    _log(logging.WARNING, "refused_in_silence", "an email was refused in silence: %s", error)


def image_left_out(label: str, error: Exception) -> None:
    """An inline image cannot be read. A foreign storage's own words may tell its address, and a key."""
    fields = {"image": label, "error": type(error).__name__}
    _log(logging.WARNING, "image_left_out", "the image %s is left out: %s", *fields.values(), **fields)


def image_not_collected(label: str) -> None:
    """A template with inline images is rendered by an engine that does not collect them."""
    words = (
        "inline_image %s: nothing collects images here, so it becomes a data: URL, which mail programs do"
        " not show; render with the template backend EmailTemplates"
    )
    _log(logging.WARNING, "image_not_collected", words, label, image=label)


def batch_held(batch: str, failed: int, canary: int) -> None:
    """Too many of the first emails of a batch failed; a person decides about the rest."""
    words = "batch %s: held, %d of its first %d emails failed"
    _log(logging.WARNING, "batch_held", words, batch, failed, canary, batch=batch)


def conspicuous(kind: str, name: str, reached: str, words: str) -> None:
    """Too much of a stream's, or of a batch's, mail comes back or is called spam."""
    fields = {"kind": kind, "subject": name, "reached": reached}
    _log(logging.WARNING, "conspicuous", "%s %s: %s, %s", *fields.values(), words, **fields)


def consent_failed(path: str, error: Exception) -> None:
    """The project's function for consent raised; its words may show the address."""
    fields = {"path": path, "error": type(error).__name__}
    _log(logging.ERROR, "consent_failed", "%s failed (%s), so nothing is tracked", *fields.values(), **fields)


def bounce_not_read(error: Exception) -> None:
    """A mail that came back could not be read; nothing of it is said here."""
    kind = type(error).__name__
    words = "a mail that came back could not be read (%s), and is left for a person"
    _log(logging.ERROR, "bounce_not_read", words, kind, error=kind)


def visits_wait(error: Exception, waiting: int) -> None:
    """Opens and clicks could not be published, and will be tried again."""
    words = "broker not reached (%s): %d visits wait"
    _log(logging.WARNING, "visits_wait", words, type(error).__name__, waiting, waiting=waiting)


def visits_lost(number: int, why: str) -> None:
    _log(logging.ERROR, "visits_lost", "%d visits are lost: the broker was away %s", number, why, lost=number)
