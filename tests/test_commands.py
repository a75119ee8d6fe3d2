"""The periodic jobs as management commands."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from celery_mailer import chain
from celery_mailer.management.commands import mailer_schedule
from celery_mailer.models import Email
from tests.factories import claim, make_attempt, make_email, make_emails, stored

pytestmark = pytest.mark.django_db

COMMANDS = ["mailer_dispatch", "mailer_rescue", "mailer_settle", "mailer_cleanup", "mailer_schedule"]
PAST = timedelta(days=1000)


def run(name, *arguments):
    out = StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


def counts(name):
    return json.loads(run(name, "--json"))


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """What was published, in the place of publishing it."""
    calls = []
    monkeypatch.setattr(chain, "start", lambda ids, priority: calls.append((list(ids), priority)) or True)
    return calls


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_ours(name):
    assert get_commands()[name] == "celery_mailer"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_in_one_line(name):
    help_ = load_command_class("celery_mailer", name).help
    assert help_.endswith(".")
    assert "\n" not in help_


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_its_counts_as_one_json_object(name):
    printed = run(name, "--json")
    assert printed.count("\n") == 1
    assert all(isinstance(count, int) for count in json.loads(printed).values())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_its_counts_in_words_otherwise(name):
    expected = ", ".join(f"{what}: {count}" for what, count in counts(name).items())
    assert run(name) == expected + "\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_may_be_run_again_at_once(name):
    run(name)
    assert set(counts(name).values()) == {0}


def test_dispatch_starts_what_is_due(started):
    emails = make_emails(3)
    Email.objects.update(due_at=timezone.now() - timedelta(minutes=1))
    assert counts("mailer_dispatch") == {"dispatched": 3}
    assert started == [([e.pk for e in emails], 1)]


def test_rescue_takes_back_what_a_lost_worker_held():
    email = make_email()
    claim([email], lease=-timedelta(seconds=1))
    assert counts("mailer_rescue")["uncertain"] == 1
    assert stored(email).reason == "worker_lost"


def test_settle_judges_what_nobody_judged():
    email = make_email()
    make_attempt(email, claim([email]), finished_at=timezone.now() - timedelta(minutes=1))
    assert counts("mailer_settle") == {"judged": 1}
    assert stored(email).status == "sent"


def test_cleanup_deletes_what_is_old_and_final():
    old, waiting = make_emails(2)
    make_attempt(old, claim([old]), finished_at=timezone.now() - timedelta(minutes=1))
    run("mailer_settle")
    Email.objects.filter(pk=old.pk).update(finished_at=timezone.now() - PAST)
    Email.objects.filter(pk=waiting.pk).update(created_at=timezone.now() - PAST)
    assert counts("mailer_cleanup")["emails_deleted"] == 1
    assert list(Email.objects.all()) == [waiting]


def test_schedule_makes_the_rows_that_are_missing():
    PeriodicTask.objects.filter(name="celery_mailer.dispatch").delete()
    assert counts("mailer_schedule") == {"made": 1}
    assert PeriodicTask.objects.get(name="celery_mailer.dispatch").enabled


def test_schedule_leaves_what_an_admin_edited():
    PeriodicTask.objects.filter(name="celery_mailer.dispatch").update(enabled=False)
    assert counts("mailer_schedule") == {"made": 0}
    assert not PeriodicTask.objects.get(name="celery_mailer.dispatch").enabled


def test_schedule_without_django_celery_beat_is_an_error(monkeypatch):
    monkeypatch.setattr(mailer_schedule.apps, "is_installed", lambda name: False)
    with pytest.raises(CommandError, match="django_celery_beat is not in INSTALLED_APPS"):
        run("mailer_schedule")
