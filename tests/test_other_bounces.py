"""Bounces that flufl.bounce has to read, as none of our own readers knows their form."""

import sys
from email import message_from_bytes

import pytest

from celery_mailer.return_path import with_token
from celery_mailer.tracking import arf, dsn, other_bounces, plain_bounces
from celery_mailer.tracking.bounce_mail import read
from celery_mailer.values import uuid7
from tests.test_bounce_mail import EXPECTED, sample, told

flufl = pytest.importorskip("flufl.bounce", reason="needs the extra bounce")

EYOU = b"""\
From: MAILER-DAEMON@mail.example.net
To: bounces@shop.example
Subject: Mail system notice
Date: Fri, 01 May 2026 12:00:05 +0000
Message-ID: <eyou@mail.example.net>

This is the deliver program at mail.example.net.
wang@example.net
 mailbox unavailable
--- a copy
"""
MDAEMON = b"""\
From: MDaemon@mail.example.net
To: bounces@shop.example
Subject: Notice
Message-ID: <mdaemon@mail.example.net>

ada@example.net - no such user here.

There is no user by that name at this server.
"""
POSTPONED = b"""\
From: postmaster@mail.example.net
To: bounces@shop.example
Subject: Notice
Message-ID: <postponed@mail.example.net>

This is an advisory-only email.
"ada@example.net"
has been postponed
"""
FORMS = {
    EYOU: ("bounced", "hard", "wang@example.net"),
    MDAEMON: ("bounced", "hard", "ada@example.net"),
    POSTPONED: ("deferred", "", "ada@example.net"),
}


def ours(mail):
    return arf.read(mail) or dsn.read(mail) or plain_bounces.read(mail)


@pytest.mark.parametrize("raw", FORMS, ids=["eyou", "mdaemon", "postponed"])
def test_a_form_that_only_it_knows_is_understood(raw):
    assert ours(message_from_bytes(raw)) == []
    (happening,) = read(raw)
    assert (happening.kind, happening.bounce, happening.recipient) == FORMS[raw]


@pytest.mark.parametrize("raw", FORMS, ids=["eyou", "mdaemon", "postponed"])
def test_where_it_is_not_installed_such_a_mail_says_nothing(raw, monkeypatch):
    monkeypatch.setitem(sys.modules, "flufl.bounce", None)
    assert read(raw) == []


def test_it_is_the_return_path_that_names_the_email():
    email_id = uuid7()
    came_to = with_token("bounces@shop.example", email_id).encode()
    (happening,) = read(EYOU.replace(b"bounces@shop.example", came_to))
    assert happening.email_id == email_id


@pytest.mark.parametrize("file", sorted(EXPECTED))
def test_what_our_own_readers_understand_does_not_get_to_it(file, monkeypatch):
    asked = []
    monkeypatch.setattr(flufl, "all_failures", lambda mail: asked.append(mail) or (set(), set()))
    understood = told(sample(file)) != []
    assert not (asked and understood)


@pytest.mark.parametrize("file", ["postfix-relayed.eml", "arf-not-spam.eml"])
def test_a_report_of_nothing_bad_is_not_searched_for_bounces(file, monkeypatch):
    monkeypatch.setattr(flufl, "all_failures", lambda mail: (set(), {b"ada@example.net"}))
    assert read(sample(file)) == []


def test_a_person_who_names_an_address_has_not_bounced():
    raw = EYOU.replace(b"MAILER-DAEMON@mail", b"ada@mail")
    assert flufl.all_failures(message_from_bytes(raw))[1]
    assert read(raw) == []


def test_a_detector_that_stumbles_is_no_reason_to_fail(monkeypatch):
    def stumble(mail):
        raise IndexError

    monkeypatch.setattr(flufl, "all_failures", stumble)
    assert other_bounces.read(message_from_bytes(EYOU)) == []
