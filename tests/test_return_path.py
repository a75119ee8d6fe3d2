"""The return path of an email: a token that its bounce brings back."""

import io
from types import SimpleNamespace
from uuid import UUID

import pytest
from django.core.mail import EmailMessage
from django.core.management import call_command
from django.utils.module_loading import import_string
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer import conf, options
from celery_mailer.checks import check_way_out
from celery_mailer.deliver import providers
from celery_mailer.deliver.providers import smtp
from celery_mailer.deliver.providers.anymail import AnymailProvider
from celery_mailer.deliver.providers.contract import Wire
from celery_mailer.deliver.providers.pipeline import Conversation
from celery_mailer.deliver.providers.returning import return_path
from celery_mailer.deliver.slice import deliver_emails
from celery_mailer.management.commands import mailer_bounce
from celery_mailer.models import Event, Suppression
from celery_mailer.return_path import email_ids, fault, with_token
from tests.conftest import leave_the_outbox, smtp_provider
from tests.factories import make_email, make_emails
from tests.servers.scripted_smtp import ScriptedSmtp

ADDRESS = "bounces@example.com"
EMAIL = UUID("0192f3a0-7c1e-7a52-9d3b-5f0b8c6d2e41")

REPORT = """\
Return-Path: <>
Delivered-To: {came_to}
From: MAILER-DAEMON@mx.example.net (Mail Delivery System)
To: {came_to}
Subject: Undelivered Mail Returned to Sender
Date: Fri, 01 May 2026 12:00:05 +0000
Message-ID: <report@mx.example.net>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

The mail system could not deliver your message.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; {recipient}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such user

--b--
"""


def report(came_to, recipient):
    """A bounce that returns nothing of the mail: only where it comes to says which that was."""
    return REPORT.format(came_to=came_to, recipient=recipient).encode()


@given(st.uuids())
def test_an_id_comes_back(email_id):
    assert list(email_ids(with_token(ADDRESS, email_id))) == [email_id]


def test_an_id_comes_back_in_capitals():
    assert list(email_ids(with_token(ADDRESS, EMAIL).upper())) == [EMAIL]


@given(st.integers(0, 38), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_a_token_with_another_character_names_no_other_email(place, character):
    local_part, plus, token = with_token(ADDRESS, EMAIL).partition("@")[0].partition("+")
    token = token[:place] + character + token[place + 1 :]
    assert set(email_ids(f"{local_part}{plus}{token}@example.com")) <= {EMAIL}


def test_a_token_survives_a_new_secret_key(settings):
    address = with_token(ADDRESS, EMAIL)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", [settings.SECRET_KEY]
    assert list(email_ids(address)) == [EMAIL]


def test_a_token_of_another_site_is_none(settings):
    address = with_token(ADDRESS, EMAIL)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another", []
    assert not list(email_ids(address))


def test_the_longest_local_part_is_as_long_as_it_may_be():
    longest = f"{'b' * 24}@example.com"
    assert not fault(longest)
    assert len(with_token(longest, EMAIL).partition("@")[0]) == 64  # RFC 5321, section 4.5.3.1.1


@pytest.mark.parametrize("local_part", ["b" * 25, '"a b"', "ü", "a..b", "a%b"])
def test_into_some_addresses_no_token_can_go(local_part):
    assert fault(f"{local_part}@example.com")


@pytest.mark.parametrize("address", ["bounces", f"{'b' * 25}@example.com", '"a b"@example.com'])
def test_a_return_path_that_cannot_be_is_a_fault_of_the_settings(address, settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": smtp_provider(25, RETURN_PATH=address)}}
    (problem,) = conf.problems()
    assert problem.path.endswith("['RETURN_PATH']")


def test_the_domain_of_a_return_path_is_written_in_ascii():
    assert with_token("Bounces <bounces@bücher.example>", EMAIL).endswith("@xn--bcher-kva.example")


@pytest.mark.parametrize(
    ("backend", "faults"),
    [
        (conf.SMTP_BACKEND, 0),
        ("anymail.backends.amazon_ses.EmailBackend", 0),
        ("anymail.backends.postmark.EmailBackend", 1),
        ("django.core.mail.backends.console.EmailBackend", 1),
    ],
)
def test_a_backend_that_is_told_no_return_path_is_said_to_be_so(backend, faults, settings):
    settings.CELERY_MAILER = {"PROVIDERS": {"default": {"BACKEND": backend, "RETURN_PATH": ADDRESS}}}
    assert len([fault for fault in check_way_out() if "RETURN_PATH" in fault.msg]) == faults


# What goes out.


def message(**arguments):
    made = EmailMessage(to=["a@example.net"], from_email="shop@example.com", **arguments)
    vars(made)["email_id"] = EMAIL
    return made


def test_an_email_has_its_own():
    own = with_token(ADDRESS, EMAIL)
    assert return_path(ADDRESS, message()) == own
    assert return_path(ADDRESS, Wire("shop@example.com", b"", EMAIL)) == own


@pytest.mark.parametrize("name", ["From", "from"])
def test_a_callers_own_return_path_stays(name):
    assert return_path(ADDRESS, message(headers={name: "Shop <shop@example.com>"})) is None


def test_a_callers_own_return_path_in_anymails_way_stays():
    given = message()
    given.envelope_sender = "mine@example.com"
    assert return_path(ADDRESS, given) is None


def test_mail_that_is_no_email_of_ours_has_none():
    assert return_path(ADDRESS, EmailMessage(to=["a@example.net"])) is None


def told(module, field, **options_given):
    """What the ESP behind Anymail's ``module`` is told in ``field`` of its API."""
    backend = import_string(f"anymail.backends.{module}.EmailBackend")(**options_given)
    params = []

    def post(payload, message):
        params.append(getattr(payload, "params", None) or payload.data)

    backend.post_to_esp = post
    provider = AnymailProvider("default", backend, options.Provider(return_path=ADDRESS))
    assert provider.open(5) is None
    provider.send(message(subject="s", body="b"), ["a@example.net"], 5)
    return params[0].get(field)


SES = {"region_name": "eu-west-1", "aws_access_key_id": "k", "aws_secret_access_key": "s"}


def test_ses_forwards_bounces_to_the_return_path():
    address = told("amazon_ses", "FeedbackForwardingEmailAddress", client_params=SES)
    assert address == with_token(ADDRESS, EMAIL)


def test_sparkpost_is_told_the_return_path():
    assert told("sparkpost", "return_path", api_key="k") == with_token(ADDRESS, EMAIL)


def test_an_esp_to_which_it_is_another_header_is_not_told_it():
    assert told("postal", "sender", api_key="k", api_url="https://postal.example/") is None


@pytest.fixture
def returning(settings, real_smtp):
    """A real server, to which the default provider goes with a return path."""
    provider = smtp_provider(real_smtp.port, RETURN_PATH=ADDRESS)
    settings.CELERY_MAILER = {"PROVIDERS": {"default": provider}}
    leave_the_outbox(settings)
    return real_smtp


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("headers", [{}, {"Sender": "x@example.com"}], ids=["wire", "built"])
def test_the_envelope_has_the_token_and_the_header_from_stays(returning, headers):
    email = make_email(from_email="Shop <shop@example.com>", headers=headers)
    deliver_emails([email.pk])
    (received,) = returning.received
    assert received.sender == with_token(ADDRESS, email.pk)
    assert received.message["From"] == "Shop <shop@example.com>"


@pytest.mark.django_db(transaction=True)
def test_an_email_with_its_own_return_path_goes_out_with_it(returning):
    headers = {"From": "Shop <shop@example.com>"}
    deliver_emails([make_email(from_email="mine@example.com", headers=headers).pk])
    (received,) = returning.received
    assert (received.sender, received.message["From"]) == ("mine@example.com", "Shop <shop@example.com>")


@pytest.mark.django_db(transaction=True)
def test_a_slice_with_return_paths_is_pipelined_over_one_connection(settings, monkeypatch):
    ways = []

    def conversation(line, *, pipelining):
        ways.append(pipelining)
        return Conversation(line, pipelining=pipelining)

    monkeypatch.setattr(smtp, "Conversation", conversation)
    with ScriptedSmtp(extensions=("PIPELINING",)) as server:
        provider = smtp_provider(server.port, RETURN_PATH=ADDRESS)
        settings.CELERY_MAILER = {"PROVIDERS": {"default": provider}}
        leave_the_outbox(settings)
        emails = make_emails(5)
        deliver_emails([email.pk for email in emails])
        providers.close_all()
    assert ways == [True]
    assert [taken.sender for taken in server.taken] == [with_token(ADDRESS, e.pk) for e in emails]


# There and back.


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("to", [["a@example.net"], ["b@example.net", "a@example.net"]], ids=["one", "of two"])
def test_a_bounce_to_the_return_path_is_an_event_of_the_email_and_its_recipient(returning, monkeypatch, to):
    email, other = make_email(to=to), make_email(to=to)
    deliver_emails([email.pk, other.pk])
    came_to = next(r.sender for r in returning.received if email.message_id.encode() in r.data)
    raw = report(came_to, "a@example.net")
    monkeypatch.setattr(mailer_bounce.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    call_command("mailer_bounce")
    event = Event.objects.get()
    assert (event.kind, event.bounce, event.email_id) == ("bounced", "hard", email.pk)
    assert event.recipient == "a@example.net"
    assert Suppression.objects.get().address == "a@example.net"
