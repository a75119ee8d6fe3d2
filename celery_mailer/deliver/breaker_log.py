"""The log of the circuit breakers: a row for each change, and a line for whoever reads the worker's log."""

import logging
import re
from datetime import datetime

from django.db import router

from celery_mailer import logs
from celery_mailer.models import ProviderChange, ProviderState
from celery_mailer.models.provider import State
from celery_mailer.values import Kind

_ADDRESS = re.compile(r"[^\s<>@]+@")


def record(before: ProviderState, after: ProviderState, reason: str, detail: str, now: datetime) -> None:
    """Write down that ``before`` became ``after``."""
    ProviderChange.objects.using(router.db_for_write(ProviderChange)).create(
        alias=after.alias,
        at=now,
        from_state=before.state,
        to_state=after.state,
        reason=reason,
        detail=detail,
    )
    words = after.alias, after.get_state_display(), reason, _ADDRESS.sub("...@", detail)
    logs.provider_changed(_level(before, after), *words)


def _level(before: ProviderState, after: ProviderState) -> int:
    """An error for what waits for a person, once; a warning for the beginning of any other outage."""
    if after.state != State.OPEN:
        return logging.INFO
    news = before.state == State.CLOSED
    if after.kind == Kind.PROVIDER and (news or before.kind != Kind.PROVIDER):
        return logging.ERROR
    return logging.WARNING if news else logging.INFO
