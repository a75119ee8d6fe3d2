"""The tables that turn replies and exceptions into outcomes, row by row."""

import json
import smtplib
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer.deliver.providers.outcomes import (
    SMTP_REPLIES,
    SMTP_SESSION_CODES,
    backend_exception,
    broken_line,
    error_words,
    opening_exception,
    smtp_reply,
    storable,
)
from celery_mailer.values import Kind, Outcome, Phase

A, D, R, U = Outcome.ACCEPTED, Outcome.DEFERRED, Outcome.REJECTED, Outcome.UNCERTAIN
GO_ON = (A, Kind.NONE)
LINE = (D, Kind.CONNECTION)
LATER = (D, Kind.TEMPORARY)
NO_ANSWER = (U, Kind.NO_ANSWER)

# phase: what a reply of 2yz, 3yz, 4yz and 5yz comes to
REPLIES = {
    Phase.CONNECT: (LINE, LINE, LINE, (D, Kind.PROVIDER)),
    Phase.LOGIN: (LINE, LINE, LINE, (D, Kind.PROVIDER)),
    Phase.MAIL: (GO_ON, LINE, LATER, (R, Kind.SENDER)),
    Phase.RCPT: (GO_ON, LINE, LATER, (R, Kind.RECIPIENT)),
    Phase.DATA: (LINE, LINE, LATER, (R, Kind.CONTENT)),
    Phase.BODY: (LINE, LINE, LATER, (R, Kind.CONTENT)),
    Phase.DOT: (GO_ON, NO_ANSWER, LATER, (R, Kind.CONTENT)),
}
CASES = [(p, digit, REPLIES[p][digit - 2]) for p in Phase for digit in (2, 3, 4, 5)]


@pytest.mark.parametrize(("phase", "digit", "expected"), CASES)
def test_what_a_reply_means_at_a_phase(phase, digit, expected):
    reply = smtp_reply(phase, digit * 100 + 54, "words")
    assert (reply.outcome, reply.kind) == expected


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY, Phase.DOT])
@pytest.mark.parametrize("words", ["5.3.4 Message too big for system", "5.2.3 over the limit"])
@pytest.mark.parametrize("code", [550, 552, 554])
def test_too_large_a_message_is_refused_for_its_content(phase, code, words):
    reply = smtp_reply(phase, code, words)
    assert (reply.outcome, reply.kind) == (R, Kind.CONTENT)


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.DATA, Phase.BODY, Phase.DOT])
def test_so_is_one_with_no_more_than_the_code_for_it(phase):
    assert smtp_reply(phase, 552, "no room").kind == Kind.CONTENT


@pytest.mark.parametrize("words", ["5.2.2 Mailbox full", "no room", "5.3.40 x", "see 5.3.4"])
def test_other_refusals_of_a_recipient_are_about_the_recipient(words):
    reply = smtp_reply(Phase.RCPT, 552, words)
    assert (reply.outcome, reply.kind) == (R, Kind.RECIPIENT)


def test_too_large_for_now_may_do_later():
    assert smtp_reply(Phase.MAIL, 452, "4.3.4 x").outcome == D


@given(st.sampled_from(Phase), st.integers(-1, 999), st.binary())
def test_any_reply_at_any_phase_has_an_outcome_and_only_2yz_is_acceptance(phase, code, text):
    reply = smtp_reply(phase, code, text)
    assert reply.phase == phase
    means_acceptance = 200 <= code < 300 and phase in (Phase.MAIL, Phase.RCPT, Phase.DOT)
    assert (reply.outcome == A) == means_acceptance


@given(st.sampled_from(Phase), st.integers(-1, 999))
def test_a_reply_without_rule_has_no_code(phase, code):
    known = code in SMTP_SESSION_CODES or (phase, code // 100) in SMTP_REPLIES
    assert smtp_reply(phase, code, "").code == (code if known else None)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    ("code", "kind"), [(421, Kind.CONNECTION), *[(c, Kind.PROVIDER) for c in (530, 534, 535, 538)]]
)
def test_a_reply_about_the_session_never_rejects_the_email(phase, code, kind):
    reply = smtp_reply(phase, code, "")
    assert (reply.outcome, reply.kind, reply.code) == (D, kind, code)


@pytest.mark.parametrize("phase", Phase)
def test_a_broken_line_is_uncertain_after_the_dot_and_deferred_before_it(phase):
    reply = broken_line(phase, "")
    assert (reply.outcome, reply.kind) == (NO_ANSWER if phase == Phase.DOT else LINE)


OPENING = [
    (smtplib.SMTPAuthenticationError(535, b"no"), Kind.PROVIDER, Phase.LOGIN, 535),
    (smtplib.SMTPAuthenticationError(454, b"later"), Kind.CONNECTION, Phase.LOGIN, 454),
    (smtplib.SMTPAuthenticationError(250, b"what"), Kind.CONNECTION, Phase.LOGIN, None),
    (smtplib.SMTPConnectError(421, b"busy"), Kind.CONNECTION, Phase.CONNECT, 421),
    (smtplib.SMTPConnectError(554, b"no"), Kind.PROVIDER, Phase.CONNECT, 554),
    (smtplib.SMTPConnectError(-1, b"what"), Kind.CONNECTION, Phase.CONNECT, None),
    (smtplib.SMTPHeloError(502, b"no"), Kind.PROVIDER, Phase.CONNECT, 502),
    (smtplib.SMTPServerDisconnected("gone"), Kind.CONNECTION, Phase.CONNECT, None),
    (smtplib.SMTPNotSupportedError("no STARTTLS"), Kind.PROVIDER, Phase.CONNECT, None),
    (smtplib.SMTPException("no login in common"), Kind.PROVIDER, Phase.CONNECT, None),
    (ssl.SSLCertVerificationError("self-signed"), Kind.PROVIDER, Phase.CONNECT, None),
    (ssl.SSLError("wrong version"), Kind.CONNECTION, Phase.CONNECT, None),
    (ConnectionRefusedError("refused"), Kind.CONNECTION, Phase.CONNECT, None),
    (socket.gaierror("no such host"), Kind.CONNECTION, Phase.CONNECT, None),
    (TimeoutError("slow"), Kind.CONNECTION, Phase.CONNECT, None),
    (UnicodeError("label too long"), Kind.PROVIDER, Phase.CONNECT, None),
    (OverflowError("port"), Kind.PROVIDER, Phase.CONNECT, None),
    (RuntimeError("token"), Kind.PROVIDER, Phase.CONNECT, None),
]


@pytest.mark.parametrize(("error", "kind", "phase", "code"), OPENING, ids=lambda v: type(v).__name__)
def test_what_fails_while_opening_is_deferred(error, kind, phase, code):
    reply = opening_exception(error)
    assert (reply.outcome, reply.kind, reply.phase, reply.code) == (D, kind, phase, code)


def refused(*codes):
    return smtplib.SMTPRecipientsRefused({f"{i}@example.com": (code, b"") for i, code in enumerate(codes)})


class RequestError(OSError, ValueError):
    """Like the errors of ``requests`` that are both."""


BACKEND = [
    (refused(550), R, Kind.RECIPIENT, 550),
    (refused(550, 451), D, Kind.TEMPORARY, 451),
    (refused(252), D, Kind.CONNECTION, None),
    (refused(), R, Kind.RECIPIENT, 550),
    (smtplib.SMTPSenderRefused(550, b"", "a@example.com"), R, Kind.SENDER, 550),
    (smtplib.SMTPSenderRefused(251, b"", "a@example.com"), D, Kind.CONNECTION, None),
    (smtplib.SMTPDataError(554, b""), R, Kind.CONTENT, 554),
    (smtplib.SMTPDataError(451, b""), D, Kind.TEMPORARY, 451),
    (smtplib.SMTPDataError(252, b""), U, Kind.NO_ANSWER, None),
    (smtplib.SMTPAuthenticationError(535, b""), D, Kind.PROVIDER, 535),
    (smtplib.SMTPConnectError(421, b""), D, Kind.CONNECTION, 421),
    (smtplib.SMTPNotSupportedError(""), D, Kind.PROVIDER, None),
    (smtplib.SMTPServerDisconnected(""), U, Kind.NO_ANSWER, None),
    (ssl.SSLCertVerificationError(""), D, Kind.PROVIDER, None),
    (ConnectionRefusedError(), D, Kind.CONNECTION, None),
    (socket.gaierror(), D, Kind.CONNECTION, None),
    (TimeoutError(), U, Kind.NO_ANSWER, None),
    (ConnectionResetError(), U, Kind.NO_ANSWER, None),
    (ValueError("header"), R, Kind.MESSAGE, None),
    (json.JSONDecodeError("", "", 0), U, Kind.NO_ANSWER, None),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, ""), U, Kind.NO_ANSWER, None),
    (RequestError(), U, Kind.NO_ANSWER, None),
    (TypeError(), U, Kind.NO_ANSWER, None),
    (RuntimeError(), U, Kind.NO_ANSWER, None),
]


@pytest.mark.parametrize(("error", "outcome", "kind", "code"), BACKEND, ids=lambda v: type(v).__name__)
def test_what_a_backend_raises_has_an_outcome(error, outcome, kind, code):
    reply = backend_exception(error)
    assert (reply.outcome, reply.kind, reply.code) == (outcome, kind, code)


@given(
    st.sampled_from([smtplib.SMTPDataError, smtplib.SMTPAuthenticationError, smtplib.SMTPConnectError]),
    st.integers(-1, 999),
)
def test_no_exception_means_acceptance(kind, code):
    assert A not in (
        backend_exception(kind(code, b"")).outcome,
        backend_exception(smtplib.SMTPSenderRefused(code, b"", "a@example.com")).outcome,
        backend_exception(refused(code)).outcome,
        opening_exception(kind(code, b"")).outcome,
    )


@pytest.mark.parametrize("error", [RuntimeError("secret"), RequestError("secret"), KeyError("secret")])
def test_an_unknown_error_is_not_quoted(error):
    assert error_words(error) == type(error).__name__


def test_an_error_of_the_line_is_quoted():
    assert error_words(ConnectionRefusedError(111, "Connection refused")) == (
        "ConnectionRefusedError: [Errno 111] Connection refused"
    )


@given(st.text(st.characters(exclude_categories=()), max_size=1000))
def test_any_words_can_be_stored(text):
    stored = storable(text)
    assert len(stored) <= 500
    assert "\0" not in stored
    stored.encode()
