"""The provider over Anymail's backends, and the tables of what its ESPs say."""

import gc
import json
import pickle
import time
from contextlib import ExitStack
from copy import copy
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import requests
from anymail.backends.mailgun import EmailBackend as Mailgun
from anymail.backends.test import EmailBackend as Outbox
from anymail.exceptions import AnymailCancelSend
from anymail.signals import post_send, pre_send
from botocore import exceptions as botocore
from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.db import OperationalError
from django.utils import timezone
from django.utils.module_loading import import_string

from celery_mailer.deliver import providers
from celery_mailer.deliver.breaker import breakers
from celery_mailer.deliver.providers import anymail_outcomes as outcomes
from celery_mailer.deliver.providers import wear
from celery_mailer.deliver.providers.anymail import AnymailProvider
from celery_mailer.deliver.providers.django_backend import DjangoBackendProvider
from celery_mailer.deliver.slice import deliver_emails
from celery_mailer.log.settle import settle_emails
from celery_mailer.models.pause import resume
from celery_mailer.options import Provider
from celery_mailer.values import Kind, Outcome, Phase, Status
from tests.conftest import leave_the_outbox
from tests.factories import make_email, stored
from tests.servers.esp import EspServer, drop
from tests.servers.scripted_smtp import CERTIFICATE, ScriptedSmtp

A, B = "a@example.com", "b@example.com"
SECRET = "S3cr3t-k3y-of-the-test"
QUEUED = (200, {"id": "id-1", "message": "Queued. Thank you."})
BODIES = {  # what each ESP says when it has taken a mail
    "brevo": (201, {"messageId": "id-1"}),
    "resend": (200, {"id": "id-1"}),
    "sparkpost": (
        200,
        {"results": {"total_accepted_recipients": 1, "total_rejected_recipients": 0, "id": "id-1"}},
    ),
}


@pytest.fixture
def serve():
    with ExitStack() as stack:
        yield lambda *answers: stack.enter_context(EspServer(*(answers or (QUEUED,))))


@pytest.fixture
def connect():
    """Makes a provider over an ESP's backend, and closes it in the end."""
    with ExitStack() as stack:

        def make(url, module="mailgun", rules=None, **options):
            options = {"api_key": SECRET, "api_url": url, **options}
            backend = import_string(f"anymail.backends.{module}.EmailBackend")(**options)
            provider = AnymailProvider("test", backend, rules or Provider())
            stack.callback(provider.close)
            return provider

        yield make


@pytest.fixture
def receive():
    """Connects a receiver to one of Anymail's signals for the time of the test."""
    with ExitStack() as stack:

        def connect(signal, receiver):
            signal.connect(receiver, weak=False)
            stack.callback(signal.disconnect, receiver)

        yield connect


def mail(*to, **arguments):
    defaults = {"subject": "s", "body": "b", "from_email": "shop@example.com", "to": list(to or [A])}
    return EmailMessage(**{**defaults, "headers": {"Message-ID": "<1@shop>"}, **arguments})


def hand_over(provider, message=None, recipients=(A,), timeout=10):
    assert provider.open(timeout) is None
    return provider.send(message or mail(), list(recipients), timeout)


def raising(error):
    def receiver(**kwargs):
        raise error

    return receiver


def seen(reply):
    return reply.outcome, reply.kind


# The way there
def test_the_registry_makes_it_of_an_anymail_backend(settings):
    entry = {"BACKEND": "anymail.backends.mailgun.EmailBackend", "OPTIONS": {"api_key": SECRET}}
    settings.CELERY_MAILER = {"PROVIDERS": {"default": entry, "test": {"BACKEND": f"{__name__}.Project"}}}
    leave_the_outbox(settings)
    assert isinstance(providers.get("default"), AnymailProvider)
    assert isinstance(providers.get("test"), AnymailProvider)
    providers.close_all()


class Project(Outbox):
    """A project's own backend over Anymail's."""


def test_django_backends_are_not_taken_for_anymails(settings):
    entry = {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
    settings.CELERY_MAILER = {"PROVIDERS": {"default": entry}}
    leave_the_outbox(settings)
    assert isinstance(providers.get("default"), DjangoBackendProvider)
    providers.close_all()


def test_the_session_stays_open_between_emails(serve, connect):
    server = serve()
    provider = connect(server.url)
    for _ in range(3):
        assert hand_over(provider).summary.outcome == Outcome.ACCEPTED
    assert len({request.connection for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("rules", "seconds"),
    [({"max_messages_per_connection": 1}, 0), ({}, 6), ({"max_connection_age": timedelta(seconds=1)}, 2)],
    ids=["worn", "idle", "old"],
)
def test_a_session_is_opened_anew_when_it_is(serve, connect, monkeypatch, rules, seconds):
    server = serve()
    provider = connect(server.url, rules=Provider(**rules))
    hand_over(provider)
    later = time.monotonic() + seconds
    monkeypatch.setattr(wear, "time", SimpleNamespace(monotonic=lambda: later))
    hand_over(provider)
    assert len({request.connection for request in server.requests}) == 2


def test_after_a_fork_the_parents_session_is_left_alone(serve, connect):
    server = serve()
    provider = connect(server.url)
    hand_over(provider)
    session = provider._backend.session
    provider.abandon()
    assert provider._backend.session is None
    assert session.post(f"{server.url}v3", timeout=5).status_code == 200
    assert len({request.connection for request in server.requests}) == 1
    session.close()


def test_an_answer_is_not_waited_for_longer_than_there_is_time(serve, connect):
    provider = connect(serve().url)
    hand_over(provider, timeout=3)
    assert provider._backend.timeout == 3
    hand_over(provider, timeout=50)
    assert provider._backend.timeout == 30


def test_a_timeout_of_two_parts_is_kept_within_the_time_too(serve, connect):
    provider = connect(serve().url, timeout=(2, 20))
    hand_over(provider, timeout=10)
    assert provider._backend.timeout == (2, 10)


def test_silence_would_hide_the_reason_so_it_is_taken_off(serve, connect):
    with pytest.warns(DeprecationWarning, match="fail_silently"):
        provider = connect(serve((400, {"message": "no"})).url, fail_silently=True)
    assert seen(hand_over(provider).summary) == (Outcome.REJECTED, Kind.CONTENT)


@pytest.mark.django_db
def test_an_email_goes_out_by_it_and_no_secret_stays_behind(settings, serve):
    server = serve((401, {"message": f"no such key: {SECRET}"}), BODIES["resend"])
    entry = {
        "BACKEND": "anymail.backends.resend.EmailBackend",
        "OPTIONS": {"api_key": SECRET, "api_url": server.url},
    }
    settings.CELERY_MAILER = {"PROVIDERS": {"default": entry}}
    leave_the_outbox(settings)
    refused, sent = make_email(to="Ann <a@example.com>"), make_email(subject="hello")
    for email in (refused, sent):
        deliver_emails([email.pk])
        settle_emails([email.pk])
        resume("provider", "default")  # as one does after mending the key
        breakers.forget()
    providers.close_all()
    assert [(stored(e).status, stored(e).reason) for e in (refused, sent)] == [
        (Status.DEFERRED, "provider"),
        (Status.SENT, ""),
    ]
    assert refused.attempts.get().text == "no such key: ***"
    assert server.requests[1].json["subject"] == "hello"


@pytest.mark.django_db
@pytest.mark.parametrize("status", [429, 503])
def test_an_email_waits_for_as_long_as_the_esp_asks(settings, serve, status):
    server = serve((status, {"message": "later"}, {"Retry-After": "7200"}))
    entry = {
        "BACKEND": "anymail.backends.resend.EmailBackend",
        "OPTIONS": {"api_key": SECRET, "api_url": server.url},
    }
    settings.CELERY_MAILER = {"PROVIDERS": {"default": entry}}
    leave_the_outbox(settings)
    email = make_email()
    deliver_emails([email.pk])
    settle_emails([email.pk])
    assert email.attempts.get().retry_after == timedelta(hours=2)
    assert stored(email).due_at > timezone.now() + timedelta(hours=1.9)


# Keys against repetition
def key_of(request):
    if request.path.endswith("smtp/email"):
        return request.json["headers"]["idempotencyKey"]
    return request.headers["Idempotency-Key"]


@pytest.mark.parametrize("module", BODIES)
def test_a_repetition_has_the_same_key(serve, connect, module):
    server = serve(drop, BODIES[module])
    provider = connect(server.url, module)
    first, second = hand_over(provider), hand_over(provider)
    assert seen(first.summary) == (Outcome.DEFERRED, Kind.NO_ANSWER)
    assert first.summary.retry_after == timedelta(minutes=1)
    assert second.summary.outcome == Outcome.ACCEPTED
    assert key_of(server.requests[0]) == key_of(server.requests[1])


@pytest.mark.parametrize("module", BODIES)
@pytest.mark.parametrize(
    ("message", "recipients"),
    [(mail(headers={"Message-ID": "<2@shop>"}), [A]), (mail(A, B), [B])],
    ids=["another email", "fewer recipients"],
)
def test_another_hand_over_has_another_key(serve, connect, module, message, recipients):
    server = serve(BODIES[module])
    provider = connect(server.url, module)
    hand_over(provider)
    hand_over(provider, message, recipients)
    assert key_of(server.requests[0]) != key_of(server.requests[1])


def test_two_emails_with_one_message_id_are_two(serve, connect):
    server = serve(BODIES["resend"])
    provider = connect(server.url, "resend")
    for email_id in ("1", "2"):
        message = mail()
        message.email_id = email_id
        hand_over(provider, message)
    assert key_of(server.requests[0]) != key_of(server.requests[1])


def test_an_email_without_a_name_has_no_key(serve, connect):
    server = serve(drop)
    result = hand_over(connect(server.url, "resend"), mail(headers={}))
    assert server.requests[0].headers["Idempotency-Key"] is None
    assert seen(result.summary) == (Outcome.UNCERTAIN, Kind.NO_ANSWER)


def test_an_esp_that_knows_no_keys_gets_none(serve, connect):
    server = serve()
    hand_over(connect(server.url))
    assert "Idempotency-Key" not in server.requests[0].headers


def test_the_key_does_not_stay_in_the_session(serve, connect):
    provider = connect(serve(BODIES["resend"]).url, "resend")
    hand_over(provider)
    assert "Idempotency-Key" not in provider._backend.session.headers


# Who
def test_on_a_retry_those_who_have_it_are_not_named(serve, connect):
    server = serve(BODIES["resend"])
    message = mail("Ann <a@example.com>", "Bob <b@example.com>", cc=["c@example.com"], bcc=["d@example.com"])
    result = hand_over(connect(server.url, "resend"), message, [B])
    request = server.requests[0].json
    assert (request["to"], "cc" in request, "bcc" in request) == (["Bob <b@example.com>"], False, False)
    assert set(result.recipients) == {B}


@pytest.mark.parametrize(
    ("cc", "bcc", "to"),
    [([B], ["c@example.com"], [B]), ([], [B], [B]), ([], [B, "c@example.com"], [])],
    ids=["from cc", "from bcc", "never several from bcc"],
)
def test_the_place_of_the_one_who_has_it_is_filled(serve, connect, cc, bcc, to):
    server = serve(BODIES["resend"])
    hand_over(connect(server.url, "resend"), mail(A, cc=cc, bcc=bcc), [*cc, *bcc])
    assert server.requests[0].json.get("to", []) == to


def test_recipients_are_recognised_in_the_esps_own_spelling(serve, connect):
    body = [
        {"email": "ann@xn--bcher-kva.example", "status": "rejected"},
        {"email": "bob@example.com", "status": "sent", "_id": "2"},
    ]
    message = mail("ann@bücher.example", "Bob@Example.com")
    recipients = ["ann@xn--bcher-kva.example", "Bob@Example.com"]
    result = hand_over(connect(serve((200, body)).url, "mandrill"), message, recipients)
    ann, bob = (result.recipients[r] for r in recipients)
    assert (seen(ann), seen(bob)) == (outcomes.NOT_TO, outcomes.TAKEN)
    assert bob.message_id == "2"


def test_a_recipient_of_whom_the_esp_says_nothing_is_not_sent_to_twice(serve, connect):
    body = [{"email": A, "status": "sent", "_id": "1"}]
    result = hand_over(connect(serve((200, body)).url, "mandrill"), mail(A, B), [A, B])
    assert seen(result.recipients[B]) == outcomes.TAKEN
    assert result.recipients[B].text == "unknown"


# What is raised on the way
def test_a_receiver_that_fails_after_the_mail_was_taken_changes_nothing(serve, connect, receive):
    receive(post_send, raising(RuntimeError(SECRET)))
    result = hand_over(connect(serve().url))
    assert (result.summary.outcome, result.summary.message_id) == (Outcome.ACCEPTED, "id-1")


def test_a_receiver_may_cancel_a_mail(serve, connect, receive):
    server = serve()
    receive(pre_send, raising(AnymailCancelSend()))
    assert seen(hand_over(connect(server.url)).summary) == outcomes.NOT_BUILT
    assert server.requests == []


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (OperationalError("gone"), outcomes.LATER),
        (TimeoutError("slow"), outcomes.LATER),
        (KeyError("bug"), outcomes.NOT_BUILT),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_receiver_that_fails_before_the_hand_over_leaves_no_doubt(serve, connect, receive, error, verdict):
    server = serve()
    receive(pre_send, raising(error))
    assert seen(hand_over(connect(server.url)).summary) == verdict
    assert server.requests == []


def test_a_backend_that_counts_nothing_leaves_a_doubt(serve, connect):
    class Forgetful(Mailgun):
        def send_messages(self, messages):
            super().send_messages([copy(message) for message in messages])

    backend = Forgetful(api_key=SECRET, api_url=serve().url)
    provider = AnymailProvider("test", backend, Provider())
    assert seen(hand_over(provider).summary) == outcomes.UNSURE
    provider.close()


def test_what_an_esp_cannot_send_is_rejected_with_the_reason(serve, connect):
    message = EmailMultiAlternatives("s", "b", "shop@example.com", [A])
    message.attach_alternative("<p>1</p>", "text/html")
    message.attach_alternative("<p>2</p>", "text/html")
    reply = hand_over(connect(serve().url, "resend"), message).summary
    assert seen(reply) == outcomes.NOT_BUILT
    assert reply.text == "AnymailUnsupportedFeature: Resend does not support multiple html parts"


def test_data_that_cannot_be_json_is_rejected(serve, connect):
    message = mail()
    message.esp_extra = {"when": datetime.now(UTC)}
    assert seen(hand_over(connect(serve().url, "resend"), message).summary) == outcomes.NOT_BUILT


def test_a_check_of_anymails_own_is_told(serve, connect):
    reply = hand_over(connect(serve().url, sender_domain="a/b")).summary
    assert (seen(reply), reply.text) == (
        outcomes.NOT_BUILT,
        "AnymailError: Invalid '/' in sender domain 'a/b'",
    )


def test_a_key_that_cannot_stand_in_a_header_is_the_providers_fault(serve, connect):
    reply = hand_over(connect(serve().url, "resend", api_key="schlüssel-…")).summary
    assert (seen(reply), "schl" in reply.text) == (outcomes.FOR_A_PERSON, False)


def test_a_time_limit_passes_through_and_closes_the_session(serve, connect, receive):
    provider = connect(serve().url)
    receive(pre_send, raising(SoftTimeLimitExceeded()))
    with pytest.raises(SoftTimeLimitExceeded):
        hand_over(provider)
    assert provider._backend.session is None


def test_two_silences_in_a_row_are_blamed_on_the_provider(serve, connect):
    provider = connect(serve(drop, drop, QUEUED, drop).url)
    assert [hand_over(provider).usable for _ in range(4)] == [True, False, True, True]


def test_a_backend_that_does_not_open_cannot_be_used():
    class Broken(Mailgun):
        def create_session(self):
            raise ValueError(f"bad key {self.api_key}")

    reply = AnymailProvider("test", Broken(api_key=SECRET), Provider()).open(5)
    assert (seen(reply), reply.text) == (outcomes.FOR_A_PERSON, "ValueError: bad key ***")


# What must never be kept
def test_a_secret_that_an_esp_repeats_is_not_kept(serve, connect):
    reply = hand_over(connect(serve((401, {"message": f"no such key: {SECRET}"})).url)).summary
    assert reply.text == "no such key: ***"


def test_a_secret_at_the_cut_is_not_kept_either(serve, connect):
    reply = hand_over(connect(serve((401, {"message": "x" * 490 + SECRET})).url)).summary
    assert reply.text == "x" * 490 + "***"


def test_of_an_answer_only_its_message_is_kept(serve, connect):
    body = {"message": "no", "request": {"html": "private"}, "key": SECRET}
    assert hand_over(connect(serve((400, body)).url)).summary.text == "no"


def test_no_error_survives_its_conversion(serve, connect):
    provider = connect(serve((400, {"message": "no"})).url)
    result = hand_over(provider, mail(subject="confidential"))
    assert b"confidential" not in pickle.dumps(result.summary)
    gc.collect()
    assert not [o for o in gc.get_objects() if type(o).__name__ == "AnymailRequestsAPIError"]


# SES
def ses(**client):
    backend = import_string("anymail.backends.amazon_ses.EmailBackend")(client_params=client)
    return AnymailProvider("test", backend, Provider())


KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": SECRET}


def test_ses_without_a_region_cannot_be_opened(monkeypatch, tmp_path):
    no_aws(monkeypatch, tmp_path)
    reply = ses(**KEYS).open(5)
    assert (seen(reply), reply.text.split(":")[0]) == (outcomes.FOR_A_PERSON, "NoRegionError")


def test_ses_without_credentials_is_the_providers_fault(monkeypatch, tmp_path):
    no_aws(monkeypatch, tmp_path)
    provider = ses(region_name="eu-west-1")
    assert seen(hand_over(provider).summary) == outcomes.FOR_A_PERSON
    provider.close()


def no_aws(monkeypatch, folder):
    """An environment in which boto3 finds nothing."""
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(folder / "none"))


def test_botocores_timeouts_and_repetitions_are_ours_unless_the_project_has_its_own():
    config = {"retries": {"total_max_attempts": 4}, "read_timeout": 9}
    plain, own = ses(region_name="eu-west-1", **KEYS), ses(region_name="eu-west-1", config=config, **KEYS)
    for provider in (plain, own):
        provider.open(5)
    plain_config, own_config = (p._backend.client_params["config"] for p in (plain, own))
    assert (plain_config.retries["total_max_attempts"], plain_config.read_timeout) == (1, 5)
    assert (own_config.retries["total_max_attempts"], own_config.read_timeout) == (4, 9)
    assert own_config.connect_timeout == 5
    plain.close()
    own.close()


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ("ACCOUNT_THROTTLED", outcomes.TOO_FAST),
        ("MESSAGE_REJECTED", outcomes.NOT_SO),
        ("TRANSIENT_FAILURE", outcomes.LATER),
    ],
)
def test_a_refused_bulk_email_is_judged_by_its_entries(status, verdict):
    response = {
        "BulkEmailEntryResults": [{"Status": status, "Error": "words"}],
        "ResponseMetadata": {"HTTPStatusCode": 200},
    }
    reply = outcomes.ses_reply(response)
    assert (seen(reply), reply.text) == (verdict, f"{status}: words")


# The network. Each exception comes from the library itself.
def failed_post(url, **arguments):
    try:
        requests.post(url, data=b"x", timeout=5, **arguments)
    except requests.RequestException as error:
        return error
    raise AssertionError("the request went well")


def test_a_certificate_that_is_not_trusted_is_for_a_person():
    with ScriptedSmtp(tls="implicit") as server:
        reply = outcomes.network_reply(failed_post(f"https://127.0.0.1:{server.port}"))
    assert seen(reply) == outcomes.FOR_A_PERSON
    assert "certificate verify failed" in reply.text


def test_a_server_without_tls_has_taken_nothing(serve):
    with ScriptedSmtp() as server:
        reply = outcomes.network_reply(failed_post(f"https://127.0.0.1:{server.port}", verify=CERTIFICATE))
    assert seen(reply) == outcomes.DOWN


def test_a_name_that_does_not_exist_is_a_connection_that_failed():
    reply = outcomes.network_reply(failed_post("http://nowhere.invalid"))
    assert (seen(reply), reply.phase) == (outcomes.DOWN, Phase.CONNECT)


def test_a_proxy_that_is_not_there_has_taken_nothing():
    proxies = {"https": "http://127.0.0.1:9"}
    assert seen(outcomes.network_reply(failed_post("https://example.com", proxies=proxies))) == outcomes.DOWN


def test_an_address_that_is_none_is_for_a_person():
    assert seen(outcomes.network_reply(failed_post("nowhere"))) == outcomes.FOR_A_PERSON


URL = {"endpoint_url": "https://email.example.com"}
RAISED = [
    (requests.ReadTimeout(), outcomes.UNSURE),
    (requests.ConnectTimeout(), outcomes.DOWN),
    (requests.ConnectionError(), outcomes.UNSURE),
    (requests.exceptions.ChunkedEncodingError(), outcomes.UNSURE),
    (requests.exceptions.InvalidHeader(), outcomes.FOR_A_PERSON),
    (botocore.EndpointConnectionError(error=OSError(), **URL), outcomes.DOWN),
    (botocore.ConnectTimeoutError(error=TimeoutError(), **URL), outcomes.DOWN),
    (botocore.ProxyConnectionError(proxy_url="http://proxy"), outcomes.DOWN),
    (botocore.ReadTimeoutError(error=TimeoutError(), **URL), outcomes.UNSURE),
    (botocore.ConnectionClosedError(error=OSError(), **URL), outcomes.UNSURE),
    (botocore.NoCredentialsError(), outcomes.FOR_A_PERSON),
    (botocore.ParamValidationError(report="x"), outcomes.NOT_BUILT),
    (ConnectionResetError(), outcomes.UNSURE),
    (RuntimeError(), outcomes.UNSURE),
]


@pytest.mark.parametrize(("error", "verdict"), RAISED, ids=lambda value: type(value).__name__)
def test_what_a_library_raises_says_whether_anything_was_handed_over(error, verdict):
    assert seen(outcomes.network_reply(error)) == verdict


def test_an_exception_that_wraps_itself_is_read_once():
    error = requests.ConnectionError()
    error.args = (error,)
    assert seen(outcomes.network_reply(error)) == outcomes.UNSURE


# The tables
def response(status, body="", **headers):
    made = requests.Response()
    made.status_code, made.reason = status, "Reason"
    made._content = (body if isinstance(body, str) else json.dumps(body)).encode()
    made.headers.update(headers)
    return made


STATUSES = [
    (200, outcomes.UNSURE),
    (302, outcomes.FOR_A_PERSON),
    (400, outcomes.NOT_SO),
    (401, outcomes.FOR_A_PERSON),
    (402, outcomes.FOR_A_PERSON),
    (403, outcomes.FOR_A_PERSON),
    (404, outcomes.FOR_A_PERSON),
    (408, outcomes.LATER),
    (413, outcomes.NOT_SO),
    (420, outcomes.TOO_FAST),
    (422, outcomes.NOT_SO),
    (425, outcomes.LATER),
    (429, outcomes.TOO_FAST),
    (500, outcomes.UNSURE),
    (502, outcomes.UNSURE),
    (503, outcomes.DOWN),
    (504, outcomes.UNSURE),
    (520, outcomes.UNSURE),
    (521, outcomes.DOWN),
    (999, outcomes.UNSURE),
]


@pytest.mark.parametrize(("status", "verdict"), STATUSES)
def test_every_status_has_its_verdict(status, verdict):
    reply = outcomes.http_reply(response(status), "An ESP")
    assert (seen(reply), reply.code, reply.text) == (verdict, status, "Reason")


@pytest.mark.parametrize("status", [200, 500, 502, 504])
def test_a_key_turns_a_doubt_into_a_repetition(status):
    reply = outcomes.http_reply(response(status), "Resend", keyed=True)
    assert (seen(reply), reply.retry_after) == (outcomes.REPEAT, outcomes.REPEAT_AFTER)


def test_a_repetition_comes_while_the_key_is_remembered():
    assert all(window > 10 * outcomes.REPEAT_AFTER for window in outcomes.REMEMBERED.values())


BODIES_OF_ERRORS = [
    ({"message": "words"}, "words"),
    ({"name": "validation_error", "message": "words"}, "validation_error: words"),
    ({"code": "invalid", "message": "words"}, "invalid: words"),
    ({"ErrorCode": 300, "Message": "words"}, "300: words"),
    ({"ErrorIdentifier": "x", "ErrorCode": "mj-1", "ErrorMessage": "words"}, "mj-1: words"),
    ({"errors": [{"message": "words", "field": None}]}, "words"),
    ({"errors": [{"code": "1300", "message": "words"}]}, "1300: words"),
    ({"errors": ["words"]}, "words"),
    ({"error": "words"}, "words"),
    ({"data": {"code": "NoContent", "message": "words"}, "status": "error"}, "NoContent: words"),
    ({"Messages": [{"Errors": [{"ErrorCode": "s-1", "ErrorMessage": "words"}]}]}, "s-1: words"),
    ([{"message": "words"}], "words"),
    ("Forbidden", "Forbidden: Reason"),
    ("", "Reason"),
    ([], "Reason"),
    ({"errors": []}, "Reason"),
    (None, "Reason"),
]


@pytest.mark.parametrize(("body", "text"), BODIES_OF_ERRORS, ids=str)
def test_the_words_are_found_in_every_form_of_error(body, text):
    assert outcomes.http_reply(response(400, body), "An ESP").text == text


@pytest.mark.parametrize("status", ["sent", "queued", "unknown"])
def test_a_recipient_who_was_taken_is_never_asked_again(status):
    reply = outcomes.recipient_reply(status, 7, None, named=False)
    assert (seen(reply), reply.message_id) == (outcomes.TAKEN, "7")


def test_anymail_knows_no_status_that_the_table_does_not():
    from anymail.message import ANYMAIL_STATUSES

    assert set(outcomes.STATUSES) == set(ANYMAIL_STATUSES)


NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
PAUSES = [
    ("7", timedelta(seconds=7)),
    ("0", timedelta(0)),
    ("Thu, 01 Jan 2026 12:01:00 GMT", timedelta(minutes=1)),
    ("Thu, 01 Jan 2026 11:00:00 GMT", timedelta(0)),
    ("Thu, 01 Jan 2099 11:00:00 GMT", timedelta(days=1)),
    ("999999999999999999999", timedelta(days=1)),
    ("soon", None),
    ("-5", None),
    ("1.5", None),
    ("", None),
]


@pytest.mark.parametrize(("value", "after"), PAUSES)
def test_a_pause_is_read_in_seconds_or_as_a_date(value, after):
    assert outcomes.pause({"retry-AFTER": value}, NOW) == after


def test_without_the_header_there_is_no_pause():
    assert outcomes.pause({}, NOW) is None
