"""The Celery skin of the second stage."""

from typing import Any
from uuid import UUID

from celery import shared_task

from celery_mailer import routing
from celery_mailer.deliver.slice import deliver_emails


@shared_task(name=routing.DELIVER, serializer="json", bind=True, ignore_result=True)
def deliver(self: Any, ids: list[str]) -> None:
    """Hand the queued ones of ``ids`` over to their providers."""
    rest = deliver_emails([UUID(pk) for pk in ids])
    if rest:
        # To the end of the lane: other mail has its turn first.
        routing.deliver_rest(self.app, rest, (self.request.delivery_info or {}).get("routing_key"))
