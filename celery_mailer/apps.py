"""The Django app: connects the lanes, the tasks, the checks and the schedule to the project."""

from typing import Any

from django.apps import AppConfig, apps
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models.signals import post_migrate


class CeleryMailerConfig(AppConfig):
    name = "celery_mailer"
    verbose_name = "Celery Mailer"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Importing the tasks registers them, also in projects without ``autodiscover_tasks``.
        from celery_mailer import checks, periodic, routing, spans, tasks  # noqa: F401
        from celery_mailer.tracking import receivers, recording  # noqa: F401

        routing.connect()
        receivers.connect()
        spans.connect()
        post_migrate.connect(_install_schedule, sender=self, dispatch_uid="celery_mailer.schedule")


def _install_schedule(*, using: str = DEFAULT_DB_ALIAS, **kwargs: Any) -> None:
    """After migrate: beat's rows, where django-celery-beat is installed and its tables are there."""
    if not apps.is_installed("django_celery_beat"):
        return
    from django.db import router
    from django_celery_beat.models import PeriodicTask

    from celery_mailer.periodic import install_schedule

    tables = connections[using].introspection.table_names()
    if using == router.db_for_write(PeriodicTask) and PeriodicTask._meta.db_table in tables:
        install_schedule()
