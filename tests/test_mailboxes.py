"""Where bounces come from: a mail server's pipe, a Maildir, an mbox."""

import io
import json
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


NESTED = b"".join(
    b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (level, level) for level in range(3000)
)


def pipe(monkeypatch, raw, *arguments):
    monkeypatch.setattr(mailer_bounce.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    call_command("mailer_bounce", *arguments)


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
    monkeypatch.setattr("celery_mailer.tracking.mailboxes.take", broken)
    with pytest.raises(CommandError) as error:
        pipe(monkeypatch, sample(BOUNCE))
    assert error.value.returncode == 75


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_a_mailbox_is_read_once(kind, request, capsys):
    path = request.getfixturevalue(kind)
    call_command("mailer_bounce", f"--{kind}", str(path))
    call_command("mailer_bounce", f"--{kind}", str(path))
    assert capsys.readouterr().out.splitlines() == [
        "messages: 3, events: 2, flagged: 0",
        "messages: 0, events: 0, flagged: 0",
    ]


def test_the_counts_of_a_pipe_are_printed_where_they_are_asked_for(monkeypatch, capsys):
    pipe(monkeypatch, sample(BOUNCE), "--json")
    assert json.loads(capsys.readouterr().out) == {"messages": 1, "events": 1}


def test_the_counts_of_a_mailbox_are_printed_as_json(maildir, capsys):
    call_command("mailer_bounce", "--maildir", str(maildir), "--json")
    assert json.loads(capsys.readouterr().out) == {"messages": 3, "events": 2, "flagged": 0}


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
    assert capsys.readouterr().out.strip() == "messages: 3, events: 2, flagged: 0"


def put(path, kind, raw):
    """Put a message before the others, as what delivers mail would."""
    if kind == "maildir":
        (path / "new" / "0.first").write_bytes(raw)
    else:
        path.write_bytes(b"From MAILER-DAEMON Fri May  1 12:00:00 2026\n" + raw + b"\n" + path.read_bytes())


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_a_message_that_cannot_be_read_does_not_stop_the_others(kind, request, capsys):
    path = request.getfixturevalue(kind)
    put(path, kind, NESTED)
    call_command("mailer_bounce", f"--{kind}", str(path))
    call_command("mailer_bounce", f"--{kind}", str(path))
    assert capsys.readouterr().out.splitlines() == [
        "messages: 4, events: 2, flagged: 1",
        "messages: 0, events: 0, flagged: 0",
    ]


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_a_message_that_cannot_be_read_is_flagged_for_a_person(kind, request, monkeypatch):
    def read(raw):
        if b"hello" in raw:
            raise RecursionError
        return []

    monkeypatch.setattr("celery_mailer.tracking.mailboxes.read", read)
    path = request.getfixturevalue(kind)
    put(path, kind, b"Subject: hello\n\nspam\n")
    call_command("mailer_bounce", f"--{kind}", str(path), verbosity=0)
    box = mailbox.Maildir(path) if kind == "maildir" else mailbox.mbox(path)
    with closing(box):
        assert [m["Subject"] for m in box if "F" in m.get_flags()] == ["hello"]


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_a_message_that_a_program_has_seen_arrive_is_read_all_the_same(kind, tmp_path, capsys):
    path, raw = tmp_path / "bounces", b"Status: O\n" + sample(BOUNCE)
    (mailbox.Maildir if kind == "maildir" else mailbox.mbox)(path).close()
    path.touch()
    put(path, kind, raw)
    call_command("mailer_bounce", f"--{kind}", str(path))
    call_command("mailer_bounce", f"--{kind}", str(path))
    assert [line[:22] for line in capsys.readouterr().out.splitlines()] == [
        "messages: 1, events: 1",
        "messages: 0, events: 0",
    ]


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_line_ends_of_the_wire_make_no_difference_in_a_mailbox(kind, tmp_path, capsys):
    path, raw = tmp_path / "bounces", sample(BOUNCE).replace(b"Status: 5.1.1", b"Status: 5.1.1 (Refused)")
    (mailbox.Maildir if kind == "maildir" else mailbox.mbox)(path).close()
    path.touch()
    put(path, kind, raw.replace(b"\n", b"\r\n"))
    call_command("mailer_bounce", f"--{kind}", str(path))
    assert capsys.readouterr().out.startswith("messages: 1, events: 1")
    assert b"5.1.1 (Refused)" in next(p for p in [path, *path.rglob("*")] if p.is_file()).read_bytes()


def test_a_message_from_a_pipe_that_cannot_be_read_is_refused_for_its_form(monkeypatch):
    with pytest.raises(CommandError) as error:
        pipe(monkeypatch, NESTED)
    assert error.value.returncode == 65


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
