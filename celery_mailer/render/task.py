"""The Celery skin of the first stage."""

from uuid import UUID

from celery import shared_task

from celery_mailer import routing
from celery_mailer.render.stage import render_emails


@shared_task(name=routing.RENDER, serializer="json", ignore_result=True)
def render(ids: list[str]) -> None:
    """Render the queued ones of ``ids``."""
    render_emails([UUID(pk) for pk in ids])
