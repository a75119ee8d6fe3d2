"""The Celery skin of the third stage."""

from uuid import UUID

from celery import shared_task

from celery_mailer import routing
from celery_mailer.log.settle import settle_emails


@shared_task(name=routing.LOG, serializer="json")
def log(ids: list[str]) -> int:
    """Settle what of ``ids`` was handed over; returns how many emails were moved."""
    return settle_emails([UUID(pk) for pk in ids])
