"""django-post_office, by its command and by Celery."""

from collections.abc import Mapping
from typing import Any

from tests.bench import workload
from tests.bench.config import Config
from tests.bench.contestants.base import Contestant, celery_worker, columns_of, copy_rows, drain_loop
from tests.bench.contestants.django_mail import rendered

PROCESSES = 2


class PostOffice(Contestant):
    """``send_queued_mail`` with the best settings that we found."""

    name = "post_office"
    title = "django-post_office 3.12, best settings"
    environment = "post_office"
    apps = ("post_office",)
    stores = "post_office"
    pending = "SELECT EXISTS (SELECT FROM post_office_email WHERE status = 2 AND scheduled_time IS NULL)"

    def settings(self, config: Config) -> Mapping[str, Any]:
        options = {
            "BATCH_SIZE": 1000,
            "THREADS_PER_PROCESS": max(config.connections // PROCESSES, 1),
            "LOG_LEVEL": 1,
            "LOCK_FILE_NAME": f"{config.folder.strip('/').replace('/', '-')}-post_office",
        }
        return {"POST_OFFICE": options, "EMAIL_BACKEND": "post_office.EmailBackend"}

    def workers(self, config: Config) -> list[list[str]]:
        return drain_loop()

    def drain(self, config: Config) -> None:
        from post_office.mail import send_queued_mail_until_done

        send_queued_mail_until_done(processes=min(PROCESSES, config.connections))

    def one(self, i: int) -> None:
        from post_office import mail

        mail.send(**_arguments(i))

    def bulk(self, first: int, count: int) -> None:
        from post_office import mail

        mail.send_many([_arguments(i) for i in range(first, first + count)])

    def fill(self, cursor: Any, old: int, waiting: int) -> None:
        from post_office.models import Email, Log

        columns = columns_of(Email, without=("id",))
        specimen = f"(SELECT * FROM post_office_email LIMIT 1) s, generate_series(1, {old}) n"
        ago = "now() - n * interval '8 seconds'"
        cursor.execute(
            copy_rows("post_office_email", {"created": ago, "last_updated": ago}, columns, specimen)
        )
        specimen = f"(SELECT * FROM post_office_email LIMIT 1) s, generate_series(1, {waiting})"
        later = {"status": "2", "scheduled_time": "now() + interval '1 day'"}
        cursor.execute(copy_rows("post_office_email", later, columns, specimen))
        values = {"email_id": "s.id", "date": "s.created", "message": "''", "exception_type": "''"}
        columns = columns_of(Log, without=("id",))
        source = "post_office_email s WHERE s.status = 0"
        cursor.execute(copy_rows("post_office_log", values, columns, source))


class PostOfficeCelery(PostOffice):
    """Its own task, which each call starts; beat comes after it for what two tasks left to each other."""

    name = "post_office_celery"
    title = "django-post_office 3.12 by Celery"

    def settings(self, config: Config) -> Mapping[str, Any]:
        settings = dict(super().settings(config))
        settings["POST_OFFICE"] |= {"CELERY_ENABLED": True, "THREADS_PER_PROCESS": config.connections}
        tick = {"task": "post_office.tasks.send_queued_mail", "schedule": 2.0}
        return settings | {"CELERY_BEAT_SCHEDULE": {"tick": tick}}

    def workers(self, config: Config) -> list[list[str]]:
        return [celery_worker(config, "--beat", "--schedule", f"{config.folder}/beat")]


def _arguments(i: int) -> dict[str, Any]:
    # Rendered by Django beforehand: a template of its own would be compiled anew for each mail.
    subject, text, html = rendered(workload.context(i))
    return {"recipients": workload.address(i), "subject": subject, "message": text, "html_message": html}
