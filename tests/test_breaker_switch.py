"""The circuit breaker, opened and closed by a person."""

from datetime import timedelta

import pytest
from django.utils import timezone

from celery_mailer.deliver.breaker import Breakers, Held
from celery_mailer.deliver.breaker_switch import close_breaker, open_breaker
from celery_mailer.models import ProviderChange, ProviderState
from celery_mailer.models import transitions as t
from celery_mailer.models.pause import pause
from celery_mailer.models.provider import HELD
from celery_mailer.values import Outcome, Reply, Result
from tests.factories import make_email, stored
from tests.test_breaker import ALIAS, MINUTE, NOW, Clock

pytestmark = pytest.mark.django_db
OK = Result(Reply(Outcome.ACCEPTED))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breakers(clock):
    return Breakers(clock, lambda: 0.0)


def test_an_opened_breaker_lets_nothing_through_until_then(breakers, clock):
    open_breaker(ALIAS, NOW + MINUTE, "ada", breakers)
    assert isinstance(breakers.enter(ALIAS, 1), Held)
    clock.go_on(MINUTE)
    trial = breakers.enter(ALIAS, 5)
    assert trial.most == 1
    breakers.note(trial, OK)
    assert ProviderState.objects.get().state == "closed"


def test_the_log_names_who_did_it(breakers):
    open_breaker(ALIAS, NOW + MINUTE, "ada", breakers)
    close_breaker(ALIAS, "bob", breakers)
    told = ProviderChange.objects.order_by("pk").values_list("from_state", "to_state", "reason", "detail")
    assert list(told) == [
        ("closed", "open", "by_hand", "by ada"),
        ("open", "closed", "by_hand", "by bob"),
    ]


def test_a_closed_breaker_lets_a_few_through_at_first(breakers):
    open_breaker(ALIAS, NOW + MINUTE, "ada", breakers)
    close_breaker(ALIAS, "ada", breakers)
    assert breakers.enter(ALIAS, 1000).most == 10


def test_closing_what_is_closed_leaves_no_trace(breakers):
    close_breaker(ALIAS, "ada", breakers)
    assert not ProviderChange.objects.exists()


def test_what_a_trial_says_after_a_person_opened_it_does_not_count(breakers, clock):
    open_breaker(ALIAS, NOW, "ada", breakers)
    trial = breakers.enter(ALIAS, 1)
    open_breaker(ALIAS, NOW + MINUTE, "ada", breakers)
    breakers.note(trial, OK)
    assert ProviderState.objects.get().state == "open"


def test_what_waits_for_it_is_due_when_it_is_closed_and_a_pause_stays(breakers):
    later = timezone.now() + timedelta(minutes=30)
    waits, paused = make_email(), make_email()
    t.move([waits.pk], t.POSTPONE, reason=HELD, due_at=later)
    t.move([paused.pk], t.HOLD, reason="paused", due_at=later)
    pause("provider", ALIAS, "maintenance")
    close_breaker(ALIAS, "ada", breakers)
    assert stored(waits).due_at < later
    assert stored(paused).due_at == later
