"""The provider that keeps mail in the database, and Django's backends for the console and for files."""

from datetime import timedelta

import django
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import EmailMessage
from django.db import OperationalError, transaction
from django.utils import timezone

from celery_mailer.deliver import providers
from celery_mailer.deliver.providers.capture import CaptureProvider, EmailBackend
from celery_mailer.deliver.slice import deliver_emails
from celery_mailer.log.settle import settle_emails
from celery_mailer.models import CapturedMessage
from celery_mailer.models.captured import delete_captured
from celery_mailer.options import Provider
from celery_mailer.values import Kind, Outcome, Status
from tests.conftest import leave_the_outbox
from tests.factories import make_email, stored

pytestmark = pytest.mark.django_db
BACKEND = "celery_mailer.deliver.providers.capture.EmailBackend"


@pytest.fixture
def provide(settings):
    """Makes the default provider of a backend, in spite of the test runner's outbox."""

    def make(backend, **options):
        settings.CELERY_MAILER = {"PROVIDERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}
        leave_the_outbox(settings)
        return providers.get("default")

    yield make
    providers.close_all()


def mail(**arguments):
    defaults = {"subject": "s", "body": "b", "from_email": "shop@example.com", "to": ["a@example.com"]}
    return EmailMessage(**{**defaults, **arguments})


def hand_over(message=None, recipients=("a@example.com",)):
    provider = CaptureProvider("dev", EmailBackend(), Provider())
    assert provider.open(5) is None
    return provider.send(message or mail(), list(recipients), 5)


def test_a_message_is_kept_as_it_would_go_out():
    result = hand_over(mail(subject="Größe", cc=["c@example.com"]), ["a@example.com", "b@example.com"])
    kept = CapturedMessage.objects.get()
    assert result.summary.outcome == Outcome.ACCEPTED
    assert set(result.recipients) == {"a@example.com", "b@example.com"}
    assert (kept.provider, kept.subject) == ("dev", "Größe")
    assert kept.recipients == ["a@example.com", "b@example.com"]
    assert kept.message["Subject"] == "Größe"
    assert (kept.message["Cc"], kept.message.get_content().strip()) == ("c@example.com", "b")


@pytest.mark.parametrize("subject", ["x" * 300, "", "a\0b"], ids=["long", "none", "NUL"])
def test_any_subject_can_be_kept(subject):
    hand_over(mail(subject=subject))
    assert str(CapturedMessage.objects.get()) == subject[:255].replace("\0", "\ufffd")


def test_an_attachment_survives():
    message = mail()
    message.attach("a.bin", b"\x00\xff", "application/octet-stream")
    hand_over(message)
    (part,) = CapturedMessage.objects.get().message.iter_attachments()
    assert (part.get_filename(), part.get_content()) == ("a.bin", b"\x00\xff")


def test_a_message_that_cannot_be_written_is_rejected():
    result = hand_over(mail(subject="a\nb"))
    assert (result.summary.outcome, result.summary.kind) == (Outcome.REJECTED, Kind.MESSAGE)
    assert not CapturedMessage.objects.exists()


def test_a_database_in_trouble_is_asked_again_later(monkeypatch):
    monkeypatch.setattr(CapturedMessage, "save", raising(OperationalError("gone")))
    result = hand_over()
    assert (result.summary.outcome, result.summary.kind) == (Outcome.DEFERRED, Kind.TEMPORARY)


def test_a_refused_row_leaves_the_callers_transaction_whole(monkeypatch):
    monkeypatch.setattr("celery_mailer.deliver.providers.capture.wire_bytes", lambda message: None)
    with transaction.atomic():
        CapturedMessage.objects.create(raw=b"")
        assert hand_over().summary.kind == Kind.TEMPORARY
        assert CapturedMessage.objects.count() == 1


def test_a_time_limit_passes_through(monkeypatch):
    monkeypatch.setattr(CapturedMessage, "save", raising(SoftTimeLimitExceeded()))
    with pytest.raises(SoftTimeLimitExceeded):
        hand_over()


def raising(error):
    def function(*args, **kwargs):
        raise error

    return function


def test_an_email_is_sent_into_the_inbox(provide):
    assert isinstance(provide(BACKEND), CaptureProvider)
    email = make_email(subject="hello", bcc="b@example.com")
    deliver_emails([email.pk])
    settle_emails([email.pk])
    kept = CapturedMessage.objects.get()
    assert stored(email).status == Status.SENT
    assert (kept.subject, kept.provider) == ("hello", "default")
    assert kept.recipients == ["a@example.com", "b@example.com"]
    assert kept.message["Message-ID"] == email.message_id


def test_a_message_that_names_its_email_is_kept_with_it():
    email, message = make_email(), mail()
    message.email_id = email.pk
    hand_over(message)
    assert list(email.captured.all()) == [CapturedMessage.objects.get()]
    email.delete()
    assert CapturedMessage.objects.get().email is None


# As Django's own backend
def test_django_itself_can_send_by_it(settings):
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": BACKEND}}
    else:
        settings.EMAIL_BACKEND = BACKEND
    assert mail(to=["Ann <a@example.com>"], bcc=["b@example.com"]).send() == 1
    kept = CapturedMessage.objects.get()
    assert (kept.recipients, kept.provider) == (["a@example.com", "b@example.com"], "")


def test_a_message_to_nobody_is_not_kept():
    assert EmailBackend().send_messages([mail(to=[])]) == 0


def test_a_fault_is_raised_unless_silence_is_wanted():
    wrong = mail(subject="a\nb")
    assert EmailBackend(fail_silently=True).send_messages([wrong, mail()]) == 1
    with pytest.raises(ValueError, match=r"newline|[Hh]eader"):
        EmailBackend().send_messages([wrong])


# Cleaning up
def test_what_is_old_is_deleted_in_steps():
    now = timezone.now()
    for days in (1, 9, 10, 11):
        CapturedMessage.objects.create(raw=b"", subject=f"{days}", received_at=now - timedelta(days=days))
    before = now - timedelta(days=5)
    assert [delete_captured(before, 2), delete_captured(before, 2), delete_captured(before, 2)] == [2, 1, 0]
    assert [kept.subject for kept in CapturedMessage.objects.all()] == ["1"]


# Django's backends for the console and for files need nothing of ours.
def test_the_console_is_a_provider(provide, capsys):
    provide("django.core.mail.backends.console.EmailBackend")
    email = make_email(subject="hello")
    deliver_emails([email.pk])
    assert "Subject: hello" in capsys.readouterr().out


def test_a_folder_is_a_provider(provide, tmp_path):
    provide("django.core.mail.backends.filebased.EmailBackend", file_path=str(tmp_path / "mail"))
    email = make_email(subject="hello")
    deliver_emails([email.pk])
    (file,) = (tmp_path / "mail").iterdir()
    assert b"Subject: hello" in file.read_bytes()
