"""The project itself: its settings and templates, its database, the storage of attachments."""

from collections.abc import Iterator

from django.core.checks import ERROR, run_checks
from django.core.files.base import ContentFile
from django.db import Error, connections, router
from django.db.migrations.executor import MigrationExecutor

from celery_mailer import conf
from celery_mailer.attaching import FOLDER
from celery_mailer.management.doctor.finding import Finding, fault, warning
from celery_mailer.models import Email
from celery_mailer.models.attachment import storage as attachment_storage

OURS = "celery_mailer."
APPS = ("celery_mailer", "django_celery_beat")
TRIAL = f"{FOLDER}/doctor.txt"


def settings() -> Iterator[Finding]:
    """What the system checks say, templates included."""
    try:
        connections[router.db_for_read(Email)].ensure_connection()
        messages = run_checks(databases=[router.db_for_read(Email)])
    except Error:
        messages = run_checks()  # the templates in the database are not looked at
    for message in messages:
        if (message.id or "").startswith(OURS):
            make = fault if message.level >= ERROR else warning
            yield make(f"{message.msg} ({message.id})", message.hint or "See manage.py check.")


def database() -> Iterator[Finding]:
    """Whether the database of the emails can be reached."""
    using = router.db_for_write(Email)
    try:
        connections[using].ensure_connection()
    except Error as error:
        yield fault(
            f"The database {using!r} cannot be reached: {error}".strip(),
            f"Start it, or mend DATABASES[{using!r}].",
        )


def migrations() -> Iterator[Finding]:
    """Whether the tables are there, and up to date."""
    executor = MigrationExecutor(connections[router.db_for_write(Email)])
    targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] in APPS]
    missing = [f"{m.app_label}.{m.name}" for m, _backwards in executor.migration_plan(targets)]
    if missing:
        yield fault(f"Migrations are missing: {', '.join(missing)}.", "Run manage.py migrate.")


def storage() -> Iterator[Finding]:
    """Whether a file can be written to where attachments are kept, and read back."""
    alias = conf.get().attachments.storage
    mend = f"Let this user write to STORAGES[{alias!r}], which keeps the attachments."
    try:
        files = attachment_storage()
        name = files.save(TRIAL, ContentFile(b"trial"))
        with files.open(name) as file:
            same = file.read() == b"trial"
        files.delete(name)
    except Exception as error:  # each storage has exceptions of its own
        yield fault(f"Attachments cannot be stored: {type(error).__name__}: {error}", mend)
        return
    if not same:
        yield fault("A stored attachment reads differently from what was written.", mend)
