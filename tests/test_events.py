"""What happened to emails is recorded once, in any order, and adds up."""

import itertools
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from celery_mailer import signals
from celery_mailer.log.settle import settle_emails
from celery_mailer.models import Decision, Event, Feedback, ProviderMessage
from celery_mailer.models.event import delete_unknown_events
from celery_mailer.models.transitions import DOUBT, move
from celery_mailer.periodic import match_events
from celery_mailer.tracking import events as events_module
from celery_mailer.tracking.events import Happening, match_parked, record
from celery_mailer.values import Bounce, EventKind
from tests.factories import claim, make_attempt, make_email, stored

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def happening(email, kind, at=NOON, **values):
    return Happening(kind, at, email_id=email.pk, **values)


def doubtful(**arguments):
    """An email of which nobody knows whether a provider has it."""
    email = make_email(**arguments)
    token = claim([email])
    assert move([email.pk], DOUBT, claim=token) == [email.pk]
    return email


def feedback(email):
    return Feedback.objects.get(email=email)


def test_an_event_is_a_row_that_names_its_email():
    email = make_email()
    assert record([happening(email, EventKind.DELIVERED, provider="ses", text="250 ok")]) == 1
    event = Event.objects.get()
    assert (event.email, event.kind, event.at, event.provider) == (email, "delivered", NOON, "ses")
    assert event.recipient == "a@example.com"


def test_nothing_is_recorded_of_nothing(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert record([]) == 0


def test_an_event_is_recorded_once_by_its_id():
    email = make_email()
    assert record([happening(email, EventKind.OPENED, event_id="1")]) == 1
    assert record([happening(email, EventKind.OPENED, NOON + timedelta(hours=1), event_id="1")]) == 0
    assert feedback(email).open_count == 1


def test_an_event_without_an_id_is_recorded_once_by_all_it_says():
    email = make_email()
    assert record([happening(email, EventKind.OPENED)] * 2) == 1
    assert record([happening(email, EventKind.OPENED)]) == 0
    assert record([happening(email, EventKind.OPENED, NOON + timedelta(seconds=1))]) == 1
    assert feedback(email).open_count == 2


def test_one_notice_about_two_recipients_is_two_events():
    email = make_email(to=["a@example.com", "b@example.com"])
    told = [happening(email, EventKind.DELIVERED, recipient=r, event_id="1") for r in email.to]
    assert record(told) == 2


def test_the_summary_is_the_same_in_any_order():
    told = [
        (EventKind.DELIVERED, NOON),
        (EventKind.OPENED, NOON + timedelta(minutes=1)),
        (EventKind.OPENED, NOON + timedelta(minutes=9)),
        (EventKind.CLICKED, NOON + timedelta(minutes=2)),
    ]
    seen = set()
    for order in itertools.permutations(told):
        email = make_email()
        for kind, at in order:
            record([happening(email, kind, at)])
        row = feedback(email)
        seen.add((row.delivered_at, row.opened_at, row.clicked_at, row.open_count, row.click_count))
    assert seen == {(NOON, NOON + timedelta(minutes=1), NOON + timedelta(minutes=2), 2, 1)}


def test_events_of_many_emails_are_added_up_together():
    emails = [make_email(), make_email()]
    record([happening(e, EventKind.OPENED, NOON + timedelta(hours=h)) for e in emails for h in (3, 1, 2)])
    assert [feedback(e).open_count for e in emails] == [3, 3]
    assert [feedback(e).opened_at for e in emails] == [NOON + timedelta(hours=1)] * 2


def test_an_open_before_sent_is_kept():
    email = make_email()
    record([happening(email, EventKind.OPENED)])
    assert stored(email).status == "queued"
    assert feedback(email).opened_at == NOON


def test_a_machine_is_recorded_and_not_counted():
    email = make_email()
    record([happening(email, EventKind.OPENED, machine=True)])
    assert Event.objects.get().machine
    assert not Feedback.objects.exists()


@pytest.mark.parametrize("name", ["message_id", "bare_message_id", "provider_message_id"])
def test_an_email_is_found_by_each_of_its_names(name):
    email = make_email()
    ProviderMessage.objects.create(email=email, provider="ses", message_id="ses-1")
    values = {
        "message_id": {"message_id": email.message_id},
        "bare_message_id": {"message_id": email.message_id.strip("<>")},
        "provider_message_id": {"provider_message_id": "ses-1"},
    }
    record([Happening(EventKind.DELIVERED, NOON, **values[name])])
    assert Event.objects.get().email == email


def test_an_email_that_is_gone_by_its_id_is_found_by_its_message_id():
    email = make_email()
    record([Happening(EventKind.DELIVERED, NOON, email_id=uuid4(), message_id=email.message_id)])
    assert Event.objects.get().email == email


def test_the_only_recipient_is_meant_wherever_the_mail_was_forwarded_to():
    email = make_email()
    record([happening(email, EventKind.BOUNCED, recipient="elsewhere@example.net", bounce=Bounce.HARD)])
    assert Event.objects.get().recipient == "a@example.com"


def test_of_several_recipients_the_one_that_was_named_is_meant():
    email = make_email(to=["a@example.com", "b@example.com"])
    record([happening(email, EventKind.DELIVERED, recipient="B@EXAMPLE.com")])
    assert Event.objects.get().recipient == "b@example.com"


def test_an_event_that_comes_before_its_email_is_matched_later():
    pk = uuid4()
    record([Happening(EventKind.OPENED, NOON, email_id=pk)])
    event = Event.objects.get()
    assert event.email is None
    email = make_email()
    Event.objects.update(named_email=email.pk, match_at=timezone.now())
    assert match_parked(10) == 1
    assert Event.objects.get().email == email
    assert feedback(email).opened_at == NOON
    assert match_parked(10) == 0


def test_a_parked_event_is_not_looked_for_before_its_time():
    record([Happening(EventKind.OPENED, NOON, email_id=uuid4())])
    assert match_parked(10) == 0


def test_an_event_is_looked_for_ever_more_rarely_and_in_the_end_no_more():
    record([Happening(EventKind.OPENED, NOON, email_id=uuid4())])
    now = timezone.now()
    Event.objects.update(match_at=now, received_at=now - timedelta(hours=2))
    match_parked(10)
    assert Event.objects.get().match_at - now > timedelta(hours=1)
    Event.objects.update(match_at=now, received_at=now - timedelta(days=2))
    match_parked(10)
    assert Event.objects.get().match_at is None


def test_an_event_that_names_no_email_is_kept_and_not_looked_for():
    record([Happening(EventKind.COMPLAINED, NOON, "who@example.com")])
    assert Event.objects.get().match_at is None


def test_unknown_events_go_by_the_retention():
    record([Happening(EventKind.COMPLAINED, NOON, "who@example.com")])
    record([Happening(EventKind.OPENED, NOON, email_id=uuid4())])
    assert delete_unknown_events(timezone.now(), 10) == 1
    assert Event.objects.get().kind == "opened"


def test_events_go_with_their_email():
    email = make_email()
    record([happening(email, EventKind.OPENED)])
    email.delete()
    assert not Event.objects.exists()
    assert not Feedback.objects.exists()


@pytest.mark.parametrize("kind", [k for k in EventKind if k != EventKind.REJECTED])
def test_what_a_provider_has_is_no_longer_uncertain(kind):
    email = doubtful()
    record([happening(email, kind, provider="ses")])
    assert (stored(email).status, stored(email).reason) == ("sent", "event")
    assert Decision.objects.get(move="confirm").detail == f"{kind}, says ses"


def waiting_for_a_second_copy(**arguments):
    email = make_email(**arguments)
    make_attempt(email, claim([email]), "uncertain", kind="no_answer")
    settle_emails([email.pk])
    assert stored(email).status == "deferred"
    return email


def test_what_a_provider_has_is_not_sent_again():
    email = waiting_for_a_second_copy()
    record([happening(email, EventKind.DELIVERED, provider="ses")])
    assert (stored(email).status, stored(email).reason) == ("sent", "event")
    assert Decision.objects.get(move="taken").detail == "delivered, says ses"


def test_what_waits_after_a_refusal_is_still_sent():
    email = make_email()
    make_attempt(email, claim([email]), "deferred", kind="temporary")
    settle_emails([email.pk])
    record([happening(email, EventKind.OPENED)])
    assert stored(email).status == "deferred"


@pytest.mark.parametrize(("about", "status"), [("a@example.com", "deferred"), ("b@example.com", "sent")])
def test_an_event_says_nothing_of_the_recipients_who_are_in_doubt_but_it_names_another(about, status):
    email = make_email(to=["a@example.com", "b@example.com"])
    token = claim([email])
    replies = {"a@example.com": ["accepted", "", 250], "b@example.com": ["uncertain", "no_answer", None]}
    make_attempt(email, token, "uncertain", kind="no_answer", recipients=replies)
    settle_emails([email.pk])
    record([happening(email, EventKind.DELIVERED, recipient=about)])
    assert stored(email).status == status


def test_what_a_provider_refused_to_send_has_failed():
    email = doubtful()
    record([happening(email, EventKind.REJECTED, provider="ses")])
    assert stored(email).status == "failed"


def test_one_recipient_that_was_refused_says_nothing_of_the_others():
    email = doubtful(to=["a@example.com", "b@example.com"])
    record([happening(email, EventKind.REJECTED, recipient="b@example.com")])
    assert stored(email).status == "uncertain"


def test_what_was_matched_late_ends_the_doubt_too():
    email = doubtful()
    record([Happening(EventKind.OPENED, NOON, email_id=uuid4())])
    Event.objects.update(named_email=email.pk, match_at=timezone.now())
    match_parked(10)
    assert stored(email).status == "sent"


@pytest.mark.parametrize("kind", EventKind)
def test_each_kind_has_its_signal(kind, django_capture_on_commit_callbacks):
    email, heard = make_email(), []
    name = {"deferred": "delayed"}.get(kind.value, kind.value)
    signal = getattr(signals, f"email_{name}")

    def listen(events, **kwargs):
        heard.extend((event.kind, event.email) for event in events)

    signal.connect(listen)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            record([happening(email, kind)])
            record([happening(email, kind)])
    finally:
        signal.disconnect(listen)
    assert heard == [(kind, email)]


def test_a_slice_of_events_costs_few_queries(django_assert_max_num_queries):
    emails = [make_email() for _ in range(20)]
    told = [happening(e, EventKind.DELIVERED) for e in emails]
    with django_assert_max_num_queries(30):
        assert record(told) == 20


def test_words_of_a_server_are_cut():
    email = make_email()
    record([happening(email, EventKind.BOUNCED, text="x" * 5000)])
    assert len(Event.objects.get().text) == events_module.LONGEST_TEXT


@pytest.mark.parametrize("odd", ["\ud800", "\0"], ids=["half a pair", "NUL"])
def test_words_that_no_database_stores_are_cleaned(odd):
    email, word = make_email(to=["a@example.com", "b@example.com"]), f"x{odd}y"
    values = {"recipient": f"{word}@example.com", "text": word, "url": word, "provider_message_id": word}
    told = [
        happening(email, EventKind.BOUNCED, event_id=word, **values),
        Happening(EventKind.BOUNCED, NOON, message_id=word, event_id="2", **values),
    ]
    assert record(told) == 2
    assert record(told) == 0
    for event in Event.objects.all():
        stored_as = [event.recipient, event.text, event.url, event.named_message_id]
        assert odd not in "".join(stored_as)


def test_a_doubt_that_comes_after_the_event_is_none():
    email = make_email()
    token = claim([email])
    record([happening(email, EventKind.DELIVERED)])
    make_attempt(email, token, "uncertain", kind="no_answer")
    settle_emails([email.pk])
    assert (stored(email).status, stored(email).reason) == ("sent", "event")


def test_a_rejection_before_the_doubt_leaves_it():
    email = make_email(stream="marketing")
    token = claim([email])
    record([happening(email, EventKind.REJECTED)])
    make_attempt(email, token, "uncertain", kind="no_answer")
    settle_emails([email.pk])
    assert stored(email).status == "uncertain"


def test_the_periodic_job_says_how_many_events_it_looked_at():
    record([Happening(EventKind.OPENED, NOON, email_id=uuid4())])
    Event.objects.update(match_at=timezone.now())
    assert match_events() == {"looked_for": 1}
