"""How often beat runs the jobs of ``periodic``. Imports no model: a project's Celery app may read it."""

from datetime import timedelta
from typing import Any

from celery_mailer import routing

SCHEDULE: dict[str, timedelta] = {
    routing.DISPATCH: timedelta(seconds=5),
    routing.RESCUE: timedelta(seconds=30),
    routing.SETTLE: timedelta(seconds=30),
    routing.MATCH_EVENTS: timedelta(seconds=30),
    routing.WATCH: timedelta(seconds=30),
    routing.CLEANUP: timedelta(hours=1),
}


def beat_schedule() -> dict[str, dict[str, Any]]:
    """The jobs as entries for ``beat_schedule``, for projects on Celery's plain scheduler.

    Not for django-celery-beat's scheduler: it would overwrite what an admin edited at each start.
    """
    return {
        # A tick that no worker took in time is worth nothing: the next one does its work.
        name: {"task": name, "schedule": every, "options": {"expires": every.total_seconds()}}
        for name, every in SCHEDULE.items()
    }
