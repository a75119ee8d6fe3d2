"""Celery: the broker, the workers and beat, and how their times fit together."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from celery import current_app
from django.apps import apps
from django.db import connections, router
from django.db.models import Max
from django.utils import timezone

from celery_mailer import broker, conf, routing
from celery_mailer.census import LANES
from celery_mailer.management.doctor.finding import Finding, fault, skipped, warning
from celery_mailer.models import Email
from celery_mailer.schedule import SCHEDULE
from celery_mailer.values import Priority

OFFSET = 2.0  # seconds that two clocks may differ
# django-celery-beat writes down when a job ran last only every three minutes (celery.beat's ``sync_every``).
UNHEARD = timedelta(minutes=5)
VISIBILITY_TIMEOUT = 3600  # seconds; kombu's, when none is set

# What the servers call now, in seconds since 1970; a database without a server has this host's clock.
NOW = {
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
    "mysql": "SELECT UNIX_TIMESTAMP(SYSDATE(6))",
}


def broker_reached() -> Iterator[Finding]:
    """Whether a connection can be had, and whether Redis would throw messages away."""
    try:
        with broker.connected() as connection:
            client = getattr(connection.default_channel, "client", None) if broker.is_redis() else None
            policy = _eviction(client) if client is not None else ""
    except broker.Unreachable as error:
        yield fault(
            f"The broker cannot be reached: {error}",
            "Start it, or mend the URL and the password in broker_url (CELERY_BROKER_URL).",
        )
        return
    if policy not in ("", "noeviction"):
        yield warning(
            f"When its memory is full, Redis throws keys away (maxmemory-policy {policy}): queues are keys.",
            "Set maxmemory-policy noeviction, or give the broker a Redis of its own.",
        )


def _eviction(client: Any) -> str:
    memory = client.info("memory")
    return str(memory.get("maxmemory_policy", "")) if memory.get("maxmemory") else ""


def clocks(now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """How far the servers' clocks are from this host's: leases and due times are compared across hosts."""
    for name, ask in (("database", _database_time), ("Redis", _redis_time)):
        before = now()
        there = ask()
        if there is not None and abs(offset := there - (before + now()) / 2) > OFFSET:
            yield fault(
                f"The clock of the {name} server is {offset:+.1f} s from this host's: mail is sent too early "
                "or too late, and leases end while workers hold them.",
                "Run an NTP client (chrony, systemd-timesyncd) on every host.",
            )


def _database_time() -> float | None:
    connection = connections[router.db_for_write(Email)]
    query = NOW.get(connection.vendor)
    if query is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(query)
        return float(cursor.fetchone()[0])


def _redis_time() -> float | None:
    if not broker.is_redis():
        return None
    with broker.connected() as connection:
        channel: Any = connection.default_channel
        seconds, microseconds = channel.client.time()
    return float(seconds + microseconds / 1e6)


def limits_of_tasks() -> Iterator[Finding]:
    """Whether Celery ends or repeats tasks that are still at work."""
    celery, hand_over = current_app.conf, conf.get().lease.total_seconds() / 2
    for name in ("task_time_limit", "task_soft_time_limit"):
        limit = celery.get(name)
        if limit is not None and limit < hand_over:
            yield warning(
                f"{name} is {limit:g} s, and a single hand-over may take {hand_over:g} s (half of LEASE): "
                "mail to slow servers is cut off and becomes uncertain.",
                f"Set {name} above {hand_over:g}, or shorten CELERY_MAILER['LEASE'].",
            )
    visible = (celery.broker_transport_options or {}).get("visibility_timeout", VISIBILITY_TIMEOUT)
    longest = celery.task_time_limit or celery.task_soft_time_limit or 0
    if broker.is_redis() and visible < longest:
        yield warning(
            f"Redis hands a message out again after {visible} s (visibility_timeout), and tasks may run for "
            f"{longest:g} s: long ones run twice.",
            f"Set broker_transport_options['visibility_timeout'] above {longest:g}.",
        )


def workers() -> Iterator[Finding]:
    """Whether each lane has a worker that answers."""
    if not broker.can_ask_workers():
        yield skipped("Whether workers run cannot be seen: this broker carries no questions to them.")
        return
    serving = broker.queues_by_worker()
    if not serving:
        yield fault("No worker answers: nothing is sent.", "Start one: celery -A <project> worker.")
        return
    served = {queue for queues in serving.values() for queue in queues}
    for lane in LANES:
        queue = routing.lane(Priority[lane.upper()])
        if queue not in served:
            yield fault(
                f"No worker serves the queue {queue}: mail of the lane {lane} is not sent.",
                f"Start one with -Q {queue}, or one without -Q, which serves all.",
            )


def beat() -> Iterator[Finding]:
    """Whether beat runs the jobs; only django-celery-beat writes down when it did."""
    if not apps.is_installed("django_celery_beat"):
        yield skipped("Whether beat runs cannot be seen: Celery's plain scheduler leaves no trace.")
        return
    from django_celery_beat.models import PeriodicTask

    for name in SCHEDULE:
        rows = PeriodicTask.objects.filter(task=name)
        if not rows:
            yield fault(f"Beat has no row for {name}.", "Run manage.py mailer_schedule.")
        elif not any(row.enabled for row in rows):
            yield fault(f"Beat's row for {name} is disabled.", "Enable it in the admin (Periodic tasks).")
    # Of any row: it writes down all of them together.
    last = PeriodicTask.objects.aggregate(last=Max("last_run_at"))["last"]
    if last is None or timezone.now() - last > UNHEARD:
        when = f"since {timezone.localtime(last):%Y-%m-%d %H:%M}" if last else "so far"
        yield fault(
            f"Beat has not been seen {when}: no retries, no scheduled mail, no repair.",
            "Start celery -A <project> beat, with CELERY_BEAT_SCHEDULER = "
            "'django_celery_beat.schedulers:DatabaseScheduler'; one that has just started is seen within "
            "three minutes.",
        )
