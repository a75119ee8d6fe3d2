"""What keeps mail from being sent, or from being read, as far as can be seen, and what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery import current_app
from django.apps import apps
from django.db.models import Max
from django.urls import NoReverseMatch, reverse
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from celery_mailer import routing
from celery_mailer.admin.cluster import Answer, lanes
from celery_mailer.admin.facts import percent
from celery_mailer.models import Alarm, Figure
from celery_mailer.values import Level, Measure

# django-celery-beat writes down every three minutes what it has run.
BEAT_SEEN = timedelta(minutes=10)
OVERDUE = timedelta(minutes=1)  # the dispatcher comes every few seconds
SHOWN = 20  # alarms

ALARMS: dict[Measure, tuple[Any, Any]] = {
    Measure.BOUNCES: (
        gettext_lazy("%(kind)s %(name)s: %(number)d of %(total)d emails came back (%(percent)s)."),
        gettext_lazy("Look where its addresses come from."),
    ),
    Measure.COMPLAINTS: (
        gettext_lazy("%(kind)s %(name)s: %(number)d of %(total)d emails were called spam (%(percent)s)."),
        gettext_lazy("Look who gets it, and whether they have asked for it."),
    ),
}


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
        fault = _("Mail has been waiting for %(time)s.") % {"time": since}
        found.append(Trouble(fault, _("Is beat running, and are the workers not all busy?")))
    return [*found, *_of_reputation()]


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
    """What the rows of django-celery-beat say; on another scheduler nothing can be seen."""
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
            link=_page("django_celery_beat_periodictask_change", row.pk),
        )
        return
    # Of any row: beat writes down all of them together.
    last = PeriodicTask.objects.aggregate(last=Max("last_run_at"))["last"]
    if last is None or now - last > BEAT_SEEN:
        fault = (
            _("Beat has not run for %(time)s.") % {"time": timesince(last, now)}
            if last
            else _("Beat has not been seen so far.")
        )
        cure = _("Start it, once for all (one that has just started is seen within three minutes):")
        yield Trouble(fault, cure, f"celery -A {current_app.main or 'proj'} beat")


def _of_reputation() -> Iterator[Trouble]:
    """The worst first: what was paused, then what is warned of."""
    for alarm in Alarm.objects.exclude(level="").order_by("level", "-at")[:SHOWN]:
        numbers = {
            "kind": Figure.Subject(alarm.kind).label,
            "name": alarm.name,
            "number": alarm.number,
            "total": alarm.total,
            "percent": percent(min(1.0, alarm.number / max(alarm.total, 1))),
        }
        fault, cure = ALARMS[Measure(alarm.measure)]
        if alarm.level == Level.PAUSE:
            cure = _("It is paused. Find the cause, then resume it.")
        yield Trouble(fault % numbers, cure, link=_page_of(alarm))


def _page_of(alarm: Alarm) -> str:
    """Where it is resumed, or looked at."""
    if alarm.kind == Figure.Subject.BATCH:
        return _page("celery_mailer_batch_change", alarm.name)
    if alarm.level == Level.PAUSE:
        return _page("celery_mailer_providerstate_changelist")
    page = _page("celery_mailer_email_changelist")
    return page and f"{page}?{urlencode({'stream': alarm.name})}"


def _page(name: str, *args: object) -> str:
    try:
        return reverse(f"admin:{name}", args=args)
    except NoReverseMatch:
        return ""
