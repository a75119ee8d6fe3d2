"""The Celery skin of the second stage."""

from typing import Any
from uuid import UUID

from celery import shared_task

from celery_mailer import routing
from celery_mailer.deliver.slice import deliver_emails
from celery_mailer.deliver.turn import Others


@shared_task(name=routing.DELIVER, serializer="json", bind=True, ignore_result=True)
def deliver(self: Any, ids: list[str]) -> None:
    """Hand the queued ones of ``ids`` over to their providers."""
    lane = (self.request.delivery_info or {}).get("routing_key")
    others = Others(self.app, lane)
    rest = deliver_emails([UUID(pk) for pk in ids], others=others)
    if rest:
        others.pass_on(rest)
