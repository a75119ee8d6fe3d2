"""The Celery skin of the first stage."""

from typing import Any
from uuid import UUID

from celery import shared_task

from celery_mailer import routing
from celery_mailer.render.stage import render_emails
from celery_mailer.render.together import gather


@shared_task(name=routing.RENDER, serializer="json", bind=True, ignore_result=True)
def render(self: Any, ids: list[str], together: bool = False) -> None:
    """Render the queued ones of ``ids``; ``together`` with what else waits in a lane that is busy."""
    if together:
        ids = _company(self.request, ids)
    render_emails([UUID(pk) for pk in ids])


def _company(request: Any, ids: list[str]) -> list[str]:
    """All that goes with ``ids``; what is left of the chain, which is in the message, is told."""
    priority = routing.priority_of((request.delivery_info or {}).get("routing_key") or "")
    if priority is None:
        return ids
    company = [str(pk) for pk in gather(UUID(ids[0]), priority)]
    if not company:
        request.chain = None
    elif company != ids:
        for step in request.chain or ():
            step["args"] = [company]
    return company
