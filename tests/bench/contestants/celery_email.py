"""django-celery-email: Django's messages as Celery tasks. It stores nothing."""

from collections.abc import Mapping
from typing import Any

from tests.bench.config import Config
from tests.bench.contestants.base import Contestant, celery_worker
from tests.bench.contestants.django_mail import messages, send_mail


class CeleryEmail(Contestant):
    name = "celery_email"
    title = "django-celery-email 3.0"
    environment = "celery_email"
    apps = ("djcelery_email",)

    def settings(self, config: Config) -> Mapping[str, Any]:
        # The fastest that we found: 100 mails in a message, but where the server is slow its default, 10, so
        # that every connection has something to do.
        return {
            "EMAIL_BACKEND": "djcelery_email.backends.CeleryEmailBackend",
            "CELERY_EMAIL_CHUNK_SIZE": 10 if config.delay else 100,
        }

    def workers(self, config: Config) -> list[list[str]]:
        return [celery_worker(config)]

    def one(self, i: int) -> None:
        send_mail(i)

    def bulk(self, first: int, count: int) -> None:
        from django.core.mail import get_connection

        get_connection().send_messages(list(messages(first, count)))
