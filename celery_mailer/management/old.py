"""Deletes emails that are final and older than somebody wants them, whatever their streams keep."""

from collections.abc import Callable
from datetime import datetime, timedelta

from django.core.management.base import CommandError
from django.db.models import QuerySet

from celery_mailer.management.base import from_now
from celery_mailer.models import Email


def days_ago(days: int) -> datetime:
    """Raises ``CommandError`` for what is no number of days back."""
    fault = f"--days: {days} is no number of days back"
    if days < 0:
        raise CommandError(fault)
    return from_now(-days, timedelta(days=1), fault)


def delete_in_steps(emails: QuerySet[Email], step: int, tell: Callable[[int], None]) -> int:
    """Delete ``emails``, ``step`` at a time: short transactions keep out of everybody's way."""
    deleted = 0
    while ids := list(emails.values_list("pk", flat=True)[:step]):
        Email.objects.filter(pk__in=ids).delete()
        deleted += len(ids)
        tell(len(ids))
    return deleted
