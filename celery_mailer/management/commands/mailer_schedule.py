from django.apps import apps
from django.core.management.base import CommandError

from celery_mailer.management.job import JobCommand
from celery_mailer.periodic import install_schedule


def install() -> dict[str, int]:
    """Make django-celery-beat's rows for the jobs that have none; edited and disabled ones stay."""
    if not apps.is_installed("django_celery_beat"):
        raise CommandError("django_celery_beat is not in INSTALLED_APPS.")
    return {"made": install_schedule()}


class Command(JobCommand):
    job = staticmethod(install)
