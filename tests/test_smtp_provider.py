"""``SmtpProvider`` against a server that fails in every way at every step."""

import smtplib
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path

import django
import pytest
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer.deliver.providers import smtp
from celery_mailer.deliver.providers.contract import Parcel
from celery_mailer.deliver.providers.patience import Clock, Line
from celery_mailer.deliver.providers.smtp import SmtpProvider
from celery_mailer.options import Provider
from celery_mailer.values import Kind, Outcome, Phase
from tests.servers.scripted_smtp import (
    CERTIFICATE,
    ScriptedSmtp,
    after,
    drop,
    each,
    freeze,
    reset,
    silence,
    take,
    trickle,
)

STEP = 1.2  # seconds that a silent server is waited for here
ORDINARY, PIPELINING = ("SIZE",), ("SIZE", "PIPELINING")
LARGE = ("x" * 70 + "\n") * 85_000  # more than the buffers between us and the server hold


class TrustingBackend(EmailBackend):
    """A project's own backend, which knows its server's certificate."""

    @cached_property
    def ssl_context(self):
        return ssl.create_default_context(cafile=CERTIFICATE)


@pytest.fixture
def serve():
    with ExitStack() as stack:
        yield lambda *scripts, **options: stack.enter_context(ScriptedSmtp(*scripts, **options))


@pytest.fixture
def connect():
    """Makes providers for a server, and closes them before the server ends."""
    made = []

    def make(server, kind=EmailBackend, rules=None, **options):
        options = {"host": "127.0.0.1", "port": server.port, "timeout": 5, **options}
        if django.VERSION >= (6, 1):
            options["alias"] = "test"
        made.append(SmtpProvider("test", kind(**options), rules or Provider()))
        return made[-1]

    yield make
    for provider in made:
        provider.close()


@pytest.fixture
def clock(monkeypatch):
    """Time as the provider sees it, which ``clock.pass_(seconds)`` moves on."""

    class Ahead:
        ahead = 0.0

        def monotonic(self):
            return time.monotonic() + self.ahead

        def pass_(self, seconds):
            self.ahead += seconds

    clock = Ahead()
    monkeypatch.setattr(smtp, "time", clock)
    return clock


def mail(body="text", sender="shop@example.com"):
    return EmailMessage("subject", body, sender, ["a@example.com"])


def hand_over(provider, *recipients, body="text", timeout=5):
    assert provider.open(timeout) is None
    return provider.send(mail(body), list(recipients or ["a@example.com"]), timeout)


def hand_over_many(provider, number, begin=lambda: True):
    """A stream of ``number`` mails for as many recipients."""
    assert provider.open(5) is None
    parcels = (Parcel(mail(), [f"u{i}@example.com"], begin) for i in range(number))
    return list(provider.send_many(parcels, 5))


def never_answers(script):
    """Whether the server of ``script`` has to be waited for in vain."""
    actions = [a for step in script.values() for a in (step if isinstance(step, list) else [step])]
    return any(a in (silence, freeze) or getattr(a, "__name__", "") == "trickling" for a in actions)


def name(action):
    """What a test case is called."""
    if isinstance(action, list):
        return ", ".join(map(name, action))
    return getattr(action, "__name__", action)


def seen(reply):
    return (reply.outcome, reply.kind, reply.phase, reply.code)


# What open() says. (script, server's and backend's options) -> kind, phase, code
LOGIN = {"extensions": ("AUTH PLAIN",), "username": "u", "password": "p"}
OPENING = {
    "greeting 421": ({"connect": "421 busy"}, {}, (Kind.CONNECTION, Phase.CONNECT, 421)),
    "greeting 554": ({"connect": "554 go away"}, {}, (Kind.PROVIDER, Phase.CONNECT, 554)),
    "greeting of another protocol": ({"connect": "+OK POP3"}, {}, (Kind.CONNECTION, Phase.CONNECT, None)),
    "greeting 250": ({"connect": "250 what"}, {}, (Kind.CONNECTION, Phase.CONNECT, None)),
    "dropped before greeting": ({"connect": drop}, {}, (Kind.CONNECTION, Phase.CONNECT, None)),
    "reset before greeting": ({"connect": reset}, {}, (Kind.CONNECTION, Phase.CONNECT, None)),
    "silent before greeting": ({"connect": silence}, {}, (Kind.CONNECTION, Phase.CONNECT, None)),
    "trickling greeting": ({"connect": trickle("220-x\r\n")}, {}, (Kind.CONNECTION, Phase.CONNECT, None)),
    "dropped at EHLO": ({"EHLO": drop}, {}, (Kind.CONNECTION, Phase.CONNECT, None)),
    "silent at EHLO": ({"EHLO": silence}, {}, (Kind.CONNECTION, Phase.CONNECT, None)),
    "421 at EHLO": ({"EHLO": ["421 bye", drop]}, {}, (Kind.CONNECTION, Phase.CONNECT, None)),
    "neither EHLO nor HELO": ({"EHLO": "502 no", "HELO": "502 no"}, {}, (Kind.PROVIDER, Phase.CONNECT, 502)),
    "login refused": ({"AUTH": "535 wrong"}, LOGIN, (Kind.PROVIDER, Phase.LOGIN, 535)),
    "login fails for now": ({"AUTH": "454 later"}, LOGIN, (Kind.CONNECTION, Phase.LOGIN, 454)),
    "421 at login": ({"AUTH": "421 bye"}, LOGIN, (Kind.CONNECTION, Phase.LOGIN, 421)),
    "garbled at login": ({"AUTH": "what"}, LOGIN, (Kind.CONNECTION, Phase.LOGIN, None)),
    "garbled challenge": ({"AUTH": "334 abc"}, LOGIN, (Kind.PROVIDER, Phase.CONNECT, None)),
    "dropped at login": ({"AUTH": drop}, LOGIN, (Kind.CONNECTION, Phase.CONNECT, None)),
    "silent at login": ({"AUTH": silence}, LOGIN, (Kind.CONNECTION, Phase.CONNECT, None)),
    "login not offered": ({}, {**LOGIN, "extensions": ("SIZE",)}, (Kind.PROVIDER, Phase.CONNECT, None)),
    "no common login": ({}, {**LOGIN, "extensions": ("AUTH X",)}, (Kind.PROVIDER, Phase.CONNECT, None)),
    "login not ASCII": ({}, {**LOGIN, "password": "ä"}, (Kind.PROVIDER, Phase.CONNECT, None)),
    "TLS not offered": ({}, {"use_tls": True}, (Kind.PROVIDER, Phase.CONNECT, None)),
    "STARTTLS 454": (
        {"STARTTLS": "454 later"},
        {"use_tls": True, "extensions": ("STARTTLS",)},
        (Kind.CONNECTION, Phase.CONNECT, 454),
    ),
    "dropped in the handshake": (
        {"STARTTLS": ["220 go", drop]},
        {"use_tls": True, "extensions": ("STARTTLS",)},
        (Kind.CONNECTION, Phase.CONNECT, None),
    ),
    "silent in the handshake": (
        {"STARTTLS": ["220 go", silence]},
        {"use_tls": True, "extensions": ("STARTTLS",)},
        (Kind.CONNECTION, Phase.CONNECT, None),
    ),
    "certificate not trusted, STARTTLS": (
        {},
        {"use_tls": True, "extensions": ("STARTTLS",)},
        (Kind.PROVIDER, Phase.CONNECT, None),
    ),
    "certificate not trusted, TLS": (
        {},
        {"use_ssl": True, "tls": "implicit"},
        (Kind.PROVIDER, Phase.CONNECT, None),
    ),
}


@pytest.fixture
def opening(serve, connect):
    """Makes a server and a provider for a row of ``OPENING``."""

    def make(script, options):
        of_server = {key: options[key] for key in ("extensions", "tls") if key in options}
        of_backend = {key: value for key, value in options.items() if key not in of_server}
        server = serve(script, **of_server)
        return server, connect(server, timeout=STEP if never_answers(script) else 5, **of_backend)

    return make


@pytest.mark.parametrize("fault", OPENING)
def test_a_fault_while_opening_is_deferred(opening, fault):
    script, options, (kind, phase, code) = OPENING[fault]
    _, provider = opening(script, options)
    assert seen(provider.open(5)) == (Outcome.DEFERRED, kind, phase, code)


@pytest.mark.parametrize("fault", OPENING)
def test_a_failed_opening_leaves_no_connection_behind(opening, fault):
    script, options, _ = OPENING[fault]
    server, provider = opening(script, options)
    provider.open(5)
    server.wait_for(lambda s: len(s.sessions) == 1 and s.sessions[0].ended)


def test_a_port_where_nobody_listens_is_a_connection_fault(connect):
    with ScriptedSmtp() as server:
        pass
    assert seen(connect(server).open(5)) == (Outcome.DEFERRED, Kind.CONNECTION, Phase.CONNECT, None)


def test_a_host_name_that_cannot_be_one_is_the_providers_fault(serve, connect):
    reply = connect(serve(), host="a..example").open(5)
    assert seen(reply) == (Outcome.DEFERRED, Kind.PROVIDER, Phase.CONNECT, None)


def test_a_backend_that_fails_silently_is_a_connection_fault(serve, connect):
    reply = connect(serve({"connect": "554 no"}), fail_silently=True).open(5)
    assert seen(reply) == (Outcome.DEFERRED, Kind.CONNECTION, Phase.CONNECT, None)


def test_what_a_projects_backend_raises_is_not_quoted(serve, connect):
    class Backend(EmailBackend):
        def open(self):
            raise RuntimeError("token abc123")

    reply = connect(serve(), Backend).open(5)
    assert (reply.kind, reply.text) == (Kind.PROVIDER, "RuntimeError")


def test_an_opening_that_a_time_limit_ends_leaves_no_connection_behind(serve, connect, monkeypatch):
    server = serve()
    provider = connect(server)

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("smtplib.SMTP.ehlo_or_helo_if_needed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        provider.open(5)
    server.wait_for(lambda s: s.sessions[0].ended)


def test_a_server_without_ehlo_is_greeted_with_helo(serve, connect):
    server = serve({"EHLO": "502 no"})
    assert hand_over(connect(server)).summary.outcome == Outcome.ACCEPTED
    assert server.sessions[0].verbs()[:3] == ["EHLO", "HELO", "MAIL"]


# What send() says of one recipient, on a new connection. script -> outcome, kind, phase, code, usable
D, R, U, A = Outcome.DEFERRED, Outcome.REJECTED, Outcome.UNCERTAIN, Outcome.ACCEPTED
SENDING = {
    "all well": ({}, (A, Kind.NONE, Phase.DOT, 250, True)),
    "MAIL 451": ({"MAIL": "451 later"}, (D, Kind.TEMPORARY, Phase.MAIL, 451, True)),
    "MAIL 550": ({"MAIL": "550 no"}, (R, Kind.SENDER, Phase.MAIL, 550, True)),
    "MAIL 552": ({"MAIL": "552 too large"}, (R, Kind.CONTENT, Phase.MAIL, 552, True)),
    "MAIL 530": ({"MAIL": "530 log in"}, (D, Kind.PROVIDER, Phase.MAIL, 530, False)),
    "MAIL 421": ({"MAIL": ["421 bye", drop]}, (D, Kind.CONNECTION, Phase.MAIL, 421, False)),
    "dropped at MAIL": ({"MAIL": drop}, (D, Kind.CONNECTION, Phase.MAIL, None, False)),
    "reset at MAIL": ({"MAIL": reset}, (D, Kind.CONNECTION, Phase.MAIL, None, False)),
    "silent at MAIL": ({"MAIL": silence}, (D, Kind.CONNECTION, Phase.MAIL, None, False)),
    "garbled at MAIL": ({"MAIL": "what"}, (D, Kind.CONNECTION, Phase.MAIL, None, False)),
    "trickling at MAIL": ({"MAIL": trickle("250-x\r\n")}, (D, Kind.CONNECTION, Phase.MAIL, None, False)),
    "RCPT 251": ({"RCPT": "251 forwarded"}, (A, Kind.NONE, Phase.DOT, 250, True)),
    "RCPT 450": ({"RCPT": "450 later"}, (D, Kind.TEMPORARY, Phase.RCPT, 450, True)),
    "RCPT 454": ({"RCPT": "454 relay denied"}, (D, Kind.TEMPORARY, Phase.RCPT, 454, True)),
    "RCPT 550": ({"RCPT": "550 no"}, (R, Kind.RECIPIENT, Phase.RCPT, 550, True)),
    "RCPT 552": ({"RCPT": "552 5.3.4 too large"}, (R, Kind.CONTENT, Phase.RCPT, 552, True)),
    "RCPT full": ({"RCPT": "552 no room"}, (R, Kind.RECIPIENT, Phase.RCPT, 552, True)),
    "RCPT 530": ({"RCPT": "530 log in"}, (D, Kind.PROVIDER, Phase.RCPT, 530, False)),
    "RCPT 421": ({"RCPT": ["421 bye", drop]}, (D, Kind.CONNECTION, Phase.RCPT, 421, True)),
    "RCPT 354": ({"RCPT": "354 what"}, (D, Kind.CONNECTION, Phase.RCPT, None, True)),
    "dropped at RCPT": ({"RCPT": drop}, (D, Kind.CONNECTION, Phase.RCPT, None, True)),
    "reset at RCPT": ({"RCPT": reset}, (D, Kind.CONNECTION, Phase.RCPT, None, True)),
    "silent at RCPT": ({"RCPT": silence}, (D, Kind.CONNECTION, Phase.RCPT, None, True)),
    "DATA 451": ({"DATA": "451 later"}, (D, Kind.TEMPORARY, Phase.DATA, 451, True)),
    "DATA 554": ({"DATA": "554 no"}, (R, Kind.CONTENT, Phase.DATA, 554, True)),
    "DATA 250": ({"DATA": "250 what"}, (D, Kind.CONNECTION, Phase.DATA, None, True)),
    "dropped at DATA": ({"DATA": drop}, (D, Kind.CONNECTION, Phase.DATA, None, True)),
    "silent at DATA": ({"DATA": silence}, (D, Kind.CONNECTION, Phase.DATA, None, True)),
    "dot 451": ({"dot": "451 later"}, (D, Kind.TEMPORARY, Phase.DOT, 451, True)),
    "dot 554": ({"dot": "554 spam"}, (R, Kind.CONTENT, Phase.DOT, 554, True)),
    "dot 421": ({"dot": ["421 bye", drop]}, (D, Kind.CONNECTION, Phase.DOT, 421, True)),
    "dot 354": ({"dot": "354 what"}, (U, Kind.NO_ANSWER, Phase.DOT, None, True)),
    "garbled at dot": ({"dot": [take, "what"]}, (U, Kind.NO_ANSWER, Phase.DOT, None, True)),
    "endless line at dot": ({"dot": [take, "250 " + "x" * 9000]}, (U, Kind.NO_ANSWER, Phase.DOT, None, True)),
    "dropped at dot": ({"dot": [take, drop]}, (U, Kind.NO_ANSWER, Phase.DOT, None, True)),
    "reset at dot": ({"dot": [take, reset]}, (U, Kind.NO_ANSWER, Phase.DOT, None, True)),
    "silent at dot": ({"dot": [take, silence]}, (U, Kind.NO_ANSWER, Phase.DOT, None, True)),
    "trickling at dot": ({"dot": [take, trickle("250-x\r\n")]}, (U, Kind.NO_ANSWER, Phase.DOT, None, True)),
}  # fmt: skip


@pytest.mark.parametrize("extensions", [ORDINARY, PIPELINING], ids=["step by step", "pipelined"])
@pytest.mark.parametrize("fault", SENDING)
def test_what_a_fault_in_the_transaction_comes_to(serve, connect, fault, extensions):
    script, expected = SENDING[fault]
    patience = STEP if never_answers(script) else 5
    server = serve(script, extensions=extensions)
    result = hand_over(connect(server, timeout=patience), timeout=3 * patience)
    assert (*seen(result.summary), result.usable) == expected
    assert result.recipients == {"a@example.com": result.summary}


@pytest.mark.parametrize("extensions", [ORDINARY, PIPELINING], ids=["step by step", "pipelined"])
@pytest.mark.parametrize("fault", [f for f in SENDING if f != "all well"])
def test_the_next_mail_goes_out_after_a_fault(serve, connect, fault, extensions):
    script, _ = SENDING[fault]
    patience = STEP if never_answers(script) else 5
    once = {step: each(action, default(step)) for step, action in script.items()}
    server = serve(once, {}, extensions=extensions)
    provider = connect(server, timeout=patience)
    hand_over(provider, timeout=2 * patience)
    taken = len(server.taken)
    assert hand_over(provider).summary.outcome == Outcome.ACCEPTED
    assert len(server.taken) == taken + 1


def default(step):
    return {"DATA": "354 go ahead"}.get(step, "250 fine")


BODY = {
    "dropped in the body": (drop, (D, Kind.CONNECTION, Phase.BODY, None, True)),
    "reset in the body": (reset, (D, Kind.CONNECTION, Phase.BODY, None, True)),
    "silent in the body": (freeze, (D, Kind.CONNECTION, Phase.BODY, None, True)),
    "552 in the body": (["552 too large", drop], (R, Kind.CONTENT, Phase.BODY, 552, True)),
    "452 in the body": (["452 full", drop], (D, Kind.TEMPORARY, Phase.BODY, 452, True)),
    "421 in the body": (["421 bye", drop], (D, Kind.CONNECTION, Phase.BODY, 421, True)),
    "250 in the body": (["250 what", drop], (D, Kind.CONNECTION, Phase.BODY, None, True)),
}


@pytest.mark.parametrize("extensions", [ORDINARY, PIPELINING], ids=["step by step", "pipelined"])
@pytest.mark.parametrize("fault", BODY)
def test_a_fault_in_the_body_certainly_took_nothing(serve, connect, fault, extensions):
    action, expected = BODY[fault]
    provider = connect(serve({"body": action}, extensions=extensions))
    result = hand_over(provider, body=LARGE, timeout=4 if action is freeze else 10)
    assert (*seen(result.summary), result.usable) == expected


def test_the_servers_words_are_kept(serve, connect):
    result = hand_over(connect(serve({"RCPT": "550-no such\n550 user \x00 here"})))
    assert result.summary.text == "no such\nuser \ufffd here"


# Several recipients
THREE = ("a@example.com", "b@example.com", "c@example.com")


def test_one_refused_of_three_is_told_apart(serve, connect):
    server = serve({"RCPT b@example.com": "550 no"})
    result = hand_over(connect(server), *THREE)
    assert {a: r.outcome for a, r in result.recipients.items()} == dict(zip(THREE, (A, R, A), strict=True))
    assert result.summary.outcome == Outcome.ACCEPTED
    assert server.taken[0].recipients == ["a@example.com", "c@example.com"]


def test_one_deferred_of_three_makes_the_mail_deferred(serve, connect):
    result = hand_over(connect(serve({"RCPT b@example.com": "451 later"})), *THREE)
    assert {a: r.outcome for a, r in result.recipients.items()} == dict(zip(THREE, (A, D, A), strict=True))
    assert result.summary.outcome == Outcome.DEFERRED


def test_when_all_are_refused_no_data_is_sent(serve, connect):
    server = serve({"RCPT": each("550 no", "451 later", "550 no")})
    result = hand_over(connect(server), *THREE)
    assert {a: r.outcome for a, r in result.recipients.items()} == dict(zip(THREE, (R, D, R), strict=True))
    assert server.sessions[0].verbs() == ["EHLO", "MAIL", "RCPT", "RCPT", "RCPT"]
    assert server.taken == []


def test_a_mail_that_was_refused_is_forgotten_before_the_next(serve, connect):
    server = serve({"RCPT a@example.com": "550 no"})
    provider = connect(server)
    hand_over(provider)
    assert hand_over(provider, "b@example.com").summary.outcome == Outcome.ACCEPTED
    assert server.sessions[0].verbs() == ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA"]
    assert server.taken[0].recipients == ["b@example.com"]


def test_a_line_that_breaks_leaves_earlier_refusals_standing(serve, connect):
    server = serve({"RCPT a@example.com": "550 no", "RCPT c@example.com": drop})
    result = hand_over(connect(server), *THREE)
    assert {a: r.outcome for a, r in result.recipients.items()} == dict(zip(THREE, (R, D, D), strict=True))


def test_silence_after_the_dot_leaves_earlier_refusals_standing(serve, connect):
    server = serve({"RCPT b@example.com": "550 no", "dot": [take, drop]})
    result = hand_over(connect(server), *THREE)
    assert {a: r.outcome for a, r in result.recipients.items()} == dict(zip(THREE, (U, R, U), strict=True))


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        ("552 too many recipients", (D, Kind.TEMPORARY)),
        ("552 5.5.3 too many recipients", (D, Kind.TEMPORARY)),
        ("552 5.2.2 mailbox full", (R, Kind.RECIPIENT)),
        ("552 5.3.4 too large", (R, Kind.CONTENT)),
        ("550 5.1.1 nobody", (R, Kind.RECIPIENT)),
    ],
)
def test_a_recipient_too_many_is_for_another_transaction(serve, connect, answer, fate):
    result = hand_over(connect(serve({"RCPT b@example.com": answer})), *THREE)
    one, two, three = (result.recipients[address] for address in THREE)
    assert (two.outcome, two.kind) == fate
    assert one.outcome == three.outcome == A


def test_after_a_421_nothing_more_is_said(serve, connect):
    server = serve({"RCPT b@example.com": "421 bye"})
    result = hand_over(connect(server), *THREE)
    assert {seen(r) for r in result.recipients.values()} == {(D, Kind.CONNECTION, Phase.RCPT, 421)}
    assert server.sessions[0].verbs() == ["EHLO", "MAIL", "RCPT", "RCPT"]


def test_a_login_wanted_for_one_of_several_is_about_that_one(serve, connect):
    result = hand_over(connect(serve({"RCPT b@example.com": "530 log in"})), *THREE)
    assert seen(result.recipients["b@example.com"]) == (D, Kind.TEMPORARY, Phase.RCPT, 530)
    assert result.usable


def test_a_login_wanted_for_all_is_about_the_provider(serve, connect):
    result = hand_over(connect(serve({"RCPT": "530 log in"})), *THREE)
    assert {seen(r) for r in result.recipients.values()} == {(D, Kind.PROVIDER, Phase.RCPT, 530)}
    assert not result.usable


# The life of a connection
def test_mails_share_a_connection(serve, connect):
    server = serve()
    provider = connect(server)
    for _ in range(3):
        hand_over(provider)
    assert (len(server.sessions), len(server.taken)) == (1, 3)


def test_a_connection_carries_so_many_messages_and_no_more(serve, connect):
    server = serve()
    provider = connect(server, rules=Provider(max_messages_per_connection=2))
    for _ in range(5):
        hand_over(provider)
    assert [s.verbs().count("MAIL") for s in server.sessions] == [2, 2, 1]
    assert server.sessions[0].verbs()[-1] == "QUIT"


def test_a_connection_grows_so_old_and_no_older(serve, connect, clock):
    server = serve()
    provider = connect(server)
    hand_over(provider)
    clock.pass_(Provider().max_connection_age.total_seconds() + 1)
    hand_over(provider)
    assert [s.verbs().count("MAIL") for s in server.sessions] == [1, 1]


def test_a_line_in_use_is_not_checked(serve, connect, clock):
    server = serve()
    provider = connect(server)
    for _ in range(3):
        hand_over(provider)
        clock.pass_(smtp.CHECK_AFTER_IDLE - 1)
    assert "NOOP" not in server.sessions[0].verbs()


def test_an_idle_line_is_checked_before_use(serve, connect, clock):
    server = serve()
    provider = connect(server)
    hand_over(provider)
    clock.pass_(smtp.CHECK_AFTER_IDLE)
    hand_over(provider)
    assert server.sessions[0].verbs() == ["EHLO", "MAIL", "RCPT", "DATA", "NOOP", "MAIL", "RCPT", "DATA"]


@pytest.mark.parametrize("answer", ["421 bye", "500 what", drop, reset, silence], ids=name)
def test_an_idle_line_that_fails_the_check_is_replaced(serve, connect, clock, monkeypatch, answer):
    monkeypatch.setattr(smtp, "CHECK_TIMEOUT", STEP)
    server = serve({"NOOP": answer}, {})
    provider = connect(server)
    hand_over(provider)
    clock.pass_(smtp.CHECK_AFTER_IDLE)
    assert hand_over(provider).summary.outcome == Outcome.ACCEPTED
    assert [s.verbs().count("MAIL") for s in server.sessions] == [1, 1]


def test_a_server_that_hung_up_between_two_mails_gets_the_second_once(serve, connect):
    server = serve()
    provider = connect(server)
    hand_over(provider)
    server.sessions[0].hang_up()
    result = hand_over(provider)
    assert (result.summary.outcome, result.usable) == (Outcome.ACCEPTED, True)
    assert [s.verbs().count("MAIL") for s in server.sessions] == [1, 1]
    assert len(server.taken) == 2


@pytest.mark.parametrize("answer", ["421 enough", ["421 enough", drop], drop, reset, silence], ids=name)
def test_a_used_line_that_fails_at_mail_is_replaced(serve, connect, answer):
    server = serve({"MAIL": each("250 fine", answer)}, {})
    provider = connect(server, timeout=STEP if answer is silence else 5)
    hand_over(provider)
    result = hand_over(provider)
    assert (result.summary.outcome, result.usable) == (Outcome.ACCEPTED, True)
    assert (len(server.sessions), len(server.taken)) == (2, 2)


def test_a_refusal_at_mail_on_a_used_line_is_an_answer(serve, connect):
    server = serve({"MAIL": each("250 fine", "550 no"), "RSET": drop})
    provider = connect(server)
    hand_over(provider)
    result = hand_over(provider)
    assert seen(result.summary) == (Outcome.REJECTED, Kind.SENDER, Phase.MAIL, 550)
    assert len(server.sessions) == 1


def test_a_used_line_that_fails_after_mail_is_not_tried_again_at_once(serve, connect):
    server = serve({"RCPT": each("250 fine", drop)})
    provider = connect(server)
    hand_over(provider)
    result = hand_over(provider)
    assert seen(result.summary) == (Outcome.DEFERRED, Kind.CONNECTION, Phase.RCPT, None)
    assert len(server.sessions) == 1


def test_a_server_that_hung_up_for_good_cannot_be_used(serve, connect):
    server = serve({}, {"connect": "554 closed"})
    provider = connect(server)
    hand_over(provider)
    assert provider.open(5) is None
    server.sessions[0].hang_up()
    result = provider.send(mail(), ["a@example.com"], 5)
    assert seen(result.summary) == (Outcome.DEFERRED, Kind.PROVIDER, Phase.CONNECT, 554)
    assert not result.usable


def test_a_second_hang_up_at_mail_is_not_retried_for_ever(serve, connect):
    server = serve({"MAIL": each("250 fine", "421 bye")}, {"MAIL": "421 bye"})
    provider = connect(server)
    hand_over(provider)
    result = hand_over(provider)
    assert (result.summary.code, result.usable, len(server.sessions)) == (421, False, 2)


def test_a_new_line_that_fails_at_mail_is_not_replaced(serve, connect):
    server = serve({}, {"MAIL": "421 bye"})
    provider = connect(server, rules=Provider(max_messages_per_connection=2))
    usable = [hand_over(provider).usable for _ in range(3)]
    assert (usable, len(server.sessions)) == ([True, True, False], 2)


def test_one_mail_that_breaks_the_line_is_not_held_against_the_provider(serve, connect):
    server = serve({"DATA": drop}, {}, {"DATA": drop})
    provider = connect(server)
    assert [hand_over(provider).usable for _ in range(2)] == [True, True]
    provider.close()
    assert hand_over(provider).usable


def test_a_line_that_breaks_under_two_mails_in_a_row_is_the_providers_fault(serve, connect):
    provider = connect(serve({"DATA": drop}))
    assert [hand_over(provider).usable for _ in range(2)] == [True, False]


def test_a_connection_whose_reset_fails_is_replaced(serve, connect):
    server = serve({"RCPT": "550 no", "RSET": "421 bye"}, {})
    provider = connect(server)
    assert hand_over(provider).summary.code == 550
    assert hand_over(provider).summary.outcome == Outcome.ACCEPTED
    assert len(server.sessions) == 2


def waited_for(server, write):
    """``write`` that comes back from a message when the server has it."""

    def writing(self, data):
        taken = write(self, data)
        if data.endswith(b"\r\n.\r\n"):
            server.wait_for(lambda s: s.taken)
        return taken

    return writing


def test_an_interrupted_hand_over_leaves_no_line_on_which_its_answer_may_come(serve, connect, monkeypatch):
    server = serve({"dot": [take, silence]}, {})
    provider = connect(server)
    hear = Line.reply

    def interrupted(self):
        if server.taken:
            raise KeyboardInterrupt
        return hear(self)

    assert provider.open(5) is None
    monkeypatch.setattr(Line, "write", waited_for(server, Line.write))
    monkeypatch.setattr(Line, "reply", interrupted)
    with pytest.raises(KeyboardInterrupt):
        provider.send(mail(), ["a@example.com"], 5)
    server.wait_for(lambda s: s.sessions[0].ended)
    monkeypatch.undo()
    assert hand_over(provider).summary.outcome == Outcome.ACCEPTED
    assert len(server.sessions) == 2


def test_an_interrupted_check_leaves_no_line_on_which_its_answer_may_come(serve, connect, clock, monkeypatch):
    server = serve()
    provider = connect(server)
    hand_over(provider)
    clock.pass_(smtp.CHECK_AFTER_IDLE)

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("smtplib.SMTP.noop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        provider.open(5)
    server.wait_for(lambda s: s.sessions[0].ended)


# Time
def took(function, *arguments):
    started = time.monotonic()
    function(*arguments)
    return time.monotonic() - started


def test_the_deadline_holds_against_a_server_that_trickles(serve, connect):
    provider = connect(serve({"dot": [take, trickle("250-x\r\n")]}), timeout=30)
    assert provider.open(5) is None
    assert took(provider.send, mail(), ["a@example.com"], 0.5) < 12


def test_the_deadline_holds_against_a_server_that_is_slow_at_every_step(serve, connect):
    provider = connect(serve({"RCPT": silence}), timeout=30)
    assert provider.open(5) is None
    assert took(provider.send, mail(), list(THREE), 0.5) < 12


def test_the_deadline_holds_against_a_server_that_reads_slowly_over_tls(serve, connect):
    server = serve({"body": freeze}, tls="implicit")
    provider = connect(server, TrustingBackend, use_ssl=True, timeout=30)
    assert provider.open(5) is None
    assert took(provider.send, mail(LARGE), ["a@example.com"], 1) < 15


def test_the_deadline_covers_the_second_try_as_well(serve, connect):
    server = serve({"MAIL": each("250 fine", silence)}, {"connect": silence})
    provider = connect(server, timeout=30)
    hand_over(provider)
    assert provider.open(5) is None
    started = time.monotonic()
    result = provider.send(mail(), ["a@example.com"], 0.5)
    assert time.monotonic() - started < 12
    assert (result.summary.outcome, result.usable) == (Outcome.DEFERRED, False)


def test_opening_ends_at_its_deadline(serve, connect):
    assert took(connect(serve({"EHLO": trickle("250-x\r\n")}), timeout=30).open, 0.5) < 12


def test_each_step_of_the_opening_has_its_time(serve, connect):
    slow = after(2)
    script = {"connect": [slow, "220 ready"], "EHLO": [slow, "250 scripted.example"]}
    assert connect(serve(script), timeout=3.5).open(30) is None


def test_the_answer_to_the_dot_may_take_longer_than_a_step(serve, connect):
    provider = connect(serve({"dot": [after(2 * STEP), "250 taken"]}), timeout=STEP)
    assert hand_over(provider, timeout=10).summary.outcome == Outcome.ACCEPTED


def test_no_time_at_all_is_a_connection_fault(serve, connect):
    assert connect(serve()).open(0).kind == Kind.CONNECTION


def test_a_backend_that_makes_its_own_connections_works_too(serve, connect):
    class Backend(EmailBackend):
        def open(self):
            self.connection = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
            return True

    assert hand_over(connect(serve(), Backend)).summary.outcome == Outcome.ACCEPTED


def test_a_backend_with_a_factory_of_connections_works_too(serve, connect):
    class Backend(EmailBackend):
        @property
        def connection_class(self):
            return partial(smtplib.SMTP)

    assert hand_over(connect(serve(), Backend)).summary.outcome == Outcome.ACCEPTED


# What is said on the line
def test_the_envelope_is_ascii(serve, connect):
    server = serve()
    provider = connect(server)
    assert provider.open(5) is None
    provider.send(mail(sender="Büro <shop@bücher.example>"), ["a@example.com"], 5)
    assert server.taken[0].sender == "shop@xn--bcher-kva.example"


def test_the_size_is_told_to_a_server_that_asks(serve, connect):
    server = serve()
    hand_over(connect(server))
    assert f"SIZE={len(server.taken[0].data)}" in server.sessions[0].commands[1]


def test_the_size_is_not_told_to_others(serve, connect):
    server = serve(extensions=("PIPELINING",))
    hand_over(connect(server))
    assert server.sessions[0].commands[1] == "MAIL FROM:<shop@example.com>"


@pytest.mark.parametrize(("body", "said"), [("Grüße", True), ("greetings", False)])
def test_eight_bit_mail_is_announced_as_such(serve, connect, body, said):
    server = serve(extensions=("8BITMIME",))
    hand_over(connect(server), body=body)
    assert server.sessions[0].commands[1].endswith(" BODY=8BITMIME") == said


def test_any_body_arrives_byte_for_byte():
    def on_the_wire(raw):
        lines = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        return lines if lines.endswith(b"\r\n") else lines + b"\r\n"

    options = {"alias": "test"} if django.VERSION >= (6, 1) else {}
    with ScriptedSmtp() as server, pytest.MonkeyPatch.context() as patch:
        backend = EmailBackend(host="127.0.0.1", port=server.port, **options)
        provider = SmtpProvider("test", backend, Provider(max_messages_per_connection=10_000))

        @given(st.lists(st.sampled_from([b".", b"..", b"a", b"\r", b"\n", b"\r\n", b"\xc3"])).map(b"".join))
        def check(text):
            patch.setattr(smtp, "wire_bytes", lambda message: b"A: b\r\n\r\n" + text)
            assert hand_over(provider).summary.outcome == Outcome.ACCEPTED
            assert server.taken[-1].data == on_the_wire(b"A: b\r\n\r\n" + text)

        check()
        provider.close()


def test_a_message_that_cannot_be_written_is_rejected_and_the_line_stays(serve, connect):
    server = serve()
    provider = connect(server)
    assert provider.open(5) is None
    result = provider.send(EmailMessage("a\nb", "text", "a@example.com"), ["a@example.com"], 5)
    assert (result.summary.outcome, result.summary.kind, result.usable) == (R, Kind.MESSAGE, True)
    assert hand_over(provider).summary.outcome == Outcome.ACCEPTED
    assert len(server.sessions) == 1


def test_a_message_larger_than_the_server_takes_is_not_sent(serve, connect):
    server = serve(extensions=("SIZE 300",))
    result = hand_over(connect(server), body="x" * 300)
    assert seen(result.summary) == (R, Kind.CONTENT, Phase.MAIL, None)
    assert "the server takes 300" in result.summary.text
    assert server.sessions[0].verbs() == ["EHLO"]


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", "SIZE 100000", "SIZE many"])
def test_a_message_that_fits_is_sent(serve, connect, size):
    assert hand_over(connect(serve(extensions=(size,)))).summary.outcome == Outcome.ACCEPTED


def test_an_address_that_is_not_ascii_goes_to_a_server_that_takes_it(serve, connect):
    server = serve(extensions=("SMTPUTF8", "8BITMIME"))
    assert hand_over(connect(server), "ä@example.com").summary.outcome == Outcome.ACCEPTED
    assert server.sessions[0].commands[1].endswith(" SMTPUTF8")
    assert server.taken[0].recipients == ["ä@example.com".encode().decode("latin-1")]


def test_a_mail_whose_addresses_are_ascii_does_not_ask_for_more(serve, connect):
    server = serve(extensions=("SMTPUTF8",))
    hand_over(connect(server))
    assert "SMTPUTF8" not in server.sessions[0].commands[1]


def test_an_address_that_the_server_does_not_take_is_refused_and_the_others_are_not(serve, connect):
    server = serve()
    result = hand_over(connect(server), "ä@example.com", "b@example.com")
    assert {a: r.outcome for a, r in result.recipients.items()} == {"ä@example.com": R, "b@example.com": A}
    assert "SMTPUTF8" in result.recipients["ä@example.com"].text
    assert server.taken[0].recipients == ["b@example.com"]


def test_a_sender_that_the_server_does_not_take_is_refused(serve, connect):
    server = serve()
    provider = connect(server)
    assert provider.open(5) is None
    result = provider.send(mail(sender="ä@example.com"), ["a@example.com"], 5)
    assert (result.summary.outcome, result.summary.kind, result.usable) == (R, Kind.MESSAGE, True)
    assert server.sessions[0].verbs() == ["EHLO"]


@pytest.mark.parametrize("address", ["ä@example.com", "a@example.com>\r\nRSET\r\n"])
def test_an_address_that_cannot_be_written_is_rejected_and_the_line_stays(serve, connect, address):
    server = serve()
    provider = connect(server)
    result = hand_over(provider, address)
    assert (result.summary.outcome, result.summary.kind, result.usable) == (R, Kind.MESSAGE, True)
    assert hand_over(provider).summary.outcome == Outcome.ACCEPTED
    assert (len(server.sessions), len(server.taken)) == (1, 1)


# Pipelining; the conversation itself is tested in test_pipeline.py
def test_a_stream_of_mails_is_pipelined_where_the_server_offers_it(serve, connect):
    server = serve(extensions=PIPELINING)
    results = hand_over_many(connect(server), 20)
    assert [r.summary.outcome for r in results] == [A] * 20
    assert [t.recipients for t in server.taken] == [[f"u{i}@example.com"] for i in range(20)]
    assert len(server.sessions) == 1


def test_a_connection_that_is_worn_ends_the_stream(serve, connect):
    server = serve(extensions=PIPELINING)
    provider = connect(server, rules=Provider(max_messages_per_connection=3))
    assert len(hand_over_many(provider, 5)) == 3
    assert len(hand_over_many(provider, 2)) == 2
    assert [s.verbs().count("MAIL") for s in server.sessions] == [3, 2]


def test_a_stream_ends_with_the_server_that_refuses_us(serve, connect):
    script = {"MAIL": "530 log in", "RCPT": "530 log in", "DATA": "530 log in"}
    results = hand_over_many(connect(serve(script, extensions=PIPELINING)), 5)
    assert [(r.summary.kind, r.usable) for r in results] == [(Kind.PROVIDER, False)]


@pytest.mark.parametrize("action", [drop, reset, "garbage", ["421 bye", drop]], ids=name)
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
def test_a_stream_that_breaks_has_no_result_too_many(serve, connect, step, action):
    server = serve({step: each(default(step), default(step), action)}, {}, extensions=PIPELINING)
    provider = connect(server)
    results = hand_over_many(provider, 5)
    assert [r.summary.outcome for r in results[:2]] == [A, A]
    assert len(results) <= 3  # a 421 that is about the mail is its answer
    assert len(server.taken) == 2
    assert hand_over(provider).summary.outcome == Outcome.ACCEPTED


def test_silence_after_a_dot_leaves_one_mail_in_doubt(serve, connect):
    server = serve({"dot": each("250 taken", [take, drop])}, extensions=PIPELINING)
    results = hand_over_many(connect(server), 5)
    assert [r.summary.outcome for r in results] == [A, U]
    assert len(server.taken) == 2


def test_after_it_went_wrong_there_is_no_pipelining_for_a_while(serve, connect, clock):
    server = serve({"RCPT": "354 what"}, {}, extensions=PIPELINING)
    provider = connect(server)
    assert hand_over_many(provider, 3) == []
    assert len(hand_over_many(provider, 3)) == 3
    provider.close()
    clock.pass_(smtp.LOCK_STEP + 1)
    assert len(hand_over_many(provider, 3)) == 3
    assert [s.pipelined for s in server.sessions] == [True, False, True]


def test_a_mail_for_which_pipelining_went_wrong_goes_out_step_by_step_at_once(serve, connect):
    server = serve({"DATA": "503 improper pipelining"}, {}, extensions=PIPELINING)
    result = hand_over(connect(server))
    assert (result.summary.outcome, result.usable) == (Outcome.ACCEPTED, True)
    assert [s.pipelined for s in server.sessions] == [True, False]
    assert len(server.taken) == 1


def test_a_server_without_pipelining_is_given_one_command_at_a_time(serve, connect):
    server = serve()
    hand_over_many(connect(server), 3)
    assert not server.sessions[0].pipelined


def test_a_stream_that_nobody_reads_to_its_end_leaves_no_line_behind(serve, connect):
    server = serve(extensions=PIPELINING)
    provider = connect(server)
    assert provider.open(5) is None
    parcels = (Parcel(mail(), ["a@example.com"], lambda: True) for _ in range(3))
    stream = provider.send_many(parcels, 5)
    next(stream)
    stream.close()
    server.wait_for(lambda s: s.sessions[0].ended)
    assert hand_over(provider).summary.outcome == Outcome.ACCEPTED


def test_a_line_on_which_a_stream_is_under_way_carries_no_other(serve, connect):
    server = serve(extensions=PIPELINING)
    provider = connect(server)
    assert provider.open(5) is None
    parcels = (Parcel(mail(), ["a@example.com"], lambda: True) for _ in range(3))
    stream = provider.send_many(parcels, 5)
    next(stream)
    assert hand_over(provider).summary.outcome == Outcome.ACCEPTED
    assert len(server.sessions) == 2
    del stream


def test_a_mail_to_very_many_does_not_block_the_line(serve, connect):
    words = "250 " + "x" * 400
    server = serve({"RCPT": words}, extensions=PIPELINING)
    people = [f"{i}.{'x' * 40}@example.com" for i in range(2000)]
    result = hand_over(connect(server), *people, timeout=20)
    assert {r.outcome for r in result.recipients.values()} == {Outcome.ACCEPTED}
    assert server.taken[0].recipients == people


def test_a_stream_works_over_tls(serve, connect):
    server = serve(extensions=PIPELINING, tls="implicit")
    results = hand_over_many(connect(server, TrustingBackend, use_ssl=True), 10)
    assert [r.summary.outcome for r in results] == [A] * 10
    assert server.sessions[0].pipelined


def test_a_large_mail_in_a_stream_arrives_whole(serve, connect):
    server = serve(extensions=PIPELINING)
    provider = connect(server)
    assert provider.open(5) is None
    parcels = [Parcel(mail(LARGE if i == 1 else "text"), ["a@example.com"], lambda: True) for i in range(3)]
    assert [r.summary.outcome for r in provider.send_many(iter(parcels), 20)] == [A, A, A]
    assert len(server.taken[1].data) > len(LARGE)


# TLS
def test_a_trusted_server_is_used_with_starttls(serve, connect):
    server = serve(extensions=("STARTTLS", "SIZE"))
    result = hand_over(connect(server, TrustingBackend, use_tls=True))
    assert result.summary.outcome == Outcome.ACCEPTED
    assert server.sessions[0].verbs()[:4] == ["EHLO", "STARTTLS", "EHLO", "MAIL"]


def test_a_trusted_server_is_used_with_tls_from_the_start(serve, connect):
    server = serve(tls="implicit")
    assert hand_over(connect(server, TrustingBackend, use_ssl=True)).summary.outcome == Outcome.ACCEPTED


def test_nothing_is_said_in_clear_when_the_certificate_is_not_trusted(serve, connect):
    server = serve(extensions=("STARTTLS", "AUTH PLAIN"))
    connect(server, use_tls=True, username="u", password="p").open(5)
    assert server.sessions[0].verbs() == ["EHLO", "STARTTLS"]


def test_what_was_said_in_clear_after_starttls_is_not_taken_for_an_answer(serve, connect):
    # "NO STARTTLS" (Poddebniak and others, 2021): replies smuggled in behind the 220, before TLS begins.
    smuggled = "220 go ahead\n250-smuggled\n250-PIPELINING\n250 AUTH PLAIN\n235 welcome"
    server = serve({"STARTTLS": smuggled}, extensions=("STARTTLS", "SIZE"))
    result = hand_over(connect(server, TrustingBackend, use_tls=True))
    assert result.summary.outcome == Outcome.ACCEPTED
    assert not server.sessions[0].pipelined
    assert " SIZE=" in server.sessions[0].commands[3]


def test_pipelining_offered_only_in_clear_is_not_used(serve, connect):
    script = {"EHLO": each("250-scripted.example\n250-PIPELINING\n250 STARTTLS", "250 scripted.example")}
    server = serve(script)
    hand_over_many(connect(server, TrustingBackend, use_tls=True), 2)
    assert not server.sessions[0].pipelined


def test_an_authority_of_ones_own_is_trusted_through_openssls_variable(serve, connect, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    server = serve(extensions=("STARTTLS",))
    assert hand_over(connect(server, use_tls=True)).summary.outcome == Outcome.ACCEPTED


def test_login_comes_after_starttls(serve, connect):
    server = serve(extensions=("STARTTLS", "AUTH PLAIN"))
    hand_over(connect(server, TrustingBackend, use_tls=True, username="u", password="p"))
    assert server.sessions[0].verbs()[:4] == ["EHLO", "STARTTLS", "EHLO", "AUTH"]


# The end
@pytest.mark.parametrize("answer", ["221 bye", silence, freeze], ids=name)
def test_close_says_goodbye_and_waits_for_nothing(serve, connect, answer):
    server = serve({"QUIT": answer})
    provider = connect(server, timeout=30)
    hand_over(provider)
    assert took(provider.close) < 10
    server.wait_for(lambda s: s.sessions[0].verbs()[-1] == "QUIT")


def test_close_does_not_wait_for_a_server_that_reads_no_more(serve, connect):
    provider = connect(serve({"NOOP": freeze}), timeout=30)
    hand_over(provider)
    connection = provider._backend.connection
    connection.putcmd("noop")
    connection.sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        while True:
            connection.sock.send(LARGE.encode())
    assert took(provider.close) < 10


def test_close_says_goodbye_over_tls(serve, connect):
    server = serve(tls="implicit")
    provider = connect(server, TrustingBackend, use_ssl=True)
    hand_over(provider)
    provider.close()
    server.wait_for(lambda s: s.sessions[0].verbs()[-1] == "QUIT")


def test_close_may_come_at_any_time(serve, connect):
    server = serve()
    provider = connect(server)
    provider.close()
    hand_over(provider)
    server.sessions[0].hang_up()
    provider.close()
    provider.close()
    assert hand_over(provider).summary.outcome == Outcome.ACCEPTED


def test_abandon_says_nothing(serve, connect):
    server = serve()
    provider = connect(server)
    hand_over(provider)
    provider.abandon()
    server.wait_for(lambda s: s.sessions[0].ended)
    assert "QUIT" not in server.sessions[0].verbs()


FORK = """
import gc, os, sys, threading
import django
from django.conf import settings
from django.core.mail import EmailMessage

options = {{"host": "127.0.0.1", "port": {port}}}
entry = {{"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}}
settings.configure(CELERY_MAILER={{"PROVIDERS": {{"default": entry}}}}, INSTALLED_APPS=["celery_mailer"])
django.setup()
from celery_mailer.deliver import providers

def send():
    provider = providers.get("default")
    assert provider.open(5) is None
    message = EmailMessage("subject", "text", "shop@example.com", ["a@example.com"])
    assert provider.send(message, ["a@example.com"], 5).summary.outcome == "accepted"

def fork():
    child = os.fork()
    if not child:
        {child}
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

{parent}
"""
FROM_THIS_THREAD = "send()\nfork()\nsend()"
FROM_ANOTHER_THREAD = """
ready, forked = threading.Event(), threading.Event()

def other():
    send()
    ready.set()
    forked.wait(20)
    send()

thread = threading.Thread(target=other)
thread.start()
ready.wait(20)
fork()
forked.set()
thread.join()
"""


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        (FROM_THIS_THREAD, "pass"),
        (FROM_THIS_THREAD, "providers.close_all()"),
        (FROM_ANOTHER_THREAD, "providers.close_all()"),
    ],
    ids=["forked", "forked and closed", "forked from another thread"],
)
def test_a_forked_child_leaves_the_parents_session_alone(serve, parent, child):
    server = serve()
    script = textwrap.dedent(FORK).format(port=server.port, parent=parent, child=child)
    # A process of its own: this one has threads, and forking it is deprecated.
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=60, cwd=Path(__file__).parent.parent, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    server.wait_for(lambda s: s.sessions[0].ended)
    assert [s.verbs().count("MAIL") for s in server.sessions] == [2]
    assert server.sessions[0].verbs()[-1] == "QUIT"


def test_a_forked_child_opens_a_session_of_its_own(serve):
    server = serve()
    script = textwrap.dedent(FORK).format(port=server.port, parent=FROM_THIS_THREAD, child="send()")
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=60, cwd=Path(__file__).parent.parent, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    server.wait_for(lambda s: len(s.sessions) == 2 and all(one.ended for one in s.sessions))
    assert sorted(s.verbs().count("MAIL") for s in server.sessions) == [1, 2]


# The clock
def test_a_clock_that_ran_out_says_so():
    clock = Clock(30)
    clock.start(-1)
    with pytest.raises(TimeoutError):
        clock.left()


def test_a_step_ends_no_later_than_the_deadline():
    clock = Clock(30)
    clock.start(10)
    assert clock.left() <= 10
    clock.last_step()
    assert clock.left() <= 10


def test_the_last_step_may_take_all_that_is_left():
    clock = Clock(1)
    clock.start(10)
    clock.last_step()
    assert clock.left() > 5


def test_nagles_algorithm_is_off(serve, connect):
    provider = connect(serve())
    hand_over(provider)
    sock = provider._backend.connection.sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
