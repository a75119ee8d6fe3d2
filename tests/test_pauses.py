"""Pauses: who is held, until when, at what cost, and how mail comes back."""

from datetime import timedelta
from uuid import UUID

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from celery_mailer.deliver.pauses import FRESH, Pauses
from celery_mailer.models import Decision, Email, Pause, ProviderState
from celery_mailer.models.pause import PAUSED, pause, paused_providers, resume
from celery_mailer.models.provider import HELD, State
from celery_mailer.models.transitions import CLAIM, DEFER, HOLD, POSTPONE, move
from celery_mailer.values import EmailRequest
from tests.factories import make_email, make_emails, stored

pytestmark = pytest.mark.django_db

NOW = timezone.now()
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
DUMMY = {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
PROVIDERS = {"first": DUMMY, "second": DUMMY}


@pytest.fixture(autouse=True)
def _two_providers(settings):
    tracking = {"BASE_URL": "https://mail.example.com"}
    settings.CELERY_MAILER = {"PROVIDERS": PROVIDERS, "ROUTES": ["first", "second"], "TRACKING": tracking}


def holding(email, now=NOW):
    return Pauses().holding(email, now)


def passing(now=NOW):
    return set(Email.objects.filter(Pauses().passing(now)))


def batch_email():
    from celery_mailer.enqueue import enqueue

    request = EmailRequest(to="a@example.com", subject="s", message="m")
    return enqueue([request], start=False, as_batch=True)[0]


def hold(email, until=None):
    move([email.pk], HOLD, reason=PAUSED, due_at=until or timezone.now() + MINUTE)
    return email


# Who is held.


def test_without_a_pause_nobody_is():
    email = make_email()
    assert holding(email) is None
    assert passing() == {email}


@pytest.mark.parametrize(
    ("kind", "name", "arguments"),
    [
        ("lane", "low", {"priority": "low"}),
        ("lane", "now", {"priority": "now"}),
        ("stream", "marketing", {"stream": "marketing"}),
        ("provider", "first", {"provider": "first"}),
    ],
)
def test_a_pause_holds_what_it_names_and_nothing_else(kind, name, arguments):
    held, free = make_email(**arguments), make_email()
    pause(kind, name, "why not")
    assert holding(held).reason == "why not"
    assert holding(free) is None
    assert passing() == {free}


def test_a_batch_is_held_alone():
    held, free, other = batch_email(), batch_email(), make_email()
    pause("batch", str(held.batch_id).upper(), "wrong price")
    assert holding(held).name == str(held.batch_id)
    assert holding(free) is holding(other) is None
    assert passing() == {free, other}


def test_mail_goes_by_another_provider_while_its_first_is_paused():
    email = make_email()
    pause("provider", "first", "moving")
    assert holding(email) is None
    assert passing() == {email}


def test_mail_is_held_when_all_its_providers_are_paused():
    email, free = make_email(), make_email(provider="first")
    pause("provider", "first", "moving", until=NOW + 5 * SECOND)
    pause("provider", "second", "moving", until=NOW + 9 * SECOND)
    assert holding(email).name == "first"  # whichever ends first
    assert passing() == set()
    assert passing(NOW + 6 * SECOND) == {email, free}


def test_what_goes_by_its_domain_is_left_to_the_gate(settings):
    settings.CELERY_MAILER = {
        "PROVIDERS": PROVIDERS,
        "ROUTES": ["first"],
        "DOMAIN_ROUTES": {"example.com": ["second"]},
    }
    by_domain, other = make_email(), make_email(to="a@other.example")
    pause("provider", "first", "moving")
    assert holding(by_domain) is None
    assert holding(other) is not None
    assert passing() == {by_domain, other}


def test_several_pauses_hold_together():
    make_email(priority="low")
    make_email(stream="marketing")
    free = make_email()
    pause("lane", "low", "a")
    pause("stream", "marketing", "b")
    assert passing() == {free}


def test_a_pause_ends_by_itself():
    email = make_email()
    pause("stream", email.stream, "maintenance", until=NOW + MINUTE)
    assert holding(email, NOW + 59 * SECOND) is not None
    assert holding(email, NOW + MINUTE) is None
    assert passing(NOW + MINUTE) == {email}


def test_held_mail_is_looked_at_after_a_minute_or_when_the_pause_ends():
    assert Pause(until=None).again_at(NOW) == NOW + MINUTE
    assert Pause(until=NOW + HOUR).again_at(NOW) == NOW + MINUTE
    assert Pause(until=NOW + SECOND).again_at(NOW) == NOW + SECOND


# What it costs.


def test_the_pauses_are_read_once_per_second(django_assert_num_queries):
    emails, pauses = make_emails(3), Pauses()
    with django_assert_num_queries(1):
        for email in emails:
            pauses.holding(email, NOW)
            pauses.passing(NOW + FRESH / 2)
    with django_assert_num_queries(1):
        pauses.holding(emails[0], NOW + FRESH)


def test_a_clock_that_is_set_back_does_not_keep_old_pauses(django_assert_num_queries):
    pauses = Pauses()
    pauses.of("lane", "low", NOW)
    with django_assert_num_queries(1):
        pauses.of("lane", "low", NOW - HOUR)


def test_what_was_read_can_be_forgotten():
    email, pauses = make_email(), Pauses()
    assert pauses.holding(email, NOW) is None
    pause("stream", email.stream, "x")
    assert pauses.holding(email, NOW) is None
    pauses.forget()
    assert pauses.holding(email, NOW) is not None


# By a person.


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("planet", "mars"),
        ("lane", "urgent"),
        ("stream", "nile"),
        ("provider", "pigeon"),
        ("batch", "17"),
        ("batch", "0192f3a0-7c1e-7a52-9d3b-5f0b8c6d2e41"),
        ("lane", ""),
    ],
)
def test_what_does_not_exist_cannot_be_paused(kind, name):
    with pytest.raises(ValidationError):
        pause(kind, name, "x")
    assert not Pause.objects.exists()


def test_a_reason_is_needed():
    with pytest.raises(ValidationError):
        pause("lane", "low", "")


def test_pausing_again_changes_the_reason_and_the_end():
    pause("lane", "low", "first", until=NOW, by="ada")
    again = pause("lane", "low", "second", by="bob")
    assert Pause.objects.get() == again
    assert (again.reason, again.until, again.by) == ("second", None, "bob")


def test_the_database_refuses_a_second_pause_of_the_same():
    pause("lane", "low", "x")
    with pytest.raises(IntegrityError), transaction.atomic():
        Pause.objects.create(kind="lane", name="low", reason="y")


def test_resuming_says_whether_there_was_a_pause():
    pause("lane", "low", "x")
    assert resume("lane", "low") is True
    assert resume("lane", "low") is False


def test_the_paused_providers():
    pause("provider", "first", "x")
    pause("provider", "second", "x", until=NOW)
    pause("lane", "low", "x")
    assert paused_providers(NOW) == {"first"}


# The way back.


def test_the_gate_holds_with_a_reason_that_a_person_can_read():
    email = hold(make_email())
    assert (stored(email).status, stored(email).reason) == ("deferred", "paused")
    assert stored(email).attempt_count == 0
    decision = Decision.objects.get(email=email)
    assert (decision.move, decision.reason, decision.until) == ("hold", "paused", stored(email).due_at)


def test_resuming_makes_what_was_held_due_now():
    pause("stream", "transactional", "x")
    email = hold(make_email())
    resume("stream", "transactional")
    assert stored(email).due_at <= timezone.now()


def test_resuming_leaves_retries_and_scheduled_mail_alone():
    retry, scheduled = make_email(), make_email(scheduled_at=timezone.now() + MINUTE)
    move([retry.pk], CLAIM, lease_until=timezone.now() + MINUTE)
    move([retry.pk], DEFER, reason="temporary", due_at=timezone.now() + MINUTE)
    pause("provider", "first", "x")
    resume("provider", "first")
    assert stored(retry).due_at > timezone.now()
    assert stored(scheduled).due_at > timezone.now()


@pytest.mark.parametrize(("how", "reason"), [(POSTPONE, HELD), (DEFER, "provider")])
def test_resuming_a_provider_lets_go_what_waited_for_it(how, reason):
    email = make_email()
    if how is DEFER:
        move([email.pk], CLAIM, lease_until=timezone.now() + MINUTE)
    move([email.pk], how, reason=reason, due_at=timezone.now() + 5 * MINUTE)
    ProviderState.objects.create(
        alias="first", state=State.OPEN, retry_at=timezone.now() + 5 * MINUTE, version=7
    )
    resume("provider", "first")
    assert stored(email).due_at <= timezone.now()
    state = ProviderState.objects.get()
    assert state.retry_at <= timezone.now()
    assert (state.state, state.version) == ("open", 8)


def test_a_pause_reads_as_what_it_is():
    batch = batch_email().batch_id
    assert isinstance(batch, UUID)
    assert str(pause("batch", str(batch), "wrong price")) == f"batch {batch}: wrong price"
