"""celery_mailer, by its three doors. Every email is a row, and each attempt another."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.bench import workload
from tests.bench.config import Config
from tests.bench.contestants.base import Contestant, celery_worker, columns_of, copy_rows

# An id that sorts by time (UUIDv7: RFC 9562, section 5.7), as those of real rows do.
_ID = """(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
 || '8' || substr(md5(random()::text), 1, 15))::uuid"""
_IDS = f"""CREATE TEMP TABLE new AS SELECT {_ID} AS id, at, sent FROM (
    SELECT n, true AS sent, now() - n * interval '8 seconds' AS at FROM generate_series(1, %s) n
    UNION ALL SELECT n, false, now() FROM generate_series(1, %s) n) rows"""
_MESSAGE_ID = "'<' || new.id || '@bench.example>'"


class Own(Contestant):
    """``send_email.delay`` and ``send_bulk_email.delay``."""

    name = "own"
    title = "celery_mailer"
    apps = ("django_celery_beat", "celery_mailer")
    stores = "own"
    pending = """SELECT EXISTS (SELECT FROM celery_mailer_email WHERE lease_until IS NOT NULL)
        OR EXISTS (SELECT FROM celery_mailer_email WHERE due_at < now() + interval '1 hour')"""
    scale = 2

    def settings(self, config: Config) -> Mapping[str, Any]:
        # As the README's quick start has it.
        return {"CELERY_MAILER": {"TEMPLATE_DIR": "bench"}, "CELERY_WORKER_PREFETCH_MULTIPLIER": 1}

    def workers(self, config: Config) -> list[list[str]]:
        if not config.threads:
            return [celery_worker(config)]
        # As many as there are cores: of one process, the threads share one.
        half = replace(config, connections=config.connections // 2)
        return [celery_worker(half, "-n", f"{name}@%h") for name in ("first", "second")]

    def one(self, i: int) -> None:
        from celery_mailer.tasks import send_email

        to = [workload.address(i)]
        send_email.delay(template=workload.TEMPLATE, context=workload.context(i), to=to)

    def bulk(self, first: int, count: int) -> None:
        from celery_mailer.tasks import send_bulk_email

        send_bulk_email.delay(template=workload.TEMPLATE, recipients=workload.recipients(first, count))

    def fill(self, cursor: Any, old: int, waiting: int) -> None:
        from celery_mailer.models import Attempt, Content, Email, Message

        cursor.execute(_IDS, [old, waiting])
        final = "CASE WHEN new.sent THEN new.at END"
        tomorrow = "CASE WHEN NOT new.sent THEN now() + interval '1 day' END"
        email = {
            "id": "new.id",
            "message_id": _MESSAGE_ID,
            "status": "CASE WHEN new.sent THEN 'sent' ELSE 'queued' END",
            "created_at": "new.at",
            "finished_at": final,
            "scheduled_at": tomorrow,
            "due_at": tomorrow,
        }
        self._copy(cursor, Email, email)
        # Contents are kept for a third of the time that the rows are (CONTENT_RETENTION, RETENTION).
        kept = "WHERE NOT new.sent OR new.at > now() - interval '30 days'"
        self._copy(cursor, Content, {"email_id": "new.id"}, kept)
        self._copy(cursor, Message, {"email_id": "new.id"}, f"{kept} AND new.sent")
        times = {"started_at": "new.at", "finished_at": "new.at"}
        self._copy(cursor, Attempt, {"id": "new.id", "email_id": "new.id", **times}, "WHERE new.sent")

    def _copy(self, cursor: Any, model: Any, values: Mapping[str, str], where: str = "") -> None:
        table = model._meta.db_table
        source = f"(SELECT * FROM {table} LIMIT 1) s, new {where}"
        cursor.execute(copy_rows(table, values, columns_of(model), source))


class OwnSendMany(Own):
    """``mail.send_many``, which is django-post_office's call."""

    name = "own_send_many"
    title = "celery_mailer: send_many"

    def bulk(self, first: int, count: int) -> None:
        from celery_mailer import mail

        mail.send_many(
            {"recipients": [r["email"]], "template": workload.TEMPLATE, "context": r["context"]}
            for r in workload.recipients(first, count)
        )
