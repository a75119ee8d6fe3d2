"""The test project's Celery app, set up as a user's would be."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

app = Celery("tests")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@app.task
def count_sent() -> int:
    """A task of the project's own, for canvases around ``send_email``."""
    from celery_mailer.models import Email

    return Email.objects.filter(status="sent").count()
