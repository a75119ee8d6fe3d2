"""What ESPs tell Anymail's webhook views becomes the right events on the right email."""

import json
import random
from base64 import b64encode
from copy import deepcopy

import anymail
import pytest
from django.utils import timezone

from celery_mailer.models import Event, ProviderMessage, Suppression
from celery_mailer.tracking.events import match_parked
from celery_mailer.values import EventKind
from tests.factories import make_email, stored
from tests.test_events import doubtful, feedback
from tests.webhooks import ESPS, EVENTS, SECRETS, TO, URL

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.urls("tests.webhook_urls"),
    pytest.mark.filterwarnings("ignore:django-anymail has dropped official support for SendGrid"),
]
BASIC = "Basic " + b64encode(SECRETS["WEBHOOK_SECRET"].encode()).decode()
SAMPLES = pytest.mark.parametrize(("esp", "kind", "bounce"), EVENTS, ids=map("-".join, EVENTS))


@pytest.fixture(autouse=True)
def secrets(settings):
    settings.ANYMAIL = SECRETS


@pytest.fixture
def post(client):
    """Post an ESP's payload as it does; returns the response's status."""

    def post(esp, payload, auth=BASIC, **changed):
        path, body, mime, headers = ESPS[esp][0](payload)
        headers = {**headers, **({"Authorization": auth} if auth else {}), **changed}
        url = f"/anymail/{path}"
        return client.post(url, body, content_type=mime, headers=headers, secure=True).status_code

    return post


def known(esp, email=None):
    """An email that this ESP has taken."""
    email = email or make_email()
    ProviderMessage.objects.create(email=email, provider="default", message_id=ESPS[esp][1])
    return email


def payload_of(esp, kind, bounce):
    return deepcopy(EVENTS[esp, kind, bounce](ESPS[esp][1]))


@SAMPLES
def test_a_payload_becomes_an_event_of_its_email(post, esp, kind, bounce):
    email = known(esp)
    assert post(esp, payload_of(esp, kind, bounce)) == 200
    event = Event.objects.get()
    assert (event.email, event.kind, event.bounce, event.recipient) == (email, kind, bounce, TO)
    assert event.at.isoformat() == "2026-05-01T12:00:00+00:00"
    assert event.url == (URL if kind == "clicked" else "")


@SAMPLES
def test_a_payload_that_comes_twice_is_one_event(post, esp, kind, bounce):
    known(esp)
    for _ in range(2):
        assert post(esp, payload_of(esp, kind, bounce)) == 200
    assert Event.objects.count() == 1


@SAMPLES
def test_a_payload_that_comes_before_the_commit_is_matched_later(post, esp, kind, bounce):
    assert post(esp, payload_of(esp, kind, bounce)) == 200
    assert Event.objects.get().email is None
    email = known(esp)
    Event.objects.update(match_at=timezone.now())
    match_parked(10)
    assert Event.objects.get().email == email


@pytest.mark.parametrize("esp", ESPS)
def test_payloads_add_up_to_the_same_in_any_order(post, esp):
    kinds = [k for k in EVENTS if k[0] == esp and k[1] in ("deferred", "delivered", "opened", "clicked")]
    email = known(esp)
    random.shuffle(kinds)
    for key in kinds:
        assert post(esp, payload_of(*key)) == 200
    row = feedback(email)
    assert row.open_count == row.click_count == 1
    assert row.opened_at is not None
    assert row.clicked_at is not None


@pytest.mark.parametrize("esp", ESPS)
@pytest.mark.parametrize("auth", [None, "Basic " + b64encode(b"user:guess").decode()], ids=["none", "wrong"])
def test_a_forged_payload_is_refused(post, esp, auth):
    known(esp)
    key = next(key for key in EVENTS if key[0] == esp)
    assert post(esp, payload_of(*key), auth=auth) in (400, 401)
    assert not Event.objects.exists()


@pytest.mark.parametrize(
    ("esp", "header"),
    [
        ("mailersend", "Signature"),
        pytest.param(
            "mailtrap",
            "Mailtrap-Signature",
            marks=pytest.mark.skipif(anymail.__version__ < "15.2", reason="Anymail checks it from 15.2 on"),
        ),
        ("mandrill", "X-Mandrill-Signature"),
    ],
)
def test_a_wrong_signature_is_refused(post, esp, header):
    known(esp)
    key = next(key for key in EVENTS if key[0] == esp)
    assert post(esp, payload_of(*key), **{header: "AAAA"}) == 400
    assert not Event.objects.exists()


@pytest.mark.parametrize("setting", ["MAILGUN_WEBHOOK_SIGNING_KEY", "UNISENDER_GO_API_KEY"])
def test_a_signature_in_the_body_is_checked(post, settings, setting):
    esp = "mailgun" if "MAILGUN" in setting else "unisender_go"
    settings.ANYMAIL = SECRETS | {setting: "another"}
    assert post(esp, payload_of(esp, "opened", "")) == 400
    assert not Event.objects.exists()


def test_every_esp_has_samples_of_most_kinds():
    assert len(ESPS) == 12
    for esp in ESPS:
        kinds = {kind for name, kind, _ in EVENTS if name == esp}
        assert {"bounced", "complained", "opened", "clicked"} <= kinds <= set(EventKind)


def test_a_hard_bounce_suppresses(post):
    known("postmark")
    post("postmark", payload_of("postmark", "bounced", "hard"))
    assert Suppression.objects.get().address == TO


def test_a_payload_ends_a_doubt(post):
    email = known("postmark", doubtful())
    post("postmark", payload_of("postmark", "delivered", ""))
    assert stored(email).status == "sent"


def test_of_several_recipients_resend_does_not_say_who(post):
    known("resend", make_email(to=[TO, "b@example.com"]))
    payload = payload_of("resend", "bounced", "hard")
    payload["data"]["to"].append("b@example.com")
    assert post("resend", payload) == 200
    assert Event.objects.get().recipient == ""
    assert not Suppression.objects.exists()


def test_of_several_recipients_ses_does_not_say_who_opened(post):
    known("amazon_ses", make_email(to=[TO, "b@example.com"]))
    payload = payload_of("amazon_ses", "opened", "")
    payload["mail"]["destination"].append("b@example.com")
    assert post("amazon_ses", payload) == 200
    assert Event.objects.get().recipient == ""


def test_one_bounce_of_two_recipients_is_two_events(post):
    known("amazon_ses", make_email(to=[TO, "b@example.com"]))
    payload = payload_of("amazon_ses", "bounced", "hard")
    payload["bounce"]["bouncedRecipients"].append({"emailAddress": "b@example.com", "status": "5.1.1"})
    assert post("amazon_ses", payload) == 200
    assert set(Event.objects.values_list("recipient", flat=True)) == {TO, "b@example.com"}


def test_a_proxy_that_fetches_images_is_a_machine(post):
    known("brevo")
    payload = payload_of("brevo", "opened", "") | {"event": "proxy_open"}
    post("brevo", payload)
    assert Event.objects.get().machine


def test_that_an_esp_has_it_is_no_event(post):
    known("brevo")
    assert post("brevo", payload_of("brevo", "delivered", "") | {"event": "request"}) == 200
    assert not Event.objects.exists()


def test_what_an_esp_tells_without_a_time_is_known_again(post):
    known("brevo")
    payload = payload_of("brevo", "opened", "")
    del payload["ts_epoch"]
    for _ in range(2):
        post("brevo", json.loads(json.dumps(payload)))
    assert Event.objects.count() == 1


def test_an_email_of_which_the_esp_took_the_message_id_is_found_by_it(post):
    email = make_email()
    payload = payload_of("mailgun", "opened", "")
    payload["message"]["headers"]["message-id"] = email.message_id.strip("<>")
    post("mailgun", payload)
    assert Event.objects.get().email == email


def test_a_webhook_fails_when_the_event_cannot_be_stored(post, client, monkeypatch):
    def broken(happenings):
        raise RuntimeError

    monkeypatch.setattr("celery_mailer.tracking.receivers.record", broken)
    client.raise_request_exception = False
    assert post("brevo", payload_of("brevo", "opened", "")) == 500


WITH_METADATA = {
    "brevo": lambda payload, sent: payload | {"X-Mailin-custom": json.dumps(sent)},
    "mailgun": lambda payload, sent: payload | {"user-variables": sent},
    "mailjet": lambda payload, sent: payload | {"Payload": json.dumps(sent)},
    "mailtrap": lambda payload, sent: payload | {"custom_variables": sent},
    "mandrill": lambda payload, sent: payload | {"msg": payload["msg"] | {"metadata": sent}},
    "postmark": lambda payload, sent: payload | {"Metadata": sent},
    "sendgrid": lambda payload, sent: payload | sent,
}


@pytest.mark.parametrize("esp", WITH_METADATA)
def test_the_doubt_after_a_lost_answer_is_ended_by_the_id_that_went_along(post, esp):
    email = doubtful()
    payload = WITH_METADATA[esp](payload_of(esp, "opened", ""), {"mailer_email": str(email.pk)})
    assert post(esp, payload) == 200
    assert stored(email).status == "sent"


@pytest.mark.parametrize("sent", [{"mailer_email": "17"}, {"mailer_email": 17}, {"other": "x"}], ids=str)
def test_metadata_that_is_not_ours_names_no_email(post, sent):
    known("postmark")
    assert post("postmark", payload_of("postmark", "opened", "") | {"Metadata": sent}) == 200
    assert Event.objects.get().email is not None
