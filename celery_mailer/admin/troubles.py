"""What keeps mail from being sent, as far as can be seen, and what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery import current_app
from django.apps import apps
from django.urls import NoReverseMatch, reverse
from django.utils.functional import Promise
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

from celery_mailer import routing
from celery_mailer.admin.cluster import Answer, lanes

# django-celery-beat writes down every three minutes what it has run.
BEAT_SEEN = timedelta(minutes=10)
OVERDUE = timedelta(minutes=1)  # the dispatcher comes every few seconds


@dataclass(frozen=True)
class Trouble:
    """``fault`` says what is wrong, ``cure`` what to do; ``command`` is to be run, ``link`` followed."""

    fault: str | Promise
    cure: str | Promise
    command: str = ""
    link: str = ""


def troubles(answer: Answer | None, overdue_since: datetime | None, now: datetime) -> list[Trouble]:
    """The causes that can be seen; if mail is overdue and there is none, that."""
    found = [*_of_cluster(answer), *_of_beat(now)]
    if not found and overdue_since is not None and now - overdue_since > OVERDUE:
        since = timesince(overdue_since, now)
        fault = _("Mail has been due for %(time)s, and nothing takes it.") % {"time": since}
        return [Trouble(fault, _("Is beat running, and are the workers not all busy?"))]
    return found


def _of_cluster(answer: Answer | None) -> Iterator[Trouble]:
    if answer is None:
        return
    app = current_app.main or "proj"
    if answer.fault:
        yield Trouble(
            _("The broker %(address)s does not answer (%(fault)s).")
            % {"address": answer.broker, "fault": answer.fault},
            _("Start it, or correct its address in the settings. No mail is lost: all of it waits here."),
        )
    elif not answer.workers:
        yield Trouble(_("No worker answers."), _("Start one:"), f"celery -A {app} worker")
    else:
        yield from _of_lanes(answer.workers.values(), app)


def _of_lanes(served: Any, app: str) -> Iterator[Trouble]:
    alone = [queue for queue in lanes() if not any(queue in queues for queues in served)]
    if alone:
        fault = _("No worker serves %(queues)s.") % {"queues": ", ".join(alone)}
        yield Trouble(
            fault,
            _("Start one for it, or start yours without -Q:"),
            f"celery -A {app} worker -Q {','.join(alone)}",
        )


def _of_beat(now: datetime) -> Iterator[Trouble]:
    """What django-celery-beat's row of the dispatcher says; on another scheduler nothing can be seen."""
    if not apps.is_installed("django_celery_beat"):
        return
    from django_celery_beat.models import PeriodicTask

    row = PeriodicTask.objects.filter(task=routing.DISPATCH).order_by("-enabled").first()
    if row is None:
        return
    if not row.enabled:
        yield Trouble(
            _("The dispatcher is switched off: nothing is retried, and nothing scheduled is sent."),
            _("Enable it among the periodic tasks."),
            link=_page_of(row.pk),
        )
    elif row.last_run_at is None or now - row.last_run_at > BEAT_SEEN:
        fault = (
            _("Beat has not run the dispatcher for %(time)s.") % {"time": timesince(row.last_run_at, now)}
            if row.last_run_at
            else _("Beat has never run the dispatcher.")
        )
        yield Trouble(fault, _("Start it, once for all:"), f"celery -A {current_app.main or 'proj'} beat")


def _page_of(pk: int) -> str:
    try:
        return reverse("admin:django_celery_beat_periodictask_change", args=[pk])
    except NoReverseMatch:
        return ""
