"""The task that records events which something else, in haste, only heard of."""

from typing import Any

from celery import shared_task
from django.db import Error as DatabaseFailure

from celery_mailer import routing
from celery_mailer.models.connection import survives_lost_connection
from celery_mailer.tracking.events import Happening, record


# About three hours of trying while the database is away. Late acknowledgement: told twice is told once.
@shared_task(
    name=routing.RECORD_EVENTS,
    serializer="json",
    ignore_result=True,
    acks_late=True,
    autoretry_for=(DatabaseFailure,),
    retry_backoff=1,
    retry_backoff_max=600,
    max_retries=25,
)
def record_events(packed: list[dict[str, Any]]) -> int:
    """Record happenings as ``Happening.packed`` has them; returns how many were new."""
    return _record([Happening.unpacked(values) for values in packed])


_record = survives_lost_connection(record)
