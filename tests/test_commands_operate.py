"""The commands by which a person looks and intervenes."""

import json
from datetime import timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command, load_command_class
from django.utils import timezone

from celery_mailer import broker, chain
from celery_mailer.batches import cancel_batch
from celery_mailer.management.commands import mailer_send_test
from celery_mailer.models import Batch, Decision, Email, Pause, ProviderState
from celery_mailer.models.pause import pause
from celery_mailer.tasks import send_bulk_email
from tests.factories import claim, make_email, make_emails, stored

pytestmark = pytest.mark.django_db

COMMANDS = [
    "mailer_cancel",
    "mailer_pause",
    "mailer_resume",
    "mailer_retry",
    "mailer_send_test",
    "mailer_status",
]
MINUTE = timedelta(minutes=1)
WORKERS = {"w1@host": ["mail.high", "mail.medium"]}


def run(name, *arguments, **options):
    out = StringIO()
    call_command(name, *arguments, stdout=out, stderr=StringIO(), **options)
    return out.getvalue()


def answer(name, *arguments):
    return json.loads(run(name, *arguments, "--json"))


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """What was published, in the place of publishing it."""
    calls = []
    monkeypatch.setattr(chain, "start", lambda ids, priority: calls.extend(ids) or True)
    return calls


@pytest.fixture(autouse=True)
def workers(monkeypatch):
    monkeypatch.setattr(broker, "queues_by_worker", lambda: WORKERS)


def in_status(status, **arguments):
    email = make_email(**arguments)
    values = {"deferred": {"due_at": timezone.now() + MINUTE}, "queued": {"due_at": timezone.now()}}
    Email.objects.filter(pk=email.pk).update(status=status, **values.get(status, {"due_at": None}))
    return email


def make_batch(number=1, **arguments):
    people = [f"u{i}@example.com" for i in range(number)]
    return Batch.objects.get(pk=send_bulk_email.delay(subject="x", recipients=people, **arguments).id)


def being_cancelled():
    """A batch that beat is still to cancel an email of."""
    batch = make_batch()
    claim(batch.emails.all())
    cancel_batch(batch.pk)
    return batch


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_in_one_line(name):
    help_ = load_command_class("celery_mailer", name).help
    assert help_.endswith(".")
    assert "\n" not in help_


# mailer_status


def test_status_counts_by_lane_and_status():
    make_emails(3, priority="low")
    in_status("sent", priority="high")
    Email.objects.filter(status="sent").update(finished_at=timezone.now())
    lanes = answer("mailer_status")["lanes"]
    assert (lanes["low"]["queued"], lanes["high"]["sent"], lanes["medium"]["queued"]) == (3, 1, 0)


def test_status_tells_how_long_mail_has_waited():
    email = make_email()
    Email.objects.filter(pk=email.pk).update(created_at=timezone.now() - MINUTE)
    assert 60 <= answer("mailer_status")["oldest_due_seconds"]["medium"] < 70


def test_status_tells_who_works():
    assert answer("mailer_status")["workers"] == WORKERS
    assert "worker w1@host: mail.high, mail.medium\n" in run("mailer_status")


def test_status_tells_that_nobody_works(monkeypatch):
    monkeypatch.setattr(broker, "queues_by_worker", dict)
    assert "workers: none answered\n" in run("mailer_status")


def test_status_tells_what_it_can_without_a_broker(monkeypatch):
    def nobody():
        raise broker.Unreachable("OperationalError: refused")

    monkeypatch.setattr(broker, "queues_by_worker", nobody)
    assert "broker: not reached, OperationalError: refused\n" in run("mailer_status")


def test_status_tells_which_provider_is_left_alone():
    again = timezone.now() + MINUTE
    ProviderState.objects.create(alias="default", state="open", retry_at=again, kind="connection")
    expected = {"state": "open", "retry_at": str(again), "fault": "connection"}
    assert answer("mailer_status")["providers"]["default"] == expected
    assert f"provider default: open (connection), again at {again}\n" in run("mailer_status")


def test_status_tells_what_is_paused():
    pause("stream", "marketing", "moving house", until=timezone.now() + MINUTE)
    Pause.objects.create(kind="lane", name="low", reason="over", until=timezone.now() - MINUTE)
    (row,) = answer("mailer_status")["pauses"]
    assert (row["kind"], row["name"], row["reason"]) == ("stream", "marketing", "moving house")
    assert "paused: stream marketing: moving house, until " in run("mailer_status")


# mailer_send_test


def test_send_test_tells_what_the_provider_said(real_smtp):
    result = answer("mailer_send_test", "ann@example.com")
    assert result["status"] == "sent"
    assert [(a["provider"], a["outcome"], a["code"]) for a in result["attempts"]] == [
        ("default", "accepted", 250)
    ]
    assert real_smtp.received[0].recipients == ["ann@example.com"]


def test_send_test_says_it_in_words(real_smtp):
    said = run("mailer_send_test", "ann@example.com")
    assert said.startswith("default accepted 250 ")
    assert said.endswith(": sent\n")


def test_send_test_fails_if_it_is_not_sent(settings, real_smtp):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": {"URL": "simulator://"}}}
    with pytest.raises(CommandError, match="It was not sent yet, and stays deferred: mailer_cancel "):
        run("mailer_send_test", "provider-down@simulator.test")


@pytest.mark.parametrize(
    ("given", "fault"),
    [(("no address",), "is not a valid email address"), (("a@b.c", "--provider", "x"), "x")],
)
def test_send_test_refuses_what_the_door_refuses(given, fault):
    with pytest.raises(CommandError, match=fault):
        run("mailer_send_test", *given)


@pytest.mark.django_db(transaction=True)
def test_send_test_by_the_queue_waits_for_a_worker(monkeypatch, real_smtp, started):
    monkeypatch.setattr(mailer_send_test.time, "sleep", lambda seconds: chain.run(started))
    assert answer("mailer_send_test", "ann@example.com", "--queue")["status"] == "sent"


def test_send_test_by_the_queue_does_not_wait_for_ever():
    with pytest.raises(CommandError, match="No worker has taken it: mailer_doctor looks for the cause"):
        run("mailer_send_test", "ann@example.com", "--queue", "--wait", "0")


# mailer_cancel and mailer_retry


def test_cancel_takes_ids():
    email, other = make_emails(2)
    assert answer("mailer_cancel", str(email.pk)) == {"cancelled": 1}
    assert (stored(email).status, stored(other).status) == ("cancelled", "queued")


def test_cancel_notes_who_did_it():
    email = make_email()
    run("mailer_cancel", str(email.pk))
    decision = Decision.objects.get()
    assert (decision.reason, decision.detail.rpartition(", ")[2]) == ("by_hand", "with mailer_cancel")


@pytest.mark.parametrize(
    "what", [("--stream", "marketing"), ("--lane", "low"), ("--status", "deferred"), ("--reason", "x")]
)
def test_cancel_takes_what_emails_have_in_common(what):
    meant = in_status("deferred", stream="marketing", priority="low")
    Email.objects.update(reason="x")
    other = make_email()
    assert answer("mailer_cancel", *what) == {"cancelled": 1}
    assert (stored(meant).status, stored(other).status) == ("cancelled", "queued")


def test_cancel_goes_on_beyond_a_slice(monkeypatch):
    monkeypatch.setattr("celery_mailer.management.selection.STEP", 2)
    make_emails(5)
    assert answer("mailer_cancel", "--lane", "medium") == {"cancelled": 5}


def test_cancel_does_nothing_on_a_dry_run():
    make_emails(2)
    assert run("mailer_cancel", "--lane", "medium", "--dry-run") == "would cancel 2\n"
    assert set(Email.objects.values_list("status", flat=True)) == {"queued"}


def test_cancel_fails_for_what_is_under_way():
    email = make_email()
    claim([email])
    with pytest.raises(CommandError, match="1 of them cannot be cancelled any more"):
        run("mailer_cancel", str(email.pk))


@pytest.mark.parametrize(
    ("name", "done"), [("mailer_cancel", {"cancelled": 1}), ("mailer_retry", {"retried": 1})]
)
def test_an_id_that_is_given_twice_is_one_email(name, done):
    pk = str(in_status("deferred").pk)
    assert answer(name, pk, pk) == done


@pytest.mark.parametrize("name", ["mailer_cancel", "mailer_retry"])
def test_ids_that_no_email_has_are_an_error(name):
    unknown = uuid4()
    with pytest.raises(CommandError, match=f"No email has the id {unknown}"):
        run(name, str(unknown))


@pytest.mark.parametrize("name", ["mailer_cancel", "mailer_retry"])
def test_what_is_no_id_is_an_error(name):
    with pytest.raises(CommandError, match="'17' is no id"):
        run(name, "17")


@pytest.mark.parametrize("name", ["mailer_cancel", "mailer_retry"])
@pytest.mark.parametrize("what", [(), ("0192f3a0-7c1e-7a52-9d3b-5f0b8c6d2e41", "--lane", "low")])
def test_all_there_is_cannot_be_meant(name, what):
    with pytest.raises(CommandError, match="Give the ids of emails, or what they have in common"):
        run(name, *what)


@pytest.mark.django_db(transaction=True)
def test_retry_sends_what_waits_now(started):
    email = in_status("deferred")
    assert answer("mailer_retry", str(email.pk)) == {"retried": 1}
    assert started == [email.pk]


def test_retry_makes_what_is_uncertain_due():
    email = in_status("uncertain")
    assert answer("mailer_retry", "--status", "uncertain") == {"retried": 1}
    assert stored(email).due_at <= timezone.now()


def test_retry_sends_what_failed_as_a_new_email():
    email = in_status("failed")
    assert answer("mailer_retry", str(email.pk)) == {"resent_as_new": 1}
    assert Email.objects.exclude(pk=email.pk).get().resent_from == email


def test_retry_of_what_failed_sends_nothing_a_second_time():
    in_status("failed")
    assert answer("mailer_retry", "--status", "failed") == {"resent_as_new": 1}
    assert run("mailer_retry", "--status", "failed") == "nothing to retry\n"


def test_retry_means_what_is_deferred_if_no_status_is_given():
    for status in ("failed", "uncertain", "deferred"):
        in_status(status, stream="marketing")
    assert answer("mailer_retry", "--stream", "marketing") == {"retried": 1}


def test_retry_does_nothing_on_a_dry_run(started):
    in_status("deferred")
    assert run("mailer_retry", "--status", "deferred", "--dry-run") == "would retry 1\n"
    assert started == []


def test_retry_fails_for_what_was_sent():
    email = in_status("sent")
    with pytest.raises(CommandError, match="1 have a status in which they cannot be tried again"):
        run("mailer_retry", str(email.pk))


def test_retry_says_why_an_email_cannot_be_sent_again():
    email = in_status("failed")
    email.content.__class__.objects.update(dropped=True)
    with pytest.raises(CommandError, match=f"{email.pk}: cannot be sent again"):
        run("mailer_retry", str(email.pk))


# mailer_pause and mailer_resume


def test_pause_stops_a_stream():
    assert run("mailer_pause", "stream", "marketing", "--reason", "legal") == (
        "paused stream marketing: legal\n"
    )
    row = Pause.objects.get()
    assert (row.kind, row.name, row.reason, row.until) == ("stream", "marketing", "legal", None)
    assert row.by


def test_pause_may_have_an_end():
    run("mailer_pause", "lane", "low", "--reason", "r", "--until", "2099-01-02T03:04+00:00")
    assert Pause.objects.get().until.isoformat() == "2099-01-02T03:04:00+00:00"


def test_pause_takes_a_naive_end_in_the_projects_time_zone(settings):
    settings.TIME_ZONE = "Asia/Jakarta"
    run("mailer_pause", "lane", "low", "--reason", "r", "--until", "2099-01-02T03:04")
    assert Pause.objects.get().until.isoformat() == "2099-01-01T20:04:00+00:00"


def test_pause_may_have_a_length():
    until = answer("mailer_pause", "provider", "default", "--reason", "r", "--minutes", "30")["until"]
    assert timezone.now() + 29 * MINUTE < Pause.objects.get().until < timezone.now() + 31 * MINUTE
    assert until


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("stream", "nowhere", "--reason", "r"), "Known: "),
        (("batch", "17", "--reason", "r"), "Give the id of a batch"),
        (("lane", "low", "--reason", "r", "--until", "2001-01-01T00:00"), "has passed already"),
        (("lane", "low", "--reason", "r", "--minutes", "0"), "has passed already"),
        (("lane", "low", "--reason", "r", "--minutes", "99999999999"), "--minutes: 99999999999 "),
        (("lane", "low", "--reason", "r", "--until", "soon"), "'soon' is no time"),
        (("lane", "low", "--reason", "r", "--until", "2001-13-01T00:00"), "is no time"),
        (("lane", "low"), "--reason"),
        (("moon", "low", "--reason", "r"), "invalid choice"),
    ],
)
def test_pause_refuses_what_makes_no_sense(arguments, fault):
    with pytest.raises(CommandError, match=fault):
        run("mailer_pause", *arguments)


@pytest.mark.parametrize(
    ("name", "more"), [("mailer_pause", ("--reason", "r", "--minutes", "1")), ("mailer_resume", ())]
)
def test_a_batch_that_does_not_exist_is_an_error_that_names_it(name, more):
    unknown = uuid4()
    with pytest.raises(CommandError, match=f"There is no batch {unknown}"):
        run(name, "batch", str(unknown), *more)
    assert not Pause.objects.exists()


@pytest.mark.parametrize(
    ("name", "more"), [("mailer_pause", ("--reason", "r", "--minutes", "1")), ("mailer_resume", ())]
)
def test_what_holds_a_batch_that_is_being_cancelled_stays(name, more):
    batch = being_cancelled()
    with pytest.raises(CommandError, match="This batch was cancelled"):
        run(name, "batch", str(batch.pk), *more)
    assert (Pause.objects.get().reason, Pause.objects.get().until) == ("cancelled", None)


def test_resume_ends_a_pause():
    pause("lane", "low", "r")
    assert answer("mailer_resume", "lane", "low") == {"resumed": True}
    assert not Pause.objects.exists()


def test_resume_says_that_nothing_was_paused():
    assert run("mailer_resume", "lane", "low") == "lane low was not paused\n"


def test_resume_of_what_nothing_is_called_is_an_error():
    with pytest.raises(CommandError, match="Known: "):
        run("mailer_resume", "stream", "nowhere")


def test_resume_ends_the_pause_of_what_is_no_longer_configured():
    Pause.objects.create(kind="stream", name="gone", reason="r")
    assert answer("mailer_resume", "stream", "gone") == {"resumed": True}


def test_resume_takes_the_id_of_a_batch_as_pause_does():
    batch = make_batch()
    run("mailer_pause", "batch", batch.pk.hex, "--reason", "r")
    assert answer("mailer_resume", "batch", batch.pk.hex) == {"resumed": True}


def test_resume_lets_go_what_a_canary_holds():
    batch = make_batch(3, canary=1)
    assert answer("mailer_resume", "batch", str(batch.pk)) == {"resumed": True}
    assert Batch.objects.get().stage == Batch.Stage.RELEASE


def test_resume_ends_the_pause_of_a_batch_that_was_deleted():
    batch = make_batch()
    pause("batch", str(batch.pk), "r")
    Batch.objects.all().delete()
    assert answer("mailer_resume", "batch", str(batch.pk)) == {"resumed": True}
