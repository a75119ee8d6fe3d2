"""django-post_office's tables, read as versions up to 3.12 leave them.

The models here stand in a registry of their own: no project has to install django-post_office, no migration
of ours knows of its tables, and where it is installed nothing collides. An older version's table lacks some
columns; what it lacks has the default that the column came with.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from django.apps.registry import Apps
from django.db import connections, models
from django.utils.module_loading import import_string

from celery_mailer import conf

SENT, FAILED, QUEUED, REQUEUED = range(4)  # ``post_office.models.STATUS``
TAKEN_OVER = "TakenOver"  # the ``exception_type`` of the log row that says an email is ours now

_apps = Apps()


def _table(ending: str, /, **columns: Any) -> Any:
    options = {
        "apps": _apps,
        "app_label": "post_office",
        "db_table": f"post_office_{ending}",
        "managed": False,
    }
    body = {"__module__": __name__, "Meta": type("Meta", (), options), **columns}
    return type(ending.title(), (models.Model,), body)


def _text() -> Any:
    return models.TextField(null=True)


def _number() -> Any:
    return models.IntegerField(null=True)


def _time() -> Any:
    return models.DateTimeField(null=True)


EMAILS = _table(
    "email",
    **{name: _text() for name in ("from_email", "to", "cc", "bcc", "subject", "message", "html_message")},
    **{name: _number() for name in ("status", "priority", "number_of_retries", "template_id")},
    **{name: _time() for name in ("created", "last_updated", "scheduled_time", "expires_at")},
    headers=models.JSONField(null=True),
    context=_text(),  # of a class that the project may choose
    backend_alias=_text(),
    message_id=_text(),
)
TEMPLATES = _table(
    "emailtemplate",
    **{n: _text() for n in ("name", "description", "subject", "content", "html_content", "language")},
    default_template_id=_number(),
)
LOGS = _table(
    "log", email_id=_number(), date=_time(), status=_number(), exception_type=_text(), message=_text()
)
FILES = _table(
    "attachment", file=_text(), name=_text(), mimetype=_text(), headers=models.JSONField(null=True)
)
LINKS = _table("attachment_emails", attachment_id=_number(), email_id=_number())


@dataclass(frozen=True, slots=True)
class Mail:
    """A row of ``post_office_email``; addresses are as stored, joined by commas."""

    id: int
    from_email: str
    to: str
    cc: str
    bcc: str
    subject: str
    message: str
    html_message: str
    status: int | None
    priority: int | None
    created: datetime
    last_updated: datetime
    scheduled_time: datetime | None
    headers: Any
    context: str | None
    template_id: int | None = None
    backend_alias: str = ""
    number_of_retries: int | None = None
    expires_at: datetime | None = None
    message_id: str | None = None

    @property
    def waiting(self) -> bool:
        return self.status in (QUEUED, REQUEUED)


@dataclass(frozen=True, slots=True)
class Template:
    """A row of ``post_office_emailtemplate``."""

    id: int
    name: str
    description: str
    subject: str
    content: str
    html_content: str
    language: str = ""
    default_template_id: int | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """A row of ``post_office_log``: an attempt, or what an ESP has reported (``status`` 10 and above)."""

    id: int
    email_id: int
    date: datetime
    status: int
    exception_type: str
    message: str


@dataclass(frozen=True, slots=True)
class File:
    """A row of ``post_office_attachment``; ``file`` is its name in the storage."""

    id: int
    file: str
    name: str
    mimetype: str = ""
    headers: Any = None


def missing(using: str) -> list[str]:
    """The tables that are not there, of those without which nothing can be read."""
    there = set(connections[using].introspection.table_names())
    wanted = [table._meta.db_table for table in (EMAILS, TEMPLATES, LOGS, FILES, LINKS)]
    return [name for name in wanted if name not in there]


def columns(table: Any, kind: type, using: str) -> list[str]:
    """The columns of ``kind`` that ``table`` has."""
    connection = connections[using]
    with connection.cursor() as cursor:
        found = connection.introspection.get_table_description(cursor, table._meta.db_table)
    there = {column.name for column in found}
    return [field.name for field in fields(kind) if field.name in there]


def mails(using: str, after: int, limit: int, *, lock: bool) -> list[Mail]:
    """The next ``limit`` emails by their number; ``lock`` holds them until the transaction ends."""
    rows = EMAILS.objects.using(using).filter(pk__gt=after).order_by("pk")
    rows = rows.select_for_update() if lock else rows
    return [Mail(**row) for row in rows.values(*columns(EMAILS, Mail, using))[:limit]]


def count(using: str) -> int:
    """How many emails there are."""
    return int(EMAILS.objects.using(using).count())


def templates(using: str) -> list[Template]:
    rows = TEMPLATES.objects.using(using).order_by("pk").values(*columns(TEMPLATES, Template, using))
    return [Template(**row) for row in rows]


def logs_of(using: str, ids: Collection[int]) -> dict[int, list[Log]]:
    """The log rows of each email, in the order in which they were written."""
    found: dict[int, list[Log]] = defaultdict(list)
    rows = LOGS.objects.using(using).filter(email_id__in=ids).order_by("pk")
    for row in rows.values(*columns(LOGS, Log, using)):
        found[row["email_id"]].append(Log(**row))
    return found


def files_of(using: str, ids: Collection[int]) -> dict[int, list[File]]:
    """The attachments of each email; one whose row is gone has no file."""
    links = list(
        LINKS.objects.using(using)
        .filter(email_id__in=ids)
        .order_by("attachment_id")
        .values_list("email_id", "attachment_id")
    )
    wanted = {attachment for _, attachment in links}
    rows = FILES.objects.using(using).filter(pk__in=wanted).values(*columns(FILES, File, using))
    files = {row["id"]: File(**row) for row in rows}
    found: dict[int, list[File]] = defaultdict(list)
    for email, attachment in links:
        gone = File(attachment, file="", name=f"attachment {attachment}")
        found[email].append(files.get(attachment, gone))
    return found


def aliases_waiting(using: str) -> Iterator[str]:
    """The backends that waiting emails ask for by name."""
    if "backend_alias" in columns(EMAILS, Mail, using):
        rows = EMAILS.objects.using(using).filter(status__in=(QUEUED, REQUEUED)).exclude(backend_alias="")
        yield from rows.order_by("backend_alias").values_list("backend_alias", flat=True).distinct()


def take_over(using: str, ours: Sequence[tuple[Mail, UUID]], at: datetime) -> None:
    """Note in a log row of each email which of ours it is; what waited is failed there.

    In the transaction that inserts ours: so an email always waits in one queue, never in two. The row is what
    keeps one that was deleted here since, of history too, from coming again.
    """
    waiting = [mail.id for mail, _ in ours if mail.waiting]
    EMAILS.objects.using(using).filter(pk__in=waiting, status__in=(QUEUED, REQUEUED)).update(status=FAILED)
    LOGS.objects.using(using).bulk_create(
        LOGS(
            email_id=mail.id,
            date=at,
            status=SENT if mail.status == SENT else FAILED,
            exception_type=TAKEN_OVER,
            message=f"celery_mailer has it: {pk}",
        )
        for mail, pk in ours
    )


def context_of(mail: Mail, using: str) -> Any:
    """The context of ``mail`` as Python values. Raises whatever the project's own field class raises."""
    path = conf.post_office().get("CONTEXT_FIELD_CLASS")
    if not mail.context or path in (None, "django.db.models.JSONField"):
        return json.loads(mail.context) if mail.context else None
    field = import_string(path)(null=True)
    value: Any = mail.context
    if hasattr(field, "from_db_value"):
        value = field.from_db_value(value, None, connections[using])
    return field.to_python(value)
