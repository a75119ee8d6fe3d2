"""django-mailer: a queue in the database, drained by its command."""

from collections.abc import Mapping
from typing import Any

from tests.bench.config import Config
from tests.bench.contestants.base import Contestant, columns_of, copy_rows, drain_loop
from tests.bench.contestants.django_mail import messages, send_mail


class Mailer(Contestant):
    name = "mailer"
    title = "django-mailer 2.3"
    environment = "mailer"
    apps = ("mailer",)
    stores = "mailer"
    pending = "SELECT EXISTS (SELECT FROM mailer_message WHERE priority <> 4)"

    def settings(self, config: Config) -> Mapping[str, Any]:
        return {
            "EMAIL_BACKEND": "mailer.backend.DbBackend",
            "MAILER_EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "MAILER_USE_FILE_LOCK": False,  # so that two processes may send
        }

    def workers(self, config: Config) -> list[list[str]]:
        return drain_loop(config.connections)

    def drain(self, config: Config) -> None:
        from mailer.engine import send_all

        send_all()

    def one(self, i: int) -> None:
        send_mail(i)

    def bulk(self, first: int, count: int) -> None:
        from django.core.mail import get_connection

        get_connection().send_messages(list(messages(first, count)))

    def fill(self, cursor: Any, old: int, waiting: int) -> None:
        from mailer.models import Message, MessageLog

        ago = "now() - n * interval '8 seconds'"
        values = {"when_added": ago, "when_attempted": ago}
        specimen = f"(SELECT * FROM mailer_messagelog LIMIT 1) s, generate_series(1, {old}) n"
        cursor.execute(
            copy_rows("mailer_messagelog", values, columns_of(MessageLog, without=("id",)), specimen)
        )
        values = {"when_added": "now()", "priority": "4", "retry_count": "0"}
        specimen = f"(SELECT * FROM mailer_messagelog LIMIT 1) s, generate_series(1, {waiting})"
        cursor.execute(copy_rows("mailer_message", values, columns_of(Message, without=("id",)), specimen))
