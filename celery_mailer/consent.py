"""How much may be known of who opens and clicks: the strictest of site, stream, email and recipient.

Nothing, unless every one of them allows more. ``anonymous`` counts by stream, batch and day, and leaves no
trace of who it was; ``identified`` records it with the email. The recipient is asked by the project's
callable ``TRACKING["CONSENT"]``: when a message is composed, and again when something is to be recorded, so
that who withdraws consent is not followed by the pixels of mail that was sent before. Those that were marked
as anonymous know of nobody whom to ask: they are counted for as long as site and stream allow it.
"""

from enum import IntEnum
from typing import Any

from django.db import Error as DatabaseFailure
from django.utils.module_loading import import_string

from celery_mailer import conf, logs
from celery_mailer.exceptions import InvalidEmail


class Mode(IntEnum):
    """From the strictest on."""

    OFF = 0
    ANONYMOUS = 1
    IDENTIFIED = 2


MODES = [mode.name.lower() for mode in Mode]


def mode_of(value: Any) -> Mode:
    """A mode's name, or true (no stricter than the others) or false. Raises ``ValueError``."""
    if isinstance(value, bool):
        return Mode.IDENTIFIED if value else Mode.OFF
    if value not in MODES:
        raise ValueError(f"must be one of: {', '.join(MODES)}")
    return Mode[value.upper()]


def wanted_mode(field: str, value: Any) -> str:
    """The most that a call asks for, by its name; empty where it leaves that to the stream."""
    try:
        return "" if value is None else MODES[mode_of(value)]
    except ValueError as error:
        raise InvalidEmail(field, str(error)) from None


def ceiling(stream: str, what: str) -> Mode:
    """What site and stream allow; ``what`` is ``opens`` or ``clicks``. A stream that is gone allows none."""
    settings = conf.get()
    if not settings.tracking.enabled or stream not in settings.streams:
        return Mode.OFF
    return mode_of(getattr(settings.streams[stream], f"track_{what}"))


def consented(address: str, stream: str, *, recording: bool = False) -> Mode:
    """What the recipient allows; without a callable, what the project does. One that fails allows nothing.

    But when ``recording``, an error of the database is raised: who can try again later then knows better.
    """
    path = conf.get().tracking.consent
    if path is None:
        return Mode.IDENTIFIED
    try:
        return mode_of(import_string(path)(address, stream))
    except Exception as error:
        if recording and isinstance(error, DatabaseFailure):
            raise
        logs.consent_failed(path, error)
        return Mode.OFF
