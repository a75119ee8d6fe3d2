"""An email is found again by the id that its provider gave it, which is what the provider's events say."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from celery_mailer.deliver.slice import deliver_emails
from celery_mailer.log.settle import settle_emails
from celery_mailer.models import Attempt, ProviderMessage
from celery_mailer.models.attempt import LONGEST_ID, by_provider_message_id, record
from celery_mailer.values import Outcome, uuid7
from tests.conftest import leave_the_outbox
from tests.factories import make_email
from tests.servers.esp import EspServer

pytestmark = pytest.mark.django_db

MANDRILL = [
    {"email": "a@example.com", "status": "sent", "_id": "id-a"},
    {"email": "b@example.com", "status": "queued", "_id": "id-b"},
]
MAILGUN = {"id": "<id-1>", "message": "Queued. Thank you."}


def fact(email, *message_ids, provider="esp"):
    now = timezone.now()
    made = Attempt(
        email_id=getattr(email, "pk", email),
        claim=uuid7(),
        provider=provider,
        started_at=now,
        finished_at=now,
        outcome=Outcome.ACCEPTED,
    )
    made.message_ids = set(message_ids)
    return made


def send(settings, module, body, **arguments):
    """An email after it was handed over to an ESP that answers with ``body``."""
    with EspServer((200, body)) as server:
        options = {"api_key": "k", "api_url": server.url}
        entry = {"BACKEND": f"anymail.backends.{module}.EmailBackend", "OPTIONS": options}
        settings.CELERY_MAILER = {"PROVIDERS": {"esp": entry}}
        leave_the_outbox(settings)
        email = make_email(**arguments)
        deliver_emails([email.pk])
    return email


def test_an_esps_id_for_all_recipients_names_the_email(settings):
    email = send(settings, "mailgun", MAILGUN, to=["a@example.com", "b@example.com"])
    assert by_provider_message_id("esp", "<id-1>") == email.pk
    assert email.provider_messages.count() == 1


def test_each_of_an_esps_ids_for_one_recipient_names_the_email(settings):
    email = send(settings, "mandrill", MANDRILL, to=["a@example.com", "b@example.com"])
    assert by_provider_message_id("esp", "id-a") == by_provider_message_id("esp", "id-b") == email.pk


def test_an_email_whose_attempts_are_not_kept_is_found_all_the_same(settings):
    email = send(settings, "mailgun", MAILGUN, log_level=0)
    settle_emails([email.pk])
    assert not email.attempts.exists()
    assert by_provider_message_id("esp", "<id-1>") == email.pk


def test_an_id_that_nobody_gave_names_none():
    assert by_provider_message_id("esp", "id-1") is None


def test_two_providers_with_one_id_do_not_mix():
    mine, other = make_email(), make_email()
    record([fact(mine, "id-1"), fact(other, "id-1", provider="other")])
    assert by_provider_message_id("esp", "id-1") == mine.pk
    assert by_provider_message_id("other", "id-1") == other.pk


def test_of_two_emails_with_one_id_the_last_is_meant():
    first, last = make_email(), make_email()
    record([fact(first, "id-1")])
    record([fact(last, "id-1")])
    assert by_provider_message_id("esp", "id-1") == last.pk


def test_what_is_recorded_twice_is_there_once():
    facts = [fact(make_email(), "id-1")]
    record(facts)
    record(facts)
    assert ProviderMessage.objects.count() == 1


def test_an_id_longer_than_its_column_is_found_by_what_is_kept():
    email = make_email()
    record([fact(email, "x" * (LONGEST_ID + 1))])
    assert by_provider_message_id("esp", "x" * (LONGEST_ID + 1)) == email.pk


@pytest.mark.django_db(transaction=True)
def test_the_id_of_an_email_that_is_gone_takes_no_other_with_it():
    email = make_email()
    record([fact(uuid7(), "id-1"), fact(email, "id-2")])
    assert ProviderMessage.objects.get().email_id == email.pk


def test_a_provider_without_ids_costs_no_query():
    facts = [fact(make_email()) for _ in range(3)]
    with CaptureQueriesContext(connection) as queries:
        record(facts)
    assert len([q for q in queries if "INSERT" in q["sql"]]) == 1
    assert not [q for q in queries if ProviderMessage._meta.db_table in q["sql"]]


def test_ids_go_with_their_email():
    email = make_email()
    record([fact(email, "id-1")])
    email.delete()
    assert by_provider_message_id("esp", "id-1") is None
