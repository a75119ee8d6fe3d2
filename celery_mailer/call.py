"""What the emails of one call have in common: when and where it is made."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.utils.timezone import get_current_timezone
from django.utils.translation import get_language

from celery_mailer.sources import Finder


def _language() -> str:
    return get_language() or ""


def _time_zone() -> str:
    """The current time zone, if it is one that the worker finds by its name."""
    return str(getattr(get_current_timezone(), "key", ""))


@dataclass(frozen=True, slots=True)
class Call:
    """``lease`` is how long its emails are left to the chains that it starts."""

    now: datetime
    lease: timedelta
    templates: Finder = field(default_factory=Finder)
    language: str = field(default_factory=_language)
    time_zone: str = field(default_factory=_time_zone)
