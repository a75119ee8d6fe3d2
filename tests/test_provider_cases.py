"""One suite that every provider passes: what happens on the other side, and what it must come to here.

``CASES`` is the contract. A provider that cannot have a case says so in ``cannot``; the last test holds that
list against the truth, so that nothing is left out in silence.
"""

import pickle
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import django
import pytest
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend
from django.utils.module_loading import import_string

from celery_mailer.deliver.providers.anymail import AnymailProvider
from celery_mailer.deliver.providers.anymail_outcomes import REMEMBERED
from celery_mailer.deliver.providers.smtp import SmtpProvider
from celery_mailer.options import Provider
from celery_mailer.values import Kind, Outcome, everyone
from tests.servers.esp import EspServer, cut, silence
from tests.servers.esp import drop as hang_up
from tests.servers.scripted_smtp import ScriptedSmtp, drop
from tests.servers.scripted_smtp import silence as smtp_silence

A, B = "a@example.com", "b@example.com"
SECRET = "S3cr3t-k3y-of-the-test"
PATIENCE = 1  # seconds that a silent server is waited for here, and no other

ACCEPTED = (Outcome.ACCEPTED, Kind.NONE)
CONTENT = (Outcome.REJECTED, Kind.CONTENT)
RECIPIENT = (Outcome.REJECTED, Kind.RECIPIENT)
SENDER = (Outcome.REJECTED, Kind.SENDER)
TEMPORARY = (Outcome.DEFERRED, Kind.TEMPORARY)
CONNECTION = (Outcome.DEFERRED, Kind.CONNECTION)
PROVIDER = (Outcome.DEFERRED, Kind.PROVIDER)
THROTTLED = (Outcome.DEFERRED, Kind.THROTTLED)
UNSURE = "uncertain, or with a key that the provider remembers: deferred"
ANY = "what the provider says of the other recipient"


@dataclass(frozen=True)
class Case:
    """What befalls an email to ``A``, or to ``A`` and ``B``: each one's fate, and if the next is tried."""

    fates: dict[str, Any]
    usable: bool = True
    retry_after: timedelta | None = None


CASES = {
    "accepted": Case({A: ACCEPTED}),
    "accepted for two": Case({A: ACCEPTED, B: ACCEPTED}),
    "one of two refused": Case({A: ACCEPTED, B: RECIPIENT}),
    "two refused": Case({A: RECIPIENT, B: RECIPIENT}),
    "one bad address refuses all": Case({A: TEMPORARY, B: RECIPIENT}),
    "content refused": Case({A: CONTENT}),
    "too large": Case({A: CONTENT}),
    "sender refused": Case({A: SENDER}),
    "login refused": Case({A: PROVIDER}, usable=False),
    "account stopped": Case({A: PROVIDER}, usable=False),
    "throttled": Case({A: THROTTLED}, usable=False, retry_after=timedelta(seconds=7)),
    "quota used up": Case({A: THROTTLED}, usable=False),
    "try again later": Case({A: TEMPORARY}),
    "service unavailable": Case({A: CONNECTION}, usable=False),
    "server error": Case({A: UNSURE}),
    "bad gateway": Case({A: UNSURE}),
    "gateway timeout": Case({A: UNSURE}),
    "refuses connections": Case({A: CONNECTION}, usable=False),
    "hangs up on connecting": Case({A: CONNECTION}, usable=False),
    "hangs up before the body": Case({A: CONNECTION}),
    "hangs up instead of an answer": Case({A: UNSURE}),
    "hangs up in the answer": Case({A: UNSURE}),
    "silent": Case({A: UNSURE}),
    "answer makes no sense": Case({A: UNSURE}),
    "seen before": Case({A: ACCEPTED}),
    "seen before, under way": Case({A: (Outcome.DEFERRED, Kind.NO_ANSWER)}),
    "seen before, other payload": Case({A: UNSURE}),
}


@dataclass
class Subject:
    """A provider under test: what its server does in each case, and the cases that it ``cannot`` have."""

    name: str
    plays: dict[str, Any]
    make: Callable[[int, float], Any]  # the provider for a server's port, which waits for so many seconds
    serve: Callable[[Any], Any]  # the server for a play
    cannot: set[str] = field(default_factory=set)
    keyed: bool = False
    taken: Callable[[Any], int] = lambda server: len(server.requests)

    def __str__(self) -> str:
        return self.name


def anymail_backend(module: str, options: dict[str, Any]) -> Any:
    return import_string(f"anymail.backends.{module}.EmailBackend")(**options)


# What is the same for every HTTP API.
HTTP = {
    "login refused": (401, {"message": "no such key"}),
    "account stopped": (403, {"message": "suspended"}),
    "content refused": (400, {"message": "no subject"}),
    "too large": (413, "too large"),
    "throttled": (429, {"message": "slow down"}, {"Retry-After": "7"}),
    "try again later": (408, {"message": "too slow"}),
    "service unavailable": (503, "maintenance"),
    "server error": (500, {"message": "internal"}),
    "bad gateway": (502, "<html>bad gateway</html>"),
    "gateway timeout": (504, "<html>timeout</html>"),
    "hangs up instead of an answer": hang_up,
    "hangs up in the answer": cut,
    "silent": silence,
    "answer makes no sense": (200, "what?"),
}
NOT_HTTP = {
    # A server that hangs up on a new connection looks like one that does so after it has read the request.
    "hangs up on connecting",
    "hangs up before the body",
}
NO_KEYS = {"seen before", "seen before, under way", "seen before, other payload"}
TELLS_BY_EVENTS = {"one of two refused", "two refused", "one bad address refuses all"}


def esp(
    name: str,
    module: str,
    accepted: Any,
    plays: dict[str, Any] | None = None,
    *,
    cannot: set[str],
    **options: Any,
) -> Subject:
    """An ESP of Anymail's; ``accepted`` are its answers for one and for two recipients."""

    def make(port: int, patience: float) -> AnymailProvider:
        url = {"api_url": f"http://127.0.0.1:{port}/"}
        return AnymailProvider("test", anymail_backend(module, {**url, **options}), Provider())

    one, two = accepted
    plays = {"accepted": one, "accepted for two": two, **(plays or {})}
    return Subject(
        name,
        {case: play for case, play in HTTP.items() if case not in cannot} | plays,
        make,
        EspServer,
        NOT_HTTP | cannot - set(plays),
        keyed=name in REMEMBERED,
    )


def smtp(port: int, patience: float) -> SmtpProvider:
    options = {"host": "127.0.0.1", "port": port, "username": "u", "password": SECRET, "timeout": patience}
    if django.VERSION >= (6, 1):
        options["alias"] = "test"
    return SmtpProvider("test", SmtpBackend(**options), Provider())


def ses(port: int, patience: float) -> AnymailProvider:
    client = {
        "endpoint_url": f"http://127.0.0.1:{port}/",
        "region_name": "eu-west-1",
        "aws_access_key_id": "AKIDEXAMPLE",
        "aws_secret_access_key": SECRET,
    }
    backend = anymail_backend("amazon_ses", {"client_params": client})
    return AnymailProvider("test", backend, Provider())


def ses_error(status: int, code: str, headers: dict[str, str] | None = None) -> Any:
    return status, {"message": "words"}, {"x-amzn-ErrorType": code, **(headers or {})}


def mandrill(**fates: str) -> Any:
    return 200, [{"email": f"{who}@example.com", "status": fate, "_id": who} for who, fate in fates.items()]


def mandrill_error(name: str) -> Any:
    return 500, {"status": "error", "code": -1, "name": name, "message": "words"}


def postmark(status: int, code: int, message: str, **more: Any) -> Any:
    return status, {"ErrorCode": code, "Message": message, **more}


def postal(status: str, data: dict[str, Any]) -> Any:
    return 200, {"status": status, "time": 0.1, "flags": {}, "data": data}


def sparkpost(status: int, code: str, message: str) -> Any:
    return status, {"errors": [{"code": code, "message": message}]}


INACTIVE = "Inactive recipients are ones that have generated a hard bounce or a spam complaint."
POSTMARK_TAKEN = {"To": f"{A}, {B}", "MessageID": "id-1"}
MAILERSEND_TAKEN = {"X-Message-Id": "id-1"}
MAILJET_TO = [{"Email": A, "MessageID": 1}, {"Email": B, "MessageID": 2}]


def mailersend_suppressed(kind: str, *addresses: str) -> dict[str, Any]:
    recipients = [{"email": address, "name": "", "reasons": ["hard_bounced"]} for address in addresses]
    return {"message": "words", "warnings": [{"type": kind, "recipients": recipients}]}


SUBJECTS = [
    Subject(
        "SMTP",
        {
            "accepted": {},
            "accepted for two": {},
            "one of two refused": {f"RCPT {B}": "550 5.1.1 no"},
            "two refused": {"RCPT": "550 5.1.1 no"},
            "content refused": {"dot": "554 5.6.0 no"},
            "too large": {"dot": "552 5.3.4 too large"},
            "sender refused": {"MAIL": "550 5.1.8 no"},
            "login refused": {"AUTH": "535 5.7.8 no"},
            "account stopped": {"MAIL": "530 5.7.0 no"},
            "try again later": {"RCPT": "450 4.2.0 later"},
            "service unavailable": {"connect": "421 4.3.2 busy"},
            "hangs up on connecting": {"connect": drop},
            "hangs up before the body": {"DATA": drop},
            "hangs up instead of an answer": {"dot": drop},
            "hangs up in the answer": {"dot": [lambda session: session.sock.sendall(b"25"), drop]},
            "silent": {"dot": smtp_silence},
            "answer makes no sense": {"dot": "what?"},
        },
        smtp,
        lambda play: ScriptedSmtp(play, extensions=("SIZE", "AUTH PLAIN")),
        # Its replies have no word for a pause, and a server's 4yz after the dot says that it was not taken.
        NO_KEYS
        | {
            "throttled",
            "quota used up",
            "server error",
            "bad gateway",
            "gateway timeout",
            "one bad address refuses all",
        },
        taken=lambda server: len(server.taken),
    ),
    esp(
        "Mailgun",
        "mailgun",
        [(200, {"id": "<id-1>", "message": "Queued. Thank you."})] * 2,
        {
            "account stopped": (200, "Mailgun Magnificent API"),
            "quota used up": (420, {"message": "Domain is not allowed to send: hourly limit"}),
        },
        cannot=TELLS_BY_EVENTS | NO_KEYS | {"sender refused", "quota used up"},
        api_key=SECRET,
        sender_domain="example.com",
    ),
    esp(
        "Postmark",
        "postmark",
        [postmark(200, 0, "OK", To=A, MessageID="id-1"), postmark(200, 0, "OK", **POSTMARK_TAKEN)],
        {
            "one of two refused": postmark(
                200,
                0,
                f"Message OK, but will not deliver to these inactive addresses: {B}. {INACTIVE}",
                **POSTMARK_TAKEN,
            ),
            "two refused": postmark(
                422, 406, f"You tried to send.\n Found inactive addresses: {A}, {B}. {INACTIVE}"
            ),
            "one bad address refuses all": postmark(422, 300, f"Invalid 'To' address: '{B}'."),
            "content refused": postmark(422, 300, "Zero recipients specified"),
            "sender refused": postmark(422, 400, "The 'From' address is not a Sender Signature."),
            "account stopped": postmark(422, 405, "Not allowed to send: you ran out of credits."),
            "quota used up": postmark(422, 429, "Rate limit exceeded"),
        },
        cannot=NO_KEYS,
        server_token=SECRET,
    ),
    esp(
        "Resend",
        "resend",
        [(200, {"id": "id-1"})] * 2,
        {
            "content refused": (422, {"statusCode": 422, "name": "validation_error", "message": "words"}),
            "login refused": (403, {"statusCode": 403, "name": "invalid_api_key", "message": "words"}),
            "quota used up": (429, {"name": "daily_quota_exceeded", "message": "words"}),
            "seen before": (200, {"id": "id-1"}),
            "seen before, under way": (409, {"name": "concurrent_idempotent_requests", "message": "words"}),
            "seen before, other payload": (409, {"name": "invalid_idempotent_request", "message": "words"}),
        },
        cannot=TELLS_BY_EVENTS | {"sender refused"},
        api_key=SECRET,
    ),
    Subject(
        "SES",
        {
            **HTTP,
            "accepted": (200, {"MessageId": "id-1"}),
            "accepted for two": (200, {"MessageId": "id-1"}),
            "content refused": ses_error(400, "MessageRejected"),
            "too large": ses_error(400, "BadRequestException"),
            "sender refused": ses_error(400, "MailFromDomainNotVerifiedException"),
            "login refused": ses_error(403, "InvalidSignatureException"),
            "account stopped": ses_error(400, "AccountSuspendedException"),
            "throttled": ses_error(429, "TooManyRequestsException", {"Retry-After": "7"}),
            "quota used up": ses_error(400, "LimitExceededException"),
        },
        ses,
        EspServer,
        NOT_HTTP | TELLS_BY_EVENTS | NO_KEYS,
    ),
    esp(
        "SendGrid",
        "sendgrid",
        [(202, "")] * 2,
        {
            "content refused": (400, {"errors": [{"message": "no subject", "field": "subject"}]}),
            "account stopped": (403, {"errors": [{"message": "not a verified sender", "field": "from"}]}),
        },
        # It says 202 and no more; who is refused and why, its events tell.
        cannot=TELLS_BY_EVENTS | NO_KEYS | {"sender refused", "quota used up", "answer makes no sense"},
        api_key=SECRET,
    ),
    esp(
        "Brevo",
        "brevo",
        [(201, {"messageId": "<id-1>"})] * 2,
        {
            "account stopped": (402, {"code": "not_enough_credits", "message": "words"}),
            "seen before": (400, {"code": "duplicate_parameter", "message": "words"}),
        },
        cannot=TELLS_BY_EVENTS | NO_KEYS | {"sender refused", "quota used up"},
        api_key=SECRET,
    ),
    esp(
        "SparkPost",
        "sparkpost",
        [
            (200, {"results": {"total_accepted_recipients": n, "total_rejected_recipients": 0, "id": "id-1"}})
            for n in (1, 2)
        ],
        {
            "two refused": (
                200,
                {"results": {"total_accepted_recipients": 0, "total_rejected_recipients": 2, "id": "id-1"}},
            ),
            "content refused": sparkpost(422, "1300", "required field is missing"),
            "quota used up": sparkpost(420, "2101", "Exceed Sending Limit (hourly)"),
            "seen before": (
                200,
                {"results": {"total_accepted_recipients": 1, "total_rejected_recipients": 0, "id": "id-1"}},
                {"X-Idempotent-Replayed": "true"},
            ),
            "seen before, under way": sparkpost(409, "1601", "in progress"),
            "seen before, other payload": sparkpost(409, "1600", "different payload"),
        },
        cannot=TELLS_BY_EVENTS | {"sender refused"},
        api_key=SECRET,
    ),
    esp(
        "Mailjet",
        "mailjet",
        [(200, {"Messages": [{"Status": "success", "To": MAILJET_TO[:n]}]}) for n in (1, 2)],
        {
            "content refused": (
                400,
                {"Messages": [{"Status": "error", "Errors": [{"ErrorCode": "mj-0003"}]}]},
            ),
            "login refused": (401, {"ErrorCode": "mj-0002", "ErrorMessage": "words", "StatusCode": 401}),
        },
        cannot=TELLS_BY_EVENTS | NO_KEYS | {"sender refused", "quota used up"},
        api_key="public",
        secret_key=SECRET,
    ),
    esp(
        "Mandrill",
        "mandrill",
        [mandrill(a="sent"), mandrill(a="sent", b="queued")],
        {
            "one of two refused": mandrill(a="sent", b="rejected"),
            "two refused": mandrill(a="invalid", b="rejected"),
            "content refused": mandrill_error("ValidationError"),
            "login refused": mandrill_error("Invalid_Key"),
            "account stopped": mandrill_error("PaymentRequired"),
            "service unavailable": mandrill_error("ServiceUnavailable"),
            "server error": mandrill_error("GeneralError"),
        },
        cannot=NO_KEYS | {"sender refused", "quota used up", "one bad address refuses all"},
        api_key=SECRET,
    ),
    esp(
        "MailerSend",
        "mailersend",
        [(202, "", MAILERSEND_TAKEN)] * 2,
        {
            "one of two refused": (202, mailersend_suppressed("SOME_SUPPRESSED", B), MAILERSEND_TAKEN),
            "two refused": (202, mailersend_suppressed("ALL_SUPPRESSED", A, B)),
            "content refused": (422, {"message": "words", "errors": {"subject": ["required"]}}),
            "answer makes no sense": (202, {"errors": ["what?"]}, MAILERSEND_TAKEN),
        },
        cannot=NO_KEYS | {"sender refused", "quota used up", "one bad address refuses all"},
        api_token=SECRET,
    ),
    esp(
        "Mailtrap",
        "mailtrap",
        [(200, {"success": True, "message_ids": [f"id-{i}" for i in range(n)]}) for n in (1, 2)],
        {
            "login refused": (401, {"success": False, "errors": ["Unauthorized"]}),
            "content refused": (400, {"success": False, "errors": ["'subject' is required"]}),
        },
        cannot=TELLS_BY_EVENTS | NO_KEYS | {"sender refused", "quota used up"},
        api_token=SECRET,
    ),
    esp(
        "Scaleway",
        "scaleway",
        [
            (200, {"emails": [{"id": f"id-{a}", "mail_rcpt": a, "status": "new"} for a in to]})
            for to in ([A], [A, B])
        ],
        cannot=TELLS_BY_EVENTS | NO_KEYS | {"sender refused", "quota used up"},
        secret_key=SECRET,
        project_id="p",
    ),
    esp(
        "Unisender Go",
        "unisender_go",
        [(200, {"status": "success", "job_id": "id-1", "emails": [A, B][:n]}) for n in (1, 2)],
        {
            "one of two refused": (
                200,
                {"status": "success", "job_id": "1", "emails": [A], "failed_emails": {B: "unsubscribed"}},
            ),
            "two refused": (
                200,
                {
                    "status": "success",
                    "job_id": "1",
                    "emails": [],
                    "failed_emails": {A: "invalid", B: "permanent_unavailable"},
                },
            ),
        },
        cannot=NO_KEYS | {"sender refused", "quota used up", "one bad address refuses all"},
        api_key=SECRET,
    ),
    esp(
        "Postal",
        "postal",
        [
            postal("success", {"message_id": "x", "messages": {a: {"id": i, "token": "t"} for i, a in to}})
            for to in ([(1, A)], [(1, A), (2, B)])
        ],
        {
            "content refused": postal("error", {"code": "NoContent", "message": "words"}),
            "sender refused": postal("error", {"code": "UnauthenticatedFromAddress", "message": "words"}),
            "login refused": postal("error", {"code": "InvalidServerAPIKey", "message": "words"}),
            "account stopped": postal("error", {"code": "ServerSuspended", "message": "words"}),
        },
        cannot=TELLS_BY_EVENTS | NO_KEYS | {"quota used up"},
        api_key=SECRET,
    ),
]

# Anymail says of SendGrid that it can no longer test it.
pytestmark = pytest.mark.filterwarnings("ignore:django-anymail has dropped official support for SendGrid")


def runs() -> list[Any]:
    return [
        pytest.param(subject, name, id=f"{subject}: {name}")
        for subject in SUBJECTS
        for name in CASES
        if name not in subject.cannot
    ]


def mail(*to: str) -> EmailMessage:
    headers = {"Message-ID": "<1@shop.example.com>"}
    return EmailMessage("subject", "text", "shop@example.com", list(to), headers=headers)


def seen(reply: Any) -> tuple[Outcome, Kind]:
    return reply.outcome, reply.kind


def expected(fate: Any, subject: Subject) -> tuple[Outcome, Kind]:
    if fate == UNSURE:
        return (Outcome.DEFERRED if subject.keyed else Outcome.UNCERTAIN), Kind.NO_ANSWER
    return fate


@pytest.fixture
def play():
    """Play a case to a provider; returns each recipient's reply, and whether the next email is tried.

    Whatever the case: no reply holds a secret, and nothing was handed over twice, by no library either.
    """
    with ExitStack() as stack:

        def run(subject, name):
            server = stack.enter_context(subject.serve(subject.plays.get(name)))
            port = closed_port() if name == "refuses connections" else server.port
            patience = PATIENCE if name == "silent" else 10
            provider = subject.make(port, patience)
            stack.callback(provider.close)
            recipients = list(CASES[name].fates)
            fault = provider.open(patience)
            if fault is None:
                result = provider.send(mail(*recipients), recipients, patience)
            else:
                result = everyone(recipients, fault, usable=False)
            assert SECRET.encode() not in pickle.dumps(result.recipients)
            assert subject.taken(server) <= 1
            return result.recipients, result.usable

        yield run


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize(("subject", "name"), runs())
def test_every_provider_passes_every_case_that_it_can_have(subject, name, play):
    case = CASES[name]
    replies, usable = play(subject, name)
    assert {r: seen(reply) for r, reply in replies.items()} == {
        r: expected(fate, subject) for r, fate in case.fates.items()
    }
    assert usable == case.usable
    if case.retry_after:
        assert replies[A].retry_after == case.retry_after


@pytest.mark.parametrize("subject", [s for s in SUBJECTS if s.name != "SMTP"], ids=str)
def test_the_id_that_events_will_name_is_kept(subject, play):
    replies, _ = play(subject, "accepted")
    assert replies[A].message_id


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_what_a_provider_cannot_have_is_declared_and_nothing_else_is_left_out(subject):
    played = {*subject.plays, "refuses connections"}
    assert subject.cannot == set(CASES) - played
