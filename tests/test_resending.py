from datetime import timedelta
from io import BytesIO

import pytest
from django.utils import timezone

from celery_mailer import chain, signals
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.models import Attachment, Content, Email, EmailTemplate
from celery_mailer.models import transitions as t
from celery_mailer.render.stage import render_emails
from celery_mailer.resending import resend
from tests.factories import claim, make_email, stored

pytestmark = pytest.mark.django_db


def finished(how=t.REJECT, **arguments):
    """An email that is final."""
    email = make_email(**arguments)
    t.move([email.pk], how, claim=claim([email]) if how is t.REJECT else None)
    return stored(email)


@pytest.fixture
def started(monkeypatch):
    """The ids that chains were started for."""
    ids = []
    monkeypatch.setattr(chain, "start", lambda pks, priority: ids.extend(pks))
    return ids


def test_the_new_email_says_the_same_to_the_same_people_and_names_the_old():
    old = finished(to="Ada <ada@example.com>", cc="b@example.com", reply_to="r@example.com", tags=["x"])
    new = stored(resend(old))
    assert (new.to, new.cc, new.status, new.resent_from) == (old.to, old.cc, "queued", old)
    same = ("subject", "text", "reply_to", "tags", "from_email")
    assert [getattr(new.content, n) for n in same] == [getattr(old.content, n) for n in same]
    assert stored(old).status == "failed"


def test_it_has_an_id_and_a_message_id_of_its_own():
    old = finished(headers={"Message-ID": "<chosen@example.com>", "X-Order": "17"})
    new = stored(resend(old))
    assert new.pk != old.pk
    assert new.message_id not in ("", old.message_id)
    assert new.content.headers == {"X-Order": "17"}


def test_it_is_not_the_answer_to_the_key_of_the_old_one():
    old = finished(idempotency_key="order-17")
    assert stored(resend(old)).idempotency_key is None
    assert make_email(idempotency_key="order-17").pk == old.pk


def test_its_chain_starts_when_the_transaction_commits(started, django_capture_on_commit_callbacks):
    old = finished()
    with django_capture_on_commit_callbacks(execute=True):
        new = resend(old)
        assert started == []
    assert started == [new.pk]


def test_the_project_hears_that_it_is_queued(started, django_capture_on_commit_callbacks):
    heard = []

    def receive(emails, **kwargs):
        heard.extend(e.pk for e in emails)

    signals.email_queued.connect(receive)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            new = resend(finished())
    finally:
        signals.email_queued.disconnect(receive)
    assert heard[-1] == new.pk


def test_what_was_sent_now_goes_by_the_high_lane():
    old = finished(how=t.CANCEL)
    Email.objects.filter(pk=old.pk).update(priority=3)
    assert resend(stored(old)).priority == 2


def test_times_that_have_passed_do_not_bind_it():
    past = timezone.now() - timedelta(days=1)
    old = finished(how=t.CANCEL)
    Email.objects.filter(pk=old.pk).update(scheduled_at=past, expires_at=past)
    new = resend(stored(old))
    assert (new.scheduled_at, new.expires_at) == (None, None)


def test_its_files_are_the_same_and_are_stored_once():
    old = finished(attachments={"a.txt": BytesIO(b"one"), "b.txt": BytesIO(b"two")})
    new = resend(old)
    assert [e.name for e in new.enclosures.order_by("position")] == ["a.txt", "b.txt"]
    assert stored(new).content.has_attachments
    assert Attachment.objects.count() == 2


def test_it_is_rendered_from_the_version_of_then():
    template = EmailTemplate.objects.create(name="hello", subject="Hello {{ name }}")
    old = make_email(template="hello", context={"name": "Ada"}, subject="", message="")
    render_emails([old.pk])
    t.move([old.pk], t.CANCEL)
    template.subject = "Changed"
    template.save()
    new = resend(stored(old))
    render_emails([new.pk])
    assert stored(new).rendered.subject == "Hello Ada"


def test_a_provider_that_is_gone_is_not_asked_for():
    old = finished()
    Email.objects.filter(pk=old.pk).update(provider="gone")
    assert resend(stored(old)).provider == ""


def test_what_is_still_to_be_sent_is_refused():
    with pytest.raises(InvalidEmail, match="still to be sent"):
        resend(make_email())
    assert Email.objects.count() == 1


def test_what_was_dropped_is_refused():
    old = finished(sensitive=True)
    with pytest.raises(InvalidEmail, match="no longer stored"):
        resend(old)
    assert Content.objects.count() == 1


def test_deleting_the_old_one_leaves_the_new_one():
    old = finished()
    new = resend(old)
    old.delete()
    assert stored(new).resent_from is None
