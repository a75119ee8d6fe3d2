"""What may be wrong with an installation: each examination names the faults that it finds, and their cure."""

from collections.abc import Iterator
from functools import partial

from celery_mailer.management.doctor.celery import beat, broker_reached, clocks, limits_of_tasks, workers
from celery_mailer.management.doctor.finding import Examination, Finding, Level
from celery_mailer.management.doctor.mail import backlog, logins, stopped
from celery_mailer.management.doctor.names import sender_domain
from celery_mailer.management.doctor.project import database, migrations, settings, storage

# In this order; what needs another is only looked at if that one found no fault.
EXAMINATIONS = (
    Examination("settings", settings),
    Examination("database", database),
    Examination("migrations", migrations, needs=("database",)),
    Examination("storage", storage, needs=("settings",)),
    Examination("broker", broker_reached),
    Examination("clocks", clocks, needs=("database", "broker")),
    Examination("task limits", limits_of_tasks, needs=("settings",)),
    Examination("workers", workers, needs=("settings", "broker")),
    Examination("beat", beat, needs=("migrations",)),
    Examination("providers", logins, needs=("settings",)),
    Examination("stopped", stopped, needs=("settings", "migrations")),
    Examination("backlog", backlog, needs=("settings", "migrations")),
)


def examine(dkim_selectors: list[str]) -> Iterator[Finding]:
    """All findings, as they are made; of what is in order one that says so."""
    faulty: set[str] = set()
    sender = Examination("sender", partial(sender_domain, dkim_selectors))
    for examination in (*EXAMINATIONS, sender):
        if missing := faulty & set(examination.needs):
            words = f"not looked at, for there is a fault in: {', '.join(sorted(missing))}"
            faulty.add(examination.name)
            yield Finding(Level.SKIPPED, words).of(examination.name)
            continue
        for finding in _looked(examination):
            if finding.level == Level.FAULT:
                faulty.add(examination.name)
            yield finding.of(examination.name)


def _looked(examination: Examination) -> list[Finding]:
    try:
        return list(examination.look()) or [Finding(Level.OK, "")]
    except Exception as error:  # a doctor that faints helps nobody
        words = f"the examination itself failed: {type(error).__name__}: {error}"
        return [Finding(Level.FAULT, words, "Mend what the message names.")]
