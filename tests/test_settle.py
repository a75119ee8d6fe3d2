from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from celery_mailer.log.settle import settle_emails
from celery_mailer.models import Attempt, Decision, ProviderState
from celery_mailer.models.pause import pause
from celery_mailer.models.provider import State
from celery_mailer.models.transitions import WAKE, move
from tests.factories import claim, make_attempt, make_email, make_emails, stored

pytestmark = pytest.mark.django_db

NONE = timedelta(0)


def settled(outcome, *, email=None, **values):
    """An email after one attempt with ``outcome`` was judged."""
    email = email or make_email()
    make_attempt(email, claim([email]), outcome, **values)
    settle_emails([email.pk])
    return stored(email)


def test_accepted_is_sent():
    email = settled("accepted")
    assert (email.status, email.reason, email.attempt_count) == ("sent", "", 1)


def test_accepted_with_a_refused_recipient_is_sent_and_says_so():
    people = {"a@x.example": ["accepted", 250, ""], "b@x.example": ["rejected", 550, "no such user"]}
    email = settled("accepted", recipients=people)
    assert (email.status, email.reason) == ("sent", "partly_rejected")


def test_rejected_is_failed_with_the_kind():
    email = settled("rejected", kind="recipient")
    assert (email.status, email.reason) == ("failed", "recipient")


def test_deferred_waits_for_the_policys_time():
    email = settled("deferred", kind="temporary")
    assert (email.status, email.reason, email.attempt_count) == ("deferred", "temporary", 1)
    assert timedelta(seconds=25) < email.due_at - timezone.now() < timedelta(seconds=50)


def test_deferred_waits_for_as_long_as_the_provider_asked():
    email = settled("deferred", kind="temporary", retry_after=timedelta(hours=3))
    assert timedelta(hours=2.9) < email.due_at - timezone.now() <= timedelta(hours=3)


def test_one_email_that_must_wait_for_longer_does_not_hold_up_the_others():
    long, short = make_emails(2)
    token = claim([long, short])
    make_attempt(long, token, "deferred", kind="temporary", retry_after=timedelta(hours=3))
    make_attempt(short, token, "deferred", kind="temporary")
    settle_emails([long.pk, short.pk])
    assert stored(short).due_at - timezone.now() < timedelta(minutes=1)
    assert stored(long).due_at - timezone.now() > timedelta(hours=2.9)


def test_given_up_is_uncertain_if_an_earlier_attempt_may_have_reached_somebody(settings):
    settings.CELERY_MAILER = {"RETRY": {"MAX_ATTEMPTS": 2}}
    email = settled("uncertain", kind="no_answer")
    assert email.status == "deferred"
    assert move([email.pk], WAKE, due_at=timezone.now()) == [email.pk]
    email = settled("deferred", kind="temporary", email=email)
    assert (email.status, email.reason) == ("uncertain", "gave_up")


def test_a_fault_of_the_providers_costs_no_attempt():
    email = settled("deferred", kind="provider")
    assert (email.status, email.attempt_count) == ("deferred", 0)


def test_the_last_attempt_gives_up(settings):
    settings.CELERY_MAILER = {"RETRY": {"MAX_ATTEMPTS": 1}}
    email = settled("deferred", kind="temporary")
    assert (email.status, email.reason) == ("failed", "gave_up")


def test_giving_up_after_somebody_got_it_is_not_failed(settings):
    settings.CELERY_MAILER = {"RETRY": {"MAX_ATTEMPTS": 1}}
    people = {"a@x.example": ["accepted", 250, ""], "b@x.example": ["deferred", 451, "later"]}
    email = settled("deferred", kind="temporary", recipients=people)
    assert (email.status, email.reason) == ("sent", "partly_given_up")


def test_an_earlier_attempts_acceptance_counts(settings):
    settings.CELERY_MAILER = {"RETRY": {"MAX_ATTEMPTS": 2}}
    email = make_email()
    people = {"a@x.example": ["accepted", 250, ""], "b@x.example": ["deferred", 451, "later"]}
    settled("deferred", email=email, kind="temporary", recipients=people)
    move([email.pk], WAKE, due_at=timezone.now())
    email = settled("rejected", email=email, kind="recipient")
    assert (email.status, email.reason) == ("sent", "partly_rejected")


def test_uncertain_in_a_stream_that_resends_is_recorded_and_tried_again():
    email = settled("uncertain", kind="no_answer")
    assert (email.status, email.attempt_count) == ("deferred", 1)
    moves = Decision.objects.filter(email=email).order_by("id")
    assert [(d.move, d.status) for d in moves] == [("doubt", "uncertain"), ("resend", "deferred")]


def test_uncertain_in_a_stream_that_holds_is_held():
    email = settled("uncertain", email=make_email(stream="marketing"), kind="no_answer")
    assert (email.status, email.due_at) == ("uncertain", None)


def test_an_attempt_under_another_claim_is_not_judged():
    email = make_email()
    claim([email])
    make_attempt(email, email.pk)
    assert settle_emails([email.pk]) == 0
    assert stored(email).status == "sending"


def test_settling_twice_changes_nothing():
    email = make_email()
    make_attempt(email, claim([email]), "deferred", kind="temporary")
    assert settle_emails([email.pk]) == 1
    first = stored(email)
    assert settle_emails([email.pk]) == 0
    assert stored(email).due_at == first.due_at


def test_emails_of_one_slice_with_different_outcomes_go_different_ways():
    emails = make_emails(4)
    token = claim(emails)
    for email, outcome in zip(emails, ["accepted", "rejected", "deferred", "accepted"], strict=True):
        make_attempt(email, token, outcome, kind="" if outcome == "accepted" else "temporary")
    assert settle_emails([e.pk for e in emails]) == 4
    assert [stored(e).status for e in emails] == ["sent", "failed", "deferred", "sent"]


def test_what_was_deferred_together_comes_back_together():
    emails = make_emails(5)
    token = claim(emails)
    for email in emails:
        make_attempt(email, token, "deferred", kind="connection")
    settle_emails([e.pk for e in emails])
    assert len({stored(e).due_at for e in emails}) == 1


# Another provider.


@pytest.fixture
def routes(settings):
    dummy = {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
    aliases = ["first", "second", "third"]
    settings.CELERY_MAILER = {"PROVIDERS": dict.fromkeys(aliases, dummy), "ROUTES": aliases}


def failed(email, alias, outcome="deferred", kind="connection"):
    """``email`` after one more failure, and how long it waits from now on."""
    move([email.pk], WAKE, due_at=timezone.now())
    email = settled(outcome, email=stored(email), kind=kind, provider=alias)
    return email.due_at - timezone.now()


def open_breaker(alias):
    ProviderState.objects.create(alias=alias, state=State.OPEN, retry_at=timezone.now())


@pytest.mark.parametrize("kind", ["connection", "temporary", "provider", "throttled"])
def test_the_next_provider_takes_over_at_once(routes, kind):
    assert failed(make_email(), "first", kind=kind) <= NONE


def test_when_all_have_failed_the_policys_delay_comes_before_the_next_round(routes):
    email = make_email()
    waits = [failed(email, alias) > NONE for alias in ["first", "second", "third"] * 2]
    assert waits == [False, False, True] * 2


def test_without_another_route_it_waits(routes):
    assert failed(make_email(provider="first"), "first") > NONE


@pytest.mark.parametrize("kind", ["message", "no_answer"])
def test_what_may_have_been_taken_or_is_no_fault_of_the_providers_waits(routes, kind):
    assert failed(make_email(), "first", kind=kind) > NONE


def test_an_email_that_a_provider_may_have_is_not_handed_on(routes):
    email = make_email()
    failed(email, "first", outcome="uncertain", kind="no_answer")
    assert failed(email, "first") > NONE


def test_it_waits_when_no_other_can_be_used(routes):
    open_breaker("second")
    pause("provider", "third", "moving")
    assert failed(make_email(), "first") > NONE


def test_a_failure_without_a_count_goes_on_once_and_not_in_circles(routes):
    email = make_email()
    assert failed(email, "first", kind="provider") <= NONE
    assert failed(email, "first", kind="provider") > NONE


def test_what_is_handed_on_and_what_waits_are_told_apart_in_one_slice(routes):
    handed_on, waits = emails = [make_email(), make_email(provider="first")]
    token = claim(emails)
    for email in emails:
        make_attempt(email, token, "deferred", kind="connection", provider="first")
    settle_emails([e.pk for e in emails])
    assert stored(handed_on).due_at <= timezone.now() < stored(waits).due_at


@pytest.mark.parametrize("outcome", ["accepted", "rejected"])
def test_what_is_final_asks_nothing_about_other_providers(routes, outcome):
    email = make_email()
    make_attempt(email, claim([email]), outcome, kind="" if outcome == "accepted" else "recipient")
    with CaptureQueriesContext(connection) as queries:
        settle_emails([email.pk])
    assert not [q for q in queries if "providerstate" in q["sql"]]


# How much is kept.


@pytest.mark.parametrize(
    ("log_level", "outcome", "kept"),
    [(0, "accepted", 0), (0, "rejected", 0), (1, "accepted", 0), (1, "rejected", 1), (2, "accepted", 1)],
)
def test_the_log_level_says_which_attempts_are_kept(log_level, outcome, kept):
    settled(outcome, email=make_email(log_level=log_level), kind="" if outcome == "accepted" else "recipient")
    assert Attempt.objects.count() == kept


def test_attempts_are_kept_until_the_email_is_final():
    email = settled("deferred", email=make_email(log_level=0), kind="temporary")
    assert email.status == "deferred"
    assert Attempt.objects.count() == 1
