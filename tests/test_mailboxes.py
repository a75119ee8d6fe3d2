"""Where bounces come from: a mail server's pipe, a Maildir, an mbox."""

import io
import mailbox
from contextlib import closing
from email import message_from_bytes
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from celery_mailer.management.commands import mailer_bounce
from celery_mailer.models import Event, Suppression
from celery_mailer.subscriptions import token_for
from celery_mailer.tokens import Purpose
from celery_mailer.tracking.mailboxes import take
from tests.factories import make_email
from tests.test_bounce_mail import sample

pytestmark = pytest.mark.django_db

BOUNCE, OTHER, NOTE = "postfix-unknown-user.eml", "qmail-no-mailbox.eml", "out-of-office.eml"


@pytest.fixture
def maildir(tmp_path):
    box = mailbox.Maildir(tmp_path / "bounces")
    for file in (BOUNCE, OTHER, NOTE):
        box.add(message_from_bytes(sample(file)))
    return tmp_path / "bounces"


@pytest.fixture
def mbox(tmp_path):
    box = mailbox.mbox(tmp_path / "bounces")
    for file in (BOUNCE, OTHER, NOTE):
        box.add(message_from_bytes(sample(file)))
    box.close()
    return tmp_path / "bounces"


def pipe(monkeypatch, raw):
    monkeypatch.setattr(mailer_bounce.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    call_command("mailer_bounce")


def broken(raw):
    raise OperationalError("away")


def test_a_message_from_a_pipe_is_recorded_in_silence(monkeypatch, capsys):
    pipe(monkeypatch, sample(BOUNCE))
    assert Event.objects.get().kind == "bounced"
    assert capsys.readouterr().out == ""


def test_a_message_that_is_no_bounce_is_taken_from_the_pipe(monkeypatch):
    pipe(monkeypatch, sample(NOTE))
    assert not Event.objects.exists()


def test_with_the_database_away_the_mail_server_is_asked_to_come_again(monkeypatch):
    monkeypatch.setattr(mailer_bounce, "take", broken)
    with pytest.raises(CommandError) as error:
        pipe(monkeypatch, sample(BOUNCE))
    assert error.value.returncode == 75


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_a_mailbox_is_read_once(kind, request, capsys):
    path = request.getfixturevalue(kind)
    call_command("mailer_bounce", f"--{kind}", str(path))
    call_command("mailer_bounce", f"--{kind}", str(path))
    assert capsys.readouterr().out.splitlines() == ["messages: 3, events: 2", "messages: 0, events: 0"]


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_a_mailbox_keeps_its_messages_as_they_are(kind, request):
    path = request.getfixturevalue(kind)
    call_command("mailer_bounce", f"--{kind}", str(path), verbosity=0)
    box = mailbox.Maildir(path) if kind == "maildir" else mailbox.mbox(path)
    with closing(box):
        assert len(box) == 3
        assert all("S" in m.get_flags() or "R" in m.get_flags() for m in box)


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_what_could_not_be_recorded_is_read_again(kind, request, monkeypatch, capsys):
    path = request.getfixturevalue(kind)
    with monkeypatch.context() as patch:
        patch.setattr("celery_mailer.tracking.mailboxes.take", broken)
        with pytest.raises(CommandError):
            call_command("mailer_bounce", f"--{kind}", str(path))
    call_command("mailer_bounce", f"--{kind}", str(path))
    assert capsys.readouterr().out.strip() == "messages: 3, events: 2"


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_a_mailbox_that_is_not_there_is_an_error(kind, tmp_path):
    with pytest.raises(CommandError, match="no mailbox"):
        call_command("mailer_bounce", f"--{kind}", str(tmp_path / "nowhere"))


def test_a_mail_to_the_address_of_list_unsubscribe_unsubscribes(settings):
    settings.CELERY_MAILER = {
        "STREAMS": {"news": {"UNSUBSCRIBE": True}},
        "TRACKING": {"BASE_URL": "https://mail.example.com", "UNSUBSCRIBE_MAILTO": "leave@example.com"},
    }
    token = token_for(Purpose.UNSUBSCRIBE, make_email(stream="news"))
    folded = f"{token[:40]}\r\n {token[40:]}"
    raw = f"From: A@Example.com\r\nTo: leave@example.com\r\nSubject: {folded}\r\n\r\n\r\n"
    assert take(raw.encode()) == 1
    assert [(s.stream, s.reason) for s in Suppression.objects.all()] == [("news", "unsubscribe")]


def test_a_mail_that_says_nothing_of_ours_does_nothing():
    assert take(b"From: a@example.com\r\nSubject: hello\r\n\r\nHow are you?\r\n") == 0
    assert not Suppression.objects.exists()
