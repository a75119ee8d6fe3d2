"""Several messages in one call of an ESP's API: what goes in, what is cut, and whose answer is whose."""

from contextlib import ExitStack

import pytest
from anymail.exceptions import AnymailCancelSend
from anymail.signals import post_send, pre_send
from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail import EmailMessage
from django.utils.module_loading import import_string

from celery_mailer.deliver import providers
from celery_mailer.deliver.providers import anymail_batch
from celery_mailer.deliver.providers.anymail import AnymailProvider
from celery_mailer.deliver.providers.anymail_batch import APIS, AT_ONCE, BatchProvider, provider_class
from celery_mailer.deliver.providers.contract import Parcel
from celery_mailer.deliver.slice import WINDOW, deliver_emails
from celery_mailer.log.settle import settle_emails
from celery_mailer.models import ProviderMessage
from celery_mailer.options import Provider
from celery_mailer.values import Kind, Outcome, Reply
from tests.conftest import leave_the_outbox
from tests.factories import make_emails, stored
from tests.servers.esp import EspServer, cut, drop, silence

SECRET = "S3cr3t-k3y-of-the-test"
KEYS = {"postmark": "server_token", "resend": "api_key"}
ESPS = sorted(KEYS)
ACCEPTED = (Outcome.ACCEPTED, Kind.NONE)
UNSURE = (Outcome.UNCERTAIN, Kind.NO_ANSWER)
CONTENT = (Outcome.REJECTED, Kind.CONTENT)


def address(i):
    return f"u{i}@example.com"


def taken(module, *numbers):
    """What the ESP says when it has taken the messages to these numbers, in one call."""
    if module == "resend":
        return 200, {"data": [{"id": f"id-{i}"} for i in numbers]}
    return 200, [{"ErrorCode": 0, "Message": "OK", "To": address(i), "MessageID": f"id-{i}"} for i in numbers]


def taken_alone(module, i):
    status, body = taken(module, i)
    return status, body["data"][0] if module == "resend" else body[0]


@pytest.fixture
def serve():
    with ExitStack() as stack:
        yield lambda *answers: stack.enter_context(EspServer(*answers))


@pytest.fixture
def connect():
    with ExitStack() as stack:

        def make(module, server, **rules):
            options = {KEYS[module]: SECRET, "api_url": server.url}
            backend = import_string(f"anymail.backends.{module}.EmailBackend")(**options)
            provider = BatchProvider("test", backend, Provider(**rules))
            stack.callback(provider.close)
            return provider

        yield make


@pytest.fixture
def receive():
    with ExitStack() as stack:

        def connect(signal, receiver):
            signal.connect(receiver, weak=False)
            stack.callback(signal.disconnect, receiver)

        yield connect


def parcel(i, begin=lambda: True, **more):
    headers = {"Message-ID": f"<{i}@shop>", "List-Unsubscribe": f"<https://shop.example/{i}>"}
    message = EmailMessage(f"subject {i}", f"body {i}", "shop@example.com", [address(i)], headers=headers)
    for name, value in more.items():
        setattr(message, name, value)
    return Parcel(message, [address(i)], begin)


def send(provider, parcels, timeout=10):
    assert provider.open(timeout) is None
    return list(provider.send_many(iter(parcels), timeout))


def seen(results):
    return [(result.summary.outcome, result.summary.kind) for result in results]


def paths(server):
    return [request.path for request in server.requests]


# What goes together
@pytest.mark.parametrize("module", ESPS)
def test_messages_go_in_one_call_each_as_it_is(serve, connect, module):
    server = serve(taken_alone(module, 0), taken_alone(module, 1), taken(module, 0, 1))
    provider = connect(module, server)
    for i in range(2):
        send(provider, [parcel(i)])
    results = send(provider, [parcel(i) for i in range(2)])
    first, second, both = (request.json for request in server.requests)
    assert both == [first, second]
    assert seen(results) == [ACCEPTED] * 2
    assert [r.summary.message_id for r in results] == ["id-0", "id-1"]


@pytest.mark.parametrize("module", ESPS)
def test_no_more_go_together_than_may_be_under_way(serve, connect, module):
    calls = [range(AT_ONCE), range(AT_ONCE, AT_ONCE + 2)]
    server = serve(*(taken(module, *numbers) for numbers in calls))
    results = send(connect(module, server), map(parcel, range(AT_ONCE + 2)))
    assert [len(request.json) for request in server.requests] == [AT_ONCE, 2]
    assert [r.summary.message_id for r in results] == [f"id-{i}" for i in range(AT_ONCE + 2)]


def test_as_many_as_a_slice_lets_begin_and_no_esp_takes_fewer():
    assert AT_ONCE <= WINDOW
    assert min(api.most for api in APIS.values()) >= AT_ONCE


def test_a_call_is_cut_at_its_longest(serve, connect, monkeypatch):
    monkeypatch.setattr(anymail_batch, "LONGEST", 600)
    server = serve(taken("postmark", 0, 1), taken_alone("postmark", 2))
    assert seen(send(connect("postmark", server), map(parcel, range(3)))) == [ACCEPTED] * 3
    assert paths(server) == ["/email/batch", "/email"]
    assert len(server.requests[0].body) < 610


def test_one_that_was_tried_before_goes_alone_under_its_own_key(serve, connect):
    server = serve(taken_alone("resend", 0), taken("resend", 1, 2), taken_alone("resend", 0))
    provider = connect("resend", server)
    again = parcel(0, tried_before=True)
    send(provider, [again, parcel(1), parcel(2)])
    send(provider, [parcel(0)])
    assert paths(server) == ["/emails", "/emails/batch", "/emails"]
    alone, _, first = (request.headers["Idempotency-Key"] for request in server.requests)
    assert alone == first


def test_what_resends_call_for_several_leaves_out_goes_alone(serve, connect):
    server = serve(taken("resend", 0, 1), taken_alone("resend", 2))
    file = ("note.txt", "words", "text/plain")
    results = send(connect("resend", server), [parcel(0), parcel(1), parcel(2, attachments=[file])])
    assert paths(server) == ["/emails/batch", "/emails"]
    assert server.requests[1].json["attachments"]
    assert seen(results) == [ACCEPTED] * 3


def test_one_with_another_token_goes_alone(serve, connect):
    server = serve(taken("postmark", 0, 1), taken_alone("postmark", 2))
    other = parcel(2, esp_extra={"server_token": "another"})
    send(connect("postmark", server), [parcel(0), parcel(1), other])
    assert [request.headers["X-Postmark-Server-Token"] for request in server.requests] == [SECRET, "another"]


@pytest.mark.parametrize("module", ESPS)
def test_one_that_cannot_be_built_does_not_hold_up_the_others(serve, connect, module):
    server = serve(taken_alone(module, 0), taken(module, 2, 3))
    odd = parcel(1, esp_extra={"when": object()})
    results = send(connect(module, server), [parcel(0), odd, parcel(2), parcel(3)])
    assert seen(results) == [ACCEPTED, (Outcome.REJECTED, Kind.MESSAGE), ACCEPTED, ACCEPTED]


def test_on_a_retry_only_those_without_it_are_named(serve, connect):
    server = serve(taken("resend", 0, 1))
    two = parcel(0)
    two.message.cc = ["b@example.com"]
    send(connect("resend", server), [two, parcel(1)])
    assert "cc" not in server.requests[0].json[0]


# When it may not begin
def test_what_may_not_begin_is_not_sent_and_ends_the_stream(serve, connect):
    server = serve(taken("postmark", 0, 1))
    parcels = [parcel(0), parcel(1), parcel(2, begin=lambda: False), parcel(3)]
    assert len(send(connect("postmark", server), parcels)) == 2
    assert [one["To"] for one in server.requests[0].json] == [address(0), address(1)]
    assert len(server.requests) == 1


def test_nothing_begins_before_all_is_ready(serve, connect, receive):
    began = []
    receive(pre_send, lambda message, **kwargs: began.append(message.subject))
    server = serve(taken("postmark", 0, 1))
    send(
        connect("postmark", server), [parcel(i, begin=lambda: began.append("begin") or True) for i in (0, 1)]
    )
    assert began == ["subject 0", "subject 1", "begin", "begin"]


def test_a_worn_session_ends_the_stream(serve, connect):
    server = serve(taken("postmark", *range(AT_ONCE)))
    provider = connect("postmark", server, max_messages_per_connection=AT_ONCE)
    assert len(send(provider, map(parcel, range(AT_ONCE + 5)))) == AT_ONCE


# Whose answer is whose
def test_one_of_several_is_refused_by_postmark(serve, connect):
    status, body = taken("postmark", 0, 1, 2)
    body[1] = {
        "ErrorCode": 406,
        "Message": f"x\n Found inactive addresses: {address(1)}. Inactive recipients",
    }
    results = send(connect("postmark", serve((status, body))), map(parcel, range(3)))
    assert seen(results) == [ACCEPTED, (Outcome.REJECTED, Kind.RECIPIENT), ACCEPTED]


def test_one_of_several_is_refused_by_resend(serve, connect):
    body = {"data": [{"id": "id-0"}, {"id": "id-2"}], "errors": [{"index": 1, "message": "no subject"}]}
    server = serve((200, body))
    results = send(connect("resend", server), map(parcel, range(3)))
    assert seen(results) == [ACCEPTED, CONTENT, ACCEPTED]
    assert results[1].summary.text == "no subject"
    assert results[2].summary.message_id == "id-2"
    assert server.requests[0].headers["x-batch-validation"] == "permissive"


def test_signals_come_for_each_message(serve, connect, receive):
    heard = []
    receive(post_send, lambda message, status, **kwargs: heard.append((message.subject, status.message_id)))
    send(connect("resend", serve(taken("resend", 0, 1))), map(parcel, range(2)))
    assert heard == [("subject 0", "id-0"), ("subject 1", "id-1")]


def test_a_receiver_may_cancel_one_of_several(serve, connect, receive):
    def cancel(message, **kwargs):
        if message.subject == "subject 0":
            raise AnymailCancelSend()

    receive(pre_send, cancel)
    server = serve(taken("resend", 1, 2))
    results = send(connect("resend", server), map(parcel, range(3)))
    assert seen(results) == [(Outcome.REJECTED, Kind.MESSAGE), ACCEPTED, ACCEPTED]


# When the call fails
REFUSALS = [
    ((401, {"message": "no such key"}), (Outcome.DEFERRED, Kind.PROVIDER)),
    ((429, {"message": "slow down"}), (Outcome.DEFERRED, Kind.THROTTLED)),
    ((503, "maintenance"), (Outcome.DEFERRED, Kind.CONNECTION)),
]


@pytest.mark.parametrize("module", ESPS)
@pytest.mark.parametrize(("answer", "fate"), REFUSALS, ids=lambda value: str(value[0]))
def test_a_call_that_the_provider_refuses_has_taken_nothing(serve, connect, module, answer, fate):
    server = serve(answer)
    results = send(connect(module, server), map(parcel, range(3)))
    assert seen(results) == [fate] * 3
    assert [list(result.recipients) for result in results] == [[address(i)] for i in range(3)]
    assert not any(result.usable for result in results)
    assert len(server.requests) == 1


def test_those_refused_together_for_whom_no_time_is_left_are_deferred(serve, connect):
    server = serve((413, "too large"))
    provider = connect("postmark", server)
    items = [provider._prepare(parcel(i)) for i in range(2)]
    refusal = Reply(*CONTENT, text="too large")
    results = list(provider._one_by_one(items, refusal, deadline=0.0))
    assert seen(results) == [(Outcome.DEFERRED, Kind.TEMPORARY)] * 2
    assert server.requests == []


@pytest.mark.parametrize("module", ESPS)
def test_a_call_that_is_refused_for_its_content_is_made_for_each_alone(serve, connect, module):
    refusal = (413, {"message": "too large"})
    server = serve(refusal, taken_alone(module, 0), refusal, taken_alone(module, 2))
    results = send(connect(module, server), map(parcel, range(3)))
    assert seen(results) == [ACCEPTED, CONTENT, ACCEPTED]
    assert len(server.requests) == 4


def test_one_by_one_ends_with_a_provider_that_refuses_us(serve, connect):
    server = serve((413, "too large"), (401, "no"))
    results = send(connect("postmark", server), map(parcel, range(3)))
    assert seen(results) == [(Outcome.DEFERRED, Kind.PROVIDER)] + [(Outcome.DEFERRED, Kind.TEMPORARY)] * 2
    assert len(server.requests) == 2


def name_of(answer):
    return getattr(answer, "__name__", str(answer))


NONSENSE = [
    (200, "what?"),
    (200, []),
    (200, {}),
    (200, {"data": [{"id": "1"}] * 9}),
    (200, {"data": None}),
    (200, [1, 2, 3]),
]


@pytest.mark.parametrize("module", ESPS)
@pytest.mark.parametrize("answer", [drop, cut, (500, "oops"), (502, ""), *NONSENSE], ids=name_of)
def test_a_call_without_an_answer_leaves_a_doubt_about_those_in_it_alone(serve, connect, module, answer):
    ids = range(AT_ONCE, AT_ONCE + 2)
    server = serve(taken(module, *range(AT_ONCE)), answer)
    results = send(connect(module, server), map(parcel, [*range(AT_ONCE), *ids]))
    assert seen(results) == [ACCEPTED] * AT_ONCE + [UNSURE] * 2


def test_silence_is_a_doubt(serve, connect):
    server = serve(silence)
    assert seen(send(connect("postmark", server), map(parcel, range(2)), timeout=0.2)) == [UNSURE] * 2


def test_silence_must_come_twice_in_a_row_to_blame_the_provider(serve, connect):
    provider = connect("postmark", serve(drop))
    usable = [{r.usable for r in send(provider, map(parcel, range(2)))} for _ in range(2)]
    assert usable == [{True}, {False}]


@pytest.mark.parametrize("first", [drop, cut, (500, "oops")], ids=name_of)
def test_resend_is_asked_again_under_the_key_of_the_call(serve, connect, first):
    server = serve(first, taken("resend", 0, 1))
    results = send(connect("resend", server), map(parcel, range(2)))
    assert seen(results) == [ACCEPTED] * 2
    one, two = server.requests
    assert one.headers["Idempotency-Key"] == two.headers["Idempotency-Key"]
    assert one.body == two.body


@pytest.mark.parametrize(
    "second",
    [(429, "slow down"), (422, "no"), (409, {"name": "concurrent_idempotent_requests", "message": "x"})],
    ids=str,
)
def test_no_other_answer_to_the_repetition_takes_the_doubt_away(serve, connect, second):
    results = send(connect("resend", serve(drop, second)), map(parcel, range(2)))
    assert seen(results) == [UNSURE] * 2
    assert all(result.summary.retry_after is None for result in results)


def test_postmark_knows_no_keys_and_is_not_asked_again(serve, connect):
    server = serve(drop)
    send(connect("postmark", server), map(parcel, range(2)))
    assert len(server.requests) == 1


def test_emails_without_a_name_have_no_key_and_are_not_repeated(serve, connect):
    server = serve(drop)
    nameless = [parcel(0), parcel(1)]
    nameless[0].message.extra_headers = {}
    assert seen(send(connect("resend", server), nameless)) == [UNSURE] * 2
    assert [request.headers["Idempotency-Key"] for request in server.requests] == [None]


def test_no_reply_holds_a_secret(serve, connect):
    server = serve((401, {"message": f"no such key: {SECRET}"}))
    results = send(connect("postmark", server), map(parcel, range(2)))
    assert SECRET not in repr(results)


def test_a_time_limit_passes_through_and_closes_the_session(serve, connect, monkeypatch):
    provider = connect("postmark", serve(silence))
    assert provider.open(5) is None

    def limit(*args, **kwargs):
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(provider._backend.session, "post", limit)
    with pytest.raises(SoftTimeLimitExceeded):
        list(provider.send_many(map(parcel, range(2)), 5))
    assert provider._backend.session is None


# Which provider
def test_only_a_backend_that_sends_as_anymail_does_is_given_several():
    class Project(import_string("anymail.backends.resend.EmailBackend")):
        def post_to_esp(self, payload, message):
            return super().post_to_esp(payload, message)

    made = {
        "resend": ({"api_key": "k"}, BatchProvider),
        "postmark": ({"server_token": "k"}, BatchProvider),
        "mailgun": ({"api_key": "k"}, AnymailProvider),
        "amazon_ses": ({}, AnymailProvider),
    }
    for module, (options, kind) in made.items():
        backend = import_string(f"anymail.backends.{module}.EmailBackend")(**options)
        assert provider_class(backend) is kind
    assert provider_class(Project(api_key="k")) is AnymailProvider


@pytest.mark.django_db(transaction=True)
def test_a_slice_goes_out_in_calls_and_each_email_keeps_its_id(settings, serve):
    server = serve(taken("postmark", *range(AT_ONCE)), taken("postmark", *range(AT_ONCE, 30)))
    entry = {
        "BACKEND": "anymail.backends.postmark.EmailBackend",
        "OPTIONS": {"server_token": SECRET, "api_url": server.url},
    }
    settings.CELERY_MAILER = {"PROVIDERS": {"default": entry}}
    leave_the_outbox(settings)
    emails = make_emails(30)
    ids = [email.pk for email in emails]
    assert deliver_emails(ids, seconds=30) == []
    settle_emails(ids)
    providers.close_all()
    assert paths(server) == ["/email/batch"] * 2
    assert {stored(email).status for email in emails} == {"sent"}
    named = dict(ProviderMessage.objects.values_list("email_id", "message_id"))
    assert named == {email.pk: f"id-{i}" for i, email in enumerate(emails)}
