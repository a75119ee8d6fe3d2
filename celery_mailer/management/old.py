"""Deletes emails that are final and older than somebody wants them, whatever their streams keep."""

from collections.abc import Callable
from datetime import datetime, timedelta

from django.core.management.base import CommandError
from django.db.models import QuerySet
from django.utils import timezone

from celery_mailer.models import Email


def days_ago(days: int) -> datetime:
    """Raises ``CommandError`` for what is no number of days back."""
    try:
        if days < 0:
            raise OverflowError
        return timezone.now() - timedelta(days=days)
    except OverflowError:
        raise CommandError(f"--days: {days} is no number of days back") from None


def delete_in_steps(emails: QuerySet[Email], step: int, tell: Callable[[int], None]) -> int:
    """Delete ``emails``, ``step`` at a time: short transactions keep out of everybody's way."""
    deleted = 0
    while ids := list(emails.values_list("pk", flat=True)[:step]):
        Email.objects.filter(pk__in=ids).delete()
        deleted += len(ids)
        tell(len(ids))
    return deleted
