"""Delivering and cleaning up without a worker, and how far that is."""

import fcntl
import json
from datetime import timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command
from django.utils import timezone

from celery_mailer import batches, chain
from celery_mailer.management import drain as draining
from celery_mailer.management.progress import Progress
from celery_mailer.models import Attachment, Batch, Email, Event
from celery_mailer.models.pause import pause
from celery_mailer.tasks import send_bulk_email
from celery_mailer.tracking.events import Happening, record
from celery_mailer.values import EventKind
from tests.conftest import smtp_provider
from tests.factories import claim, make_attempt, make_email, make_emails, stored
from tests.servers import databases
from tests.site import Site

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE = timedelta(minutes=1)


def run(name, *arguments, **options):
    out = StringIO()
    call_command(name, *arguments, stdout=out, stderr=StringIO(), **options)
    return out.getvalue()


def drained(*arguments):
    return json.loads(run("mailer_drain", "--json", *arguments))


def make_batch(number, first="u@example.com", **arguments):
    people = [first, *(f"u{i}@example.com" for i in range(number - 1))]
    return Batch.objects.get(pk=send_bulk_email.delay(subject="x", recipients=people, **arguments).id)


@pytest.mark.parametrize("name", ["mailer_drain", "send_queued_mail"])
def test_what_was_queued_a_moment_ago_is_sent(real_smtp, name):
    make_emails(3)
    assert run(name) == "sent: 3\n"
    assert len(real_smtp.received) == 3


@pytest.mark.parametrize("name", ["mailer_drain", "send_queued_mail"])
def test_without_mail_it_says_so(name):
    assert run(name) == "nothing was due\n"


def test_nothing_is_published(real_smtp, monkeypatch):
    monkeypatch.setattr(chain, "publish", None)
    make_email()
    assert drained() == {"sent": 1}


def test_more_than_a_slice_is_sent(real_smtp, settings):
    settings.CELERY_MAILER = {**settings.CELERY_MAILER, "BATCH_SIZE": 2}
    make_emails(5)
    assert drained() == {"sent": 5}


def test_the_urgent_is_sent_first(real_smtp):
    for priority in ("low", "high", "medium"):
        make_email(priority=priority, subject=priority)
    drained()
    assert [r.message["Subject"] for r in real_smtp.received] == ["high", "medium", "low"]


def test_scheduled_mail_waits_for_its_time(real_smtp):
    email = make_email(scheduled_at=timezone.now() + MINUTE)
    assert drained() == {}
    assert stored(email).status == "queued"


def test_mail_that_is_scheduled_within_the_lease_waits_for_its_time(real_smtp, settings):
    settings.CELERY_MAILER = {**settings.CELERY_MAILER, "LEASE": timedelta(hours=1)}
    make_email(scheduled_at=timezone.now() + MINUTE)
    assert drained() == {}


def test_what_is_deferred_is_tried_again_at_its_time(real_smtp):
    soon, now = make_emails(2)
    Email.objects.update(status="deferred", due_at=timezone.now() + MINUTE)
    Email.objects.filter(pk=now.pk).update(due_at=timezone.now())
    assert drained() == {"sent": 1}
    assert stored(soon).status == "deferred"


def test_what_is_paused_stays(real_smtp):
    make_email()
    pause("stream", "transactional", "on fire")
    assert drained() == {}


def test_what_a_lost_worker_held_is_taken_back(real_smtp):
    email = make_email()
    claim([email], lease=-timedelta(seconds=1))
    drained()
    assert stored(email).reason == "worker_lost"


def test_what_nobody_judged_is_judged():
    email = make_email()
    make_attempt(email, claim([email]), finished_at=timezone.now() - MINUTE)
    drained()
    assert stored(email).status == "sent"


def test_what_was_cancelled_is_cancelled_to_the_last(monkeypatch):
    monkeypatch.setattr(batches, "STEP", 1)
    monkeypatch.setattr(batches, "STEPS", 1)
    batch = make_batch(4)
    batches.cancel_batch(batch.pk)
    assert drained() == {}
    assert batches.progress(batch.pk) == {"cancelled": 4}


def test_when_a_canary_was_sent_the_others_go_in_the_same_run(real_smtp):
    make_batch(10, canary=2)
    assert drained() == {"sent": 10}


def test_what_a_batch_lets_go_is_not_published(real_smtp, monkeypatch):
    batch = make_batch(3, canary=1)
    batches.resume_batch(batch.pk)
    monkeypatch.setattr(chain, "publish", None)
    assert drained() == {"sent": 3}


def test_what_a_canary_holds_stays_where_the_first_failed(settings, real_smtp):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": {"URL": "simulator://"}}}
    make_batch(3, canary=1, first="bounce@simulator.test")
    assert drained() == {"failed": 1}


def test_events_that_came_before_their_email_find_it(real_smtp):
    email = make_email()
    record([Happening(EventKind.OPENED, timezone.now(), email_id=uuid4())])
    Event.objects.update(named_email=email.pk, match_at=timezone.now())
    drained()
    assert Event.objects.get().email == email


def test_what_stays_queued_does_not_keep_it_from_ending(monkeypatch):
    monkeypatch.setattr(chain, "run", lambda ids: None)
    make_emails(3)
    assert drained() == {"queued": 3}


def test_another_process_does_not_take_the_same(monkeypatch):
    taken = []

    def run(ids):
        taken.append(len(ids))
        if len(taken) == 1:
            assert drained() == {}

    monkeypatch.setattr(chain, "run", run)
    make_emails(3)
    drained()
    assert taken == [3]


def test_connections_to_providers_are_closed_at_the_end(real_smtp, monkeypatch):
    closed = []
    monkeypatch.setattr(draining.providers, "close", closed.append)
    make_email()
    drained()
    assert closed == ["default"]


@pytest.mark.parametrize("name", ["mailer_drain", "send_queued_mail"])
def test_no_process_is_too_few(name):
    with pytest.raises(CommandError, match="--processes: at least 1"):
        run(name, processes=0)


def test_a_lock_that_is_held_ends_it_at_once(real_smtp, tmp_path):
    make_email()
    path = tmp_path / "mail.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run("send_queued_mail", "-L", str(path)) == f"another run holds {path}\n"
    assert run("send_queued_mail", "--lockfile", str(path)) == "sent: 1\n"


def test_a_lock_that_cannot_be_is_an_error(tmp_path):
    with pytest.raises(CommandError, match=r"--lockfile: .*nowhere"):
        run("send_queued_mail", "--lockfile", str(tmp_path / "nowhere" / "mail.lock"))


@pytest.fixture
def site(tmp_path, smtp_server):
    def site(url):
        providers = {"PROVIDERS": {"default": smtp_provider(smtp_server.port)}, "BATCH_SIZE": 3}
        site = Site(url, "memory://", smtp_server.port, repr(providers))
        site.migrate()
        return site

    return site


def drain_in_two_processes(site, smtp_server):
    counts = site.run("""
        from io import StringIO
        from django.core.management import call_command
        from celery_mailer import mail
        mail.send_many({"recipients": f"u{i}@example.com", "subject": "s", "message": "m"} for i in range(30))
        out = StringIO()
        call_command("mailer_drain", "--json", processes=2, stdout=out)
        result = json.loads(out.getvalue())
    """)
    site.close()
    assert counts == {"sent": 30}
    assert len({str(r.message["To"]) for r in smtp_server.received}) == len(smtp_server.received) == 30


def test_several_processes_send_each_email_once(site, smtp_server, tmp_path):
    drain_in_two_processes(site(f"sqlite:///{tmp_path / 'db.sqlite3'}"), smtp_server)


@pytest.mark.postgres
def test_several_processes_send_each_email_once_on_postgresql(site, smtp_server):
    with databases.postgres() as url:
        drain_in_two_processes(site(url), smtp_server)


# Cleaning up.


def final(ago, **arguments):
    email = make_email(**arguments)
    make_attempt(email, claim([email]), finished_at=timezone.now() - MINUTE)
    run("mailer_settle")
    Email.objects.filter(pk=email.pk).update(finished_at=timezone.now() - ago)
    return email


def test_cleanup_takes_days_in_the_place_of_the_retention():
    newer = final(timedelta(days=2))
    final(timedelta(days=4))
    assert json.loads(run("mailer_cleanup", "--json", "--days", "3"))["emails_deleted"] == 1
    assert Email.objects.get() == newer


def test_cleanup_goes_on_until_nothing_is_left(monkeypatch):
    monkeypatch.setattr("celery_mailer.periodic.STEPS", 1)
    monkeypatch.setattr("celery_mailer.periodic.STEP", 1)
    for _ in range(3):
        final(timedelta(days=1000))
    assert json.loads(run("mailer_cleanup", "--json"))["emails_deleted"] == 3


def test_cleanup_deletes_files_that_no_email_has_any_more():
    final(timedelta(days=4), attachments={"a.txt": ContentFile(b"a")})
    Attachment.objects.update(used_at=timezone.now() - timedelta(days=2))
    assert json.loads(run("mailer_cleanup", "--json", "-d", "3"))["files_deleted"] == 1


@pytest.mark.parametrize("name", ["mailer_cleanup", "cleanup_mail"])
@pytest.mark.parametrize("days", [-1, 10**9])
def test_what_is_no_number_of_days_is_an_error(name, days):
    with pytest.raises(CommandError, match=f"--days: {days} is no number of days back"):
        run(name, days=days)


def test_no_step_is_too_short():
    with pytest.raises(CommandError, match="--batch-size: at least 1"):
        run("cleanup_mail", batch_size=0)


# How far it is.


class Stream(StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def write(self, text, ending="", style_func=None):
        return super().write(text + ending)


@pytest.fixture
def told():
    """What is told of 400 of 1,200, which take that long for each hundred."""

    def told(terminal, seconds, total=1200):
        stream, times = Stream(terminal), iter(range(0, 1000 * seconds, seconds))
        with Progress(stream, "emails", total, clock=lambda: next(times)) as progress:
            for _ in range(4):
                progress.advance(100)
        return stream.getvalue()

    return told


def test_a_terminal_sees_a_bar_that_vanishes(told):
    states = told(terminal=True, seconds=1).split("\r\x1b[K")
    assert states[-2:] == ["[##########....................] 400 of 1,200 emails", ""]


def test_a_terminal_sees_a_count_where_nobody_knows_how_many_there_are(told):
    assert told(terminal=True, seconds=1, total=0).split("\r\x1b[K")[1] == "100 emails"


def test_a_file_gets_a_line_now_and_then(told):
    assert told(terminal=False, seconds=5) == "200 of 1,200 emails\n400 of 1,200 emails\n"
