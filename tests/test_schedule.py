"""The jobs' schedule: rows, which are the admin's once they are made, and entries for the plain scheduler."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery
from celery.beat import Scheduler
from celery.schedules import schedule as celery_schedule
from django.core.management import call_command
from django.db import connection, router
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from celery_mailer import apps, periodic, routing
from celery_mailer.schedule import SCHEDULE, beat_schedule
from tests.celeryapp import app as project_app

JOBS = {
    routing.DISPATCH,
    routing.RESCUE,
    routing.SETTLE,
    routing.MATCH_EVENTS,
    routing.WATCH,
    routing.CLEANUP,
}


def migrate():
    call_command("migrate", verbosity=0)


def row(name=routing.DISPATCH):
    return PeriodicTask.objects.get(name=name)


def ours():
    return PeriodicTask.objects.filter(name__startswith="celery_mailer.")


# Rows.


@pytest.mark.django_db
def test_every_job_has_a_row_after_migrate():
    ours().delete()
    migrate()
    assert set(ours().values_list("task", flat=True)) == JOBS


@pytest.mark.django_db
@pytest.mark.parametrize("job", sorted(JOBS))
def test_a_row_says_when_and_what_for(job):
    ours().delete()
    migrate()
    seconds = int(SCHEDULE[job].total_seconds())
    made = row(job)
    assert (made.interval.every, made.interval.period) == (seconds, "seconds")
    assert made.enabled
    assert made.description


@pytest.mark.django_db
@pytest.mark.parametrize("job", sorted(JOBS))
def test_a_tick_that_nobody_took_is_worth_nothing_after_the_next(job):
    ours().delete()
    migrate()
    assert row(job).expire_seconds == int(SCHEDULE[job].total_seconds())


@pytest.mark.django_db
def test_migrating_again_changes_nothing():
    migrate()
    before = list(PeriodicTask.objects.order_by("pk").values())
    migrate()
    assert list(PeriodicTask.objects.order_by("pk").values()) == before


@pytest.mark.django_db
def test_an_edited_row_stays_edited():
    every_minute = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.MINUTES)
    PeriodicTask.objects.filter(pk=row().pk).update(interval=every_minute, description="mine", queue="q")
    migrate()
    assert (row().interval, row().description, row().queue) == (every_minute, "mine", "q")


@pytest.mark.django_db
def test_a_row_with_another_kind_of_schedule_stays_so():
    nightly = CrontabSchedule.objects.create(hour="3", minute="0")
    PeriodicTask.objects.filter(pk=row(routing.CLEANUP).pk).update(interval=None, crontab=nightly)
    migrate()
    assert (row(routing.CLEANUP).interval, row(routing.CLEANUP).crontab) == (None, nightly)


@pytest.mark.django_db
def test_a_disabled_row_stays_disabled():
    PeriodicTask.objects.filter(pk=row().pk).update(enabled=False)
    migrate()
    assert not row().enabled


@pytest.mark.django_db
def test_a_deleted_row_comes_back_and_the_others_stay():
    others = set(ours().exclude(pk=row().pk).values_list("pk", flat=True))
    row().delete()
    migrate()
    assert row()
    assert set(ours().exclude(pk=row().pk).values_list("pk", flat=True)) == others


@pytest.mark.django_db
def test_the_projects_own_rows_are_left_alone():
    interval = IntervalSchedule.objects.create(every=9, period=IntervalSchedule.DAYS)
    theirs = PeriodicTask.objects.create(name="theirs", task="proj.task", interval=interval)
    migrate()
    assert PeriodicTask.objects.get(name="theirs") == theirs


@pytest.mark.django_db
def test_an_interval_that_is_there_is_used():
    ours().delete()
    IntervalSchedule.objects.all().delete()
    theirs = IntervalSchedule.objects.create(every=5, period=IntervalSchedule.SECONDS)
    migrate()
    assert row().interval == theirs


@pytest.mark.django_db
def test_a_renamed_row_is_not_made_again():
    PeriodicTask.objects.filter(pk=row().pk).update(name="Dispatch mail")
    migrate()
    assert PeriodicTask.objects.filter(task=routing.DISPATCH).count() == 1


@pytest.mark.django_db
def test_two_equal_intervals_do_not_break_migrate():
    ours().delete()
    for _ in range(2):
        IntervalSchedule.objects.create(every=5, period=IntervalSchedule.SECONDS)
    migrate()
    assert set(ours().values_list("task", flat=True)) == JOBS


@pytest.mark.django_db
def test_it_says_how_many_it_made():
    ours().delete()
    assert periodic.install_schedule() == len(JOBS)
    assert periodic.install_schedule() == 0


# Where there is no django-celery-beat.


@pytest.mark.django_db
def test_without_django_celery_beat_there_is_nothing_to_make(monkeypatch):
    monkeypatch.setattr(apps.apps, "is_installed", lambda name: False)
    ours().delete()
    migrate()
    assert not ours().exists()


@pytest.mark.django_db
def test_before_django_celery_beats_tables_are_there_nothing_is_made(monkeypatch):
    monkeypatch.setattr(connection.introspection, "table_names", lambda: ["celery_mailer_email"])
    ours().delete()
    apps._install_schedule(using="default")
    assert not ours().exists()


@pytest.mark.django_db
def test_another_database_than_beats_is_left_alone(monkeypatch):
    ours().delete()
    monkeypatch.setattr(router, "db_for_write", lambda model: "other")
    apps._install_schedule(using="default")
    monkeypatch.undo()
    assert not ours().exists()


WITHOUT_BEAT = """
from tests.settings import *
INSTALLED_APPS = [name for name in INSTALLED_APPS if name != "django_celery_beat"]
DATABASES["default"]["NAME"] = {database!r}
CELERY_MAILER = {{"PROVIDERS": {{"default": {{"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}}}}}}
"""
SEND = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from celery_mailer.tasks import send_email
email = send_email("s", "m", None, ["a@b.example"])
from celery_mailer.periodic import dispatch, rescue
print(email.status, dispatch(), rescue())
"""


def run(tmp_path, *argv):
    (tmp_path / "site_settings.py").write_text(WITHOUT_BEAT.format(database=str(tmp_path / "db.sqlite3")))
    path = f"{tmp_path}:{Path(__file__).parent.parent}"
    env = {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "site_settings", "PATH": ""}
    done = subprocess.run([sys.executable, *argv], cwd=tmp_path, env=env, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_without_django_celery_beat_the_rest_works(tmp_path):
    printed = run(tmp_path, "-W", "ignore", "-c", SEND).splitlines()
    assert printed[-1] == "sent {'dispatched': 0} {'judged': 0, 'uncertain': 0, 'requeued': 0}"


def test_without_django_celery_beat_a_check_says_what_to_do(tmp_path):
    printed = run(tmp_path, "-m", "django", "check")
    assert "celery_mailer.W001" in printed
    assert "Add 'django_celery_beat' to INSTALLED_APPS" in printed


def test_without_django_celery_beat_the_schedule_command_says_so(tmp_path):
    printed = run(tmp_path, "-m", "django", "mailer_schedule")
    assert "django_celery_beat is not in INSTALLED_APPS" in printed


# Entries for the plain scheduler.


def test_every_job_has_an_entry():
    assert set(beat_schedule()) == {entry["task"] for entry in beat_schedule().values()} == JOBS


def test_an_entry_has_the_rows_interval_and_expiry():
    for name, entry in beat_schedule().items():
        assert entry["schedule"] == SCHEDULE[name]
        assert entry["options"] == {"expires": SCHEDULE[name].total_seconds()}


def test_celery_takes_the_entries():
    app = Celery("proj", set_as_current=False)
    app.conf.update(broker_url="memory://", beat_schedule={**beat_schedule()})
    scheduler = Scheduler(app, lazy=True)
    scheduler.merge_inplace(app.conf.beat_schedule)
    for name in JOBS:
        assert scheduler.schedule[name].schedule == celery_schedule(SCHEDULE[name])


def test_what_is_done_to_the_entries_does_not_change_the_next_ones():
    beat_schedule()[routing.DISPATCH]["schedule"] = timedelta(days=1)
    beat_schedule().clear()
    assert beat_schedule()[routing.DISPATCH]["schedule"] == SCHEDULE[routing.DISPATCH]


def test_the_schedule_can_be_read_before_django_is_set_up():
    # A project's ``celery.py`` is imported before any model can be.
    code = "from celery_mailer.schedule import beat_schedule; print(len(beat_schedule()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        env={"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == (str(len(JOBS)), "")


@pytest.mark.parametrize("job", sorted(JOBS))
def test_every_job_is_a_task_of_that_name(job):
    assert project_app.tasks[job].name == job


@pytest.mark.django_db
@pytest.mark.parametrize("job", sorted(JOBS))
def test_every_job_runs_and_returns_its_counts(job):
    counts = project_app.tasks[job]()
    assert counts
    assert set(counts.values()) == {0}
