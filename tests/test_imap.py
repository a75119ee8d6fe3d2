"""Bounces in an IMAP mailbox: each is read once, whatever breaks, and nobody tells the password."""

import logging
from contextlib import ExitStack
from urllib.parse import quote

import pytest
from django.core.management import CommandError, call_command
from django.db import DataError, OperationalError

from celery_mailer import conf, imap_url
from celery_mailer.models import Event
from celery_mailer.tracking import imap, mailboxes
from tests.servers.imap import CERTIFICATE, PASSWORD, USER, ImapServer
from tests.test_bounce_mail import sample

pytestmark = pytest.mark.django_db

BOUNCE, OTHER, NOTE = (
    sample(file) for file in ("postfix-unknown-user.eml", "qmail-no-mailbox.eml", "out-of-office.eml")
)
MESSAGES = [BOUNCE, OTHER, NOTE]


@pytest.fixture
def serve(settings, monkeypatch):
    """Starts a server, which the settings then name."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))

    stack = ExitStack()

    def start(messages=MESSAGES, *, scheme="imaps", password=PASSWORD, **options):
        tls = {"imaps": "implicit", "imap+tls": "starttls", "imap": ""}[scheme]
        server = stack.enter_context(ImapServer(messages, tls=tls, **options))
        folder = quote(server.folder, safe="")
        host = "localhost" if server.host == "127.0.0.1" else server.host
        url = f"{scheme}://{USER}:{quote(password, safe='')}@{host}:{server.port}/{folder}"
        settings.CELERY_MAILER = {"BOUNCES": {"IMAP_URL": url}}
        return server

    with stack:
        yield start


def read(capsys):
    call_command("mailer_bounce", "--imap")
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("scheme", ["imaps", "imap+tls", "imap"])
def test_a_mailbox_is_read_once(serve, capsys, scheme):
    serve(scheme=scheme)
    assert read(capsys) == "messages: 3, events: 2, flagged: 0"
    assert read(capsys) == "messages: 0, events: 0, flagged: 0"
    assert Event.objects.count() == 2


def test_what_was_read_is_seen_and_stays_there(serve, capsys):
    server = serve()
    read(capsys)
    assert server.flags() == [{"\\Seen"}] * 3


def test_what_somebody_has_seen_is_not_read(serve, capsys):
    server = serve()
    server.messages[0].flags.add("\\Seen")
    assert read(capsys) == "messages: 2, events: 1, flagged: 0"


def test_a_folder_with_an_odd_name_is_found(serve, capsys):
    serve(folder="Our bounces/2026")
    assert read(capsys).startswith("messages: 3")


def test_a_server_that_only_knows_login_is_logged_in_to(serve, capsys, monkeypatch):
    monkeypatch.setattr("tests.servers.imap.PASSWORD", 'a "quoted" \\ one')
    serve(password='a "quoted" \\ one', plain=False)
    assert read(capsys).startswith("messages: 3")


def test_with_the_database_away_nothing_is_marked(serve, capsys, monkeypatch):
    def away(raw):
        raise OperationalError("away")

    server = serve()
    with monkeypatch.context() as patch:
        patch.setattr(mailboxes, "take", away)
        with pytest.raises(CommandError) as error:
            read(capsys)
    assert error.value.returncode == 75
    assert server.flags() == [set()] * 3
    assert read(capsys) == "messages: 3, events: 2, flagged: 0"


def test_a_line_that_breaks_before_the_mark_loses_nothing_and_doubles_nothing(serve, capsys):
    server = serve()
    server.drop_at = {"STORE"}
    with pytest.raises(CommandError, match="the mailbox cannot be used"):
        read(capsys)
    assert Event.objects.count() == 1
    assert server.flags() == [set()] * 3
    server.drop_at = set()
    assert read(capsys) == "messages: 3, events: 1, flagged: 0"
    assert Event.objects.count() == 2


@pytest.mark.parametrize("error", [DataError("no such text"), ValueError("broken")])
def test_a_message_that_cannot_be_read_is_flagged_and_the_next_is_read(serve, capsys, monkeypatch, error):
    take = mailboxes.take

    def stumble(raw):
        if raw == BOUNCE:
            raise error
        return take(raw)

    monkeypatch.setattr(mailboxes, "take", stumble)
    server = serve()
    assert read(capsys) == "messages: 3, events: 1, flagged: 1"
    assert server.flags() == [{"\\Seen", "\\Flagged"}, {"\\Seen"}, {"\\Seen"}]
    assert read(capsys) == "messages: 0, events: 0, flagged: 0"


@pytest.mark.parametrize("raw", [b"", b"\0\xff\xfe" * 50, BOUNCE[: len(BOUNCE) // 2]])
def test_a_damaged_message_does_not_stop_the_others(serve, capsys, raw):
    serve([raw, OTHER])
    assert read(capsys).startswith("messages: 2, events:")
    assert Event.objects.filter(recipient__gt="").exists()


def test_a_run_reads_so_many_and_the_next_the_rest(serve, capsys, monkeypatch):
    monkeypatch.setattr(imap, "MOST", 2)
    serve()
    assert [read(capsys)[:11] for _ in range(3)] == ["messages: 2", "messages: 1", "messages: 0"]


def test_of_a_large_message_only_the_beginning_is_fetched(serve, capsys):
    server = serve([BOUNCE + b"x" * (2 * imap.LARGEST)])
    assert read(capsys) == "messages: 1, events: 1, flagged: 0"
    assert server.fetched == imap.LARGEST


def test_a_message_that_is_gone_meanwhile_is_left_out(serve, capsys, monkeypatch):
    server = serve()
    unseen = imap._unseen

    def and_delete(box):
        found = unseen(box)
        del server.messages[0]
        return found

    monkeypatch.setattr(imap, "_unseen", and_delete)
    assert read(capsys) == "messages: 2, events: 1, flagged: 0"


def test_an_empty_mailbox_is_no_fault(serve, capsys):
    serve([])
    assert read(capsys) == "messages: 0, events: 0, flagged: 0"


@pytest.mark.parametrize("plain", [True, False], ids=["authenticate", "login"])
def test_a_wrong_password_is_said_by_nobody(serve, capsys, caplog, plain):
    serve(password="hunter2", plain=plain)
    with caplog.at_level(logging.DEBUG), pytest.raises(CommandError, match="refused the login") as error:
        read(capsys)
    assert error.value.returncode == 75
    assert error.value.__cause__.__cause__ is None
    assert "hunter2" not in f"{error.value} {caplog.text} {capsys.readouterr()}"


def test_a_password_that_login_cannot_say_is_a_refused_login(serve, capsys):
    serve(plain=False)  # it has an umlaut
    with pytest.raises(CommandError, match="refused the login"):
        read(capsys)


def test_a_certificate_for_another_host_is_not_trusted(serve, capsys):
    server = serve(host="127.0.0.2")
    with pytest.raises(CommandError, match="certificate"):
        read(capsys)
    assert not server.said


@pytest.mark.parametrize("scheme", ["imaps", "imap+tls"])
def test_a_certificate_that_nobody_vouches_for_is_not_trusted(serve, capsys, monkeypatch, scheme):
    server = serve(scheme=scheme)
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(CommandError, match="certificate"):
        read(capsys)
    assert not {"LOGIN", "AUTHENTICATE"} & set(server.said)


def test_a_server_without_starttls_does_not_hear_the_password(serve, capsys, settings):
    server = serve(scheme="imap")
    url = settings.CELERY_MAILER["BOUNCES"]["IMAP_URL"]
    settings.CELERY_MAILER = {"BOUNCES": {"IMAP_URL": url.replace("imap://", "imap+tls://")}}
    with pytest.raises(CommandError, match="cannot be used"):
        read(capsys)
    assert not {"LOGIN", "AUTHENTICATE"} & set(server.said)


def test_a_folder_that_is_not_there_is_an_error(serve, capsys, settings):
    serve()
    url = settings.CELERY_MAILER["BOUNCES"]["IMAP_URL"]
    settings.CELERY_MAILER = {"BOUNCES": {"IMAP_URL": url.replace("INBOX", "nowhere")}}
    with pytest.raises(CommandError, match="no such folder"):
        read(capsys)


def test_a_server_that_is_not_there_is_an_error(serve, capsys):
    server = serve()
    server._server.socket.close()
    with pytest.raises(CommandError, match="cannot be used"):
        read(capsys)


def test_without_the_setting_there_is_no_mailbox(capsys, settings):
    settings.CELERY_MAILER = {}
    with pytest.raises(CommandError, match="IMAP_URL"):
        read(capsys)


# The address.


@pytest.mark.parametrize(
    ("url", "mailbox"),
    [
        ("imaps://u:p@h.example", imap_url.Mailbox("tls", "h.example", 993, "u", "p", "INBOX")),
        ("imap+tls://u:p@h.example/", imap_url.Mailbox("starttls", "h.example", 143, "u", "p", "INBOX")),
        ("imap://u%40x:p%2F@h:1143/a%20b", imap_url.Mailbox("none", "h", 1143, "u@x", "p/", "a b")),
        ("imaps://u:p@h/Returned/Shop", imap_url.Mailbox("tls", "h", 993, "u", "p", "Returned/Shop")),
    ],
)
def test_an_address_is_taken_apart(url, mailbox):
    assert imap_url.parse(url) == mailbox


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "pop3://u:hunter2@h",
        "imaps://u@h",
        "imaps://u:hunter2@",
        "imaps://u:hunter2@h:x",
        "imaps://u:hunter2@h?x=1",
        "imaps://u:hunter2@h/ü",
        "imaps://u:hunter2@h/a%0Ab",
        "imaps://[u:hunter2@h",
    ],
)
def test_an_address_with_a_fault_is_one_of_the_settings_and_not_repeated(url, settings):
    settings.CELERY_MAILER = {"BOUNCES": {"IMAP_URL": url}}
    (problem,) = conf.problems()
    assert problem.path == "CELERY_MAILER['BOUNCES']['IMAP_URL']"
    assert "hunter2" not in str(problem)


def test_the_settings_do_not_show_the_password(settings):
    settings.CELERY_MAILER = {"BOUNCES": {"IMAP_URL": "imaps://u:hunter2@h"}}
    assert "hunter2" not in repr(conf.get())
    assert "hunter2" not in repr(imap_url.parse(conf.get().bounces.imap_url))
