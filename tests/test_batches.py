import logging
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone

from celery_mailer import batches
from celery_mailer.batches import cancel_batch, pause_batch, progress, resume_batch, tend
from celery_mailer.models import Batch, Decision, Email, Pause
from celery_mailer.models import transitions as t
from celery_mailer.models.pause import pause, resume
from celery_mailer.periodic import dispatch
from celery_mailer.tasks import send_bulk_email
from tests.factories import claim, make_email, stored

pytestmark = pytest.mark.django_db

Stage = Batch.Stage


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """The ids of the chains that were started."""
    calls = []
    monkeypatch.setattr("celery_mailer.chain.start", lambda ids, priority: calls.append(ids) or True)
    return calls


@pytest.fixture
def make_batch(django_capture_on_commit_callbacks):
    def make(number, **arguments):
        with django_capture_on_commit_callbacks(execute=True):
            people = [f"u{i}@example.com" for i in range(number)]
            result = send_bulk_email.delay(subject="x", recipients=people, **arguments)
        return Batch.objects.get(pk=result.id)

    return make


@pytest.fixture
def tended(django_capture_on_commit_callbacks):
    def do():
        with django_capture_on_commit_callbacks(execute=True):
            return tend()

    return do


def ids(batch):
    return list(batch.emails.order_by("pk").values_list("pk", flat=True))


def sent(pks):
    for pk in pks:
        t.move([pk], t.SENT, claim=claim([Email(pk=pk)]))


def failed(pks):
    for pk in pks:
        t.move([pk], t.REJECT, claim=claim([Email(pk=pk)]))


def stage_of(batch):
    return Batch.objects.get(pk=batch.pk).stage


# Pause and resume.


def test_progress_counts_the_emails_of_the_batch_by_status(make_batch):
    batch = make_batch(3)
    make_email()
    sent(ids(batch)[:1])
    assert progress(batch.pk) == {"sent": 1, "queued": 2}


def test_a_batch_is_paused_and_resumed(make_batch):
    batch = make_batch(1)
    pause_batch(batch.pk, "a typo", by="ada")
    held = Pause.objects.get()
    assert (held.kind, held.name, held.reason, held.by) == ("batch", str(batch.pk), "a typo", "ada")
    assert resume_batch(batch.pk) is True
    assert not Pause.objects.exists()
    assert resume_batch(batch.pk) is False


# Cancel.


def test_what_of_a_batch_waits_is_cancelled(make_batch):
    batch, other = make_batch(3), make_email()
    sent(ids(batch)[:1])
    assert cancel_batch(batch.pk, by="ada") == 2
    assert progress(batch.pk) == {"sent": 1, "cancelled": 2}
    assert stored(other).status == "queued"
    assert set(Decision.objects.values_list("move", "reason", "detail")) == {("cancel", "by_hand", "by ada")}
    assert Batch.objects.get(pk=batch.pk).cancelled_at is not None
    assert stage_of(batch) == Stage.NONE
    assert not Pause.objects.exists()


def test_a_large_batch_is_held_at_once_and_cancelled_in_steps(make_batch, tended, monkeypatch):
    monkeypatch.setattr(batches, "STEP", 2)
    monkeypatch.setattr(batches, "STEPS", 1)
    batch = make_batch(5)
    assert cancel_batch(batch.pk) == 2
    assert Pause.objects.get().name == str(batch.pk)
    assert [tended(), tended()] == [{"cancel": 2}, {"cancel": 1}]
    assert progress(batch.pk) == {"cancelled": 5}
    assert not Pause.objects.exists()
    assert tended() == {}


def test_what_is_being_sent_is_cancelled_if_it_comes_back(make_batch, tended):
    batch = make_batch(1)
    token = claim(batch.emails.all())
    assert cancel_batch(batch.pk) == 0
    assert tended() == {}
    t.move(ids(batch), t.DEFER, claim=token, due_at=timezone.now())
    assert tended() == {"cancel": 1}
    assert progress(batch.pk) == {"cancelled": 1}


def test_a_batch_that_is_cancelled_is_not_resumed(make_batch):
    batch = make_batch(1)
    claim(batch.emails.all())
    cancel_batch(batch.pk)
    assert resume_batch(batch.pk) is False
    assert Pause.objects.exists()


def test_a_batch_that_is_cancelled_is_not_paused(make_batch):
    batch = make_batch(1)
    claim(batch.emails.all())
    cancel_batch(batch.pk)
    with pytest.raises(ValidationError, match="was cancelled"):
        pause("batch", str(batch.pk), "lunch", until=timezone.now() + timedelta(seconds=1))
    held = Pause.objects.get()
    assert (held.reason, held.until) == (batches.CANCELLED, None)


def test_the_command_does_not_pause_a_batch_that_is_cancelled(make_batch):
    batch = make_batch(1)
    claim(batch.emails.all())
    cancel_batch(batch.pk)
    with pytest.raises(CommandError, match="was cancelled"):
        call_command("mailer_pause", "batch", str(batch.pk), "--reason", "lunch", "--minutes", "1")
    assert Pause.objects.get().until is None


def test_a_paused_batch_that_is_cancelled_is_held_without_an_end(make_batch):
    batch = make_batch(1)
    claim(batch.emails.all())
    pause("batch", str(batch.pk), "lunch", until=timezone.now() + timedelta(hours=1))
    cancel_batch(batch.pk)
    held = Pause.objects.get()
    assert (held.reason, held.until) == (batches.CANCELLED, None)


def test_a_batch_may_be_cancelled_once_more(make_batch):
    batch = make_batch(1)
    claim(batch.emails.all())
    assert [cancel_batch(batch.pk), cancel_batch(batch.pk)] == [0, 0]
    assert Pause.objects.exists()


def test_nothing_is_added_to_a_cancelled_batch(monkeypatch, make_batch):
    monkeypatch.setattr("celery_mailer.bulk.SLICE", 2)

    def source():
        for i in range(6):
            if i == 4:
                cancel_batch(Batch.objects.get().pk)
            yield f"u{i}@example.com"

    send_bulk_email.delay(subject="x", recipients=source())
    assert progress(Batch.objects.get().pk) == {"cancelled": 4}


def test_a_batch_that_does_not_exist_cannot_be_cancelled(make_batch):
    batch = make_batch(1)
    batch.delete()
    with pytest.raises(Batch.DoesNotExist):
        cancel_batch(batch.id)
    assert not Pause.objects.exists()


# The canary.


def test_the_first_go_and_the_others_are_held(make_batch, tended, started):
    batch = make_batch(5, canary=2)
    assert started == [ids(batch)[:2]]
    assert [e.reason for e in batch.emails.order_by("pk")] == ["", "", "canary", "canary", "canary"]
    assert tended() == {}
    sent(ids(batch)[:1])
    assert tended() == {}
    assert len(started) == 1


def test_the_dispatcher_leaves_alone_what_is_held(make_batch, started):
    batch = make_batch(3, canary=1)
    late = timezone.now() + timedelta(days=30)
    assert not batch.emails.filter(reason="canary", due_at__lt=late).exists()


def test_when_the_first_were_sent_the_others_go(make_batch, tended, started):
    batch = make_batch(5, canary=2)
    sent(ids(batch)[:2])
    assert tended() == {}
    assert stage_of(batch) == Stage.RELEASE
    assert tended() == {"release": 3}
    assert started[1:] == [ids(batch)[2:]]
    assert stage_of(batch) == Stage.NONE
    assert {e.reason for e in batch.emails.all()} == {""}
    soon = timezone.now() + timedelta(hours=1)
    assert batch.emails.filter(due_at__lt=soon).count() == 3


def test_when_too_many_of_the_first_fail_the_others_are_held_until_a_person_resumes(
    make_batch, tended, started, caplog
):
    batch = make_batch(5, canary=2)
    failed(ids(batch)[:1])
    with caplog.at_level(logging.WARNING, "celery_mailer"):
        assert tended() == {}
    assert stage_of(batch) == Stage.REFUSED
    assert Pause.objects.get().reason == "canary: 1 of the first 2 failed"
    assert "held, 1 of its first 2 emails failed" in caplog.text
    assert tended() == {}
    assert resume_batch(batch.pk) is True
    assert tended() == {"release": 3}


def test_a_refused_canary_may_be_resumed_as_any_pause(make_batch, tended):
    batch = make_batch(3, canary=1)
    failed(ids(batch)[:1])
    tended()
    resume("batch", str(batch.pk))
    tended()
    assert tended() == {"release": 2}


def test_as_many_may_fail_as_the_caller_says(make_batch, tended):
    batch = make_batch(5, canary=2, canary_failures=0.5)
    failed(ids(batch)[:1])
    sent(ids(batch)[1:2])
    tended()
    assert stage_of(batch) == Stage.RELEASE


def test_an_uncertain_email_of_the_first_is_a_failed_one(make_batch, tended):
    batch = make_batch(2, canary=1)
    pk = ids(batch)[0]
    t.move([pk], t.DOUBT, claim=claim([Email(pk=pk)]))
    tended()
    assert stage_of(batch) == Stage.REFUSED


def test_a_person_need_not_wait_for_the_canary(make_batch, tended):
    batch = make_batch(3, canary=1)
    assert resume_batch(batch.pk) is True
    assert tended() == {"release": 2}


def test_a_batch_that_is_smaller_than_its_canary_needs_none(make_batch, tended):
    batch = make_batch(2, canary=5)
    sent(ids(batch))
    tended()
    tended()
    assert stage_of(batch) == Stage.NONE


def test_a_paused_batch_is_not_released(make_batch, tended):
    batch = make_batch(3, canary=1)
    sent(ids(batch)[:1])
    pause_batch(batch.pk, "lunch")
    assert [tended(), tended()] == [{}, {}]
    resume_batch(batch.pk)
    assert tended() == {"release": 2}


def test_a_large_batch_is_released_in_steps(make_batch, tended, monkeypatch):
    monkeypatch.setattr(batches, "STEP", 2)
    monkeypatch.setattr(batches, "STEPS", 1)
    batch = make_batch(6, canary=1)
    sent(ids(batch)[:1])
    tended()
    assert [tended(), tended(), tended()] == [{"release": 2}, {"release": 2}, {"release": 1}]


def test_what_is_scheduled_is_released_for_its_time(make_batch, tended, started):
    at = timezone.now() + timedelta(days=1)
    batch = make_batch(2, canary=1, scheduled_at=at)
    resume_batch(batch.pk)
    assert tended() == {"release": 1}
    assert {e.due_at for e in batch.emails.all()} == {at}
    assert not any(started)


def test_what_comes_after_the_canary_is_over_is_not_held(make_batch, tended, monkeypatch):
    monkeypatch.setattr("celery_mailer.bulk.SLICE", 2)

    def source():
        for i in range(6):
            if i == 4:
                resume_batch(Batch.objects.get().pk)
            yield f"u{i}@example.com"

    send_bulk_email.delay(subject="x", recipients=source(), canary=1)
    assert [e.reason for e in Email.objects.order_by("pk")] == ["", "canary", "canary", "canary", "", ""]


def test_a_canary_may_be_cancelled(make_batch, tended):
    batch = make_batch(3, canary=1)
    assert cancel_batch(batch.pk) == 3
    assert tended() == {}


def test_the_dispatcher_tends_batches(make_batch):
    batch = make_batch(3, canary=1)
    resume_batch(batch.pk)
    assert dispatch() == {"dispatched": 0, "release": 2}
