"""What a slice may hand over now, and by which provider; what cannot go costs no claim and no attempt."""

from datetime import timedelta

import pytest
from django.utils import timezone

from celery_mailer.deliver.breaker import Held
from celery_mailer.deliver.plan import plan
from celery_mailer.models import Attempt, Decision, Email, ProviderState
from celery_mailer.models.pause import pause
from tests.conftest import leave_the_outbox, smtp_provider
from tests.factories import make_email, make_emails, stored

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE = timedelta(minutes=1)


@pytest.fixture
def configure(settings):
    """Two providers, of which the first has these rules; limits are kept in the database."""

    def configure(**rules):
        settings.CELERY_MAILER = {
            "PROVIDERS": {"first": smtp_provider(1, **rules), "second": smtp_provider(2)},
            "ROUTES": ["first", "second"],
        }
        leave_the_outbox(settings)

    return configure


def planned(emails, held=None, within=0.3):
    rows = [Email.objects.select_related("content").get(pk=e.pk) for e in emails]
    return plan(rows, {} if held is None else held, within)


def ways(found):
    return [(ready.email.pk, ready.alias, ready.recipients) for ready in found.ready]


def test_an_email_goes_by_the_first_of_its_routes_to_all_its_recipients(configure):
    configure()
    email = make_email(to=["Ann <a@example.com>"], cc=["b@example.com"], bcc=["a@example.com"])
    assert ways(planned([email])) == [(email.pk, "first", ["a@example.com", "b@example.com"])]


def test_a_provider_that_is_held_is_passed_over(configure):
    configure()
    (email,) = make_emails(1)
    found = planned([email], {"first": Held(timezone.now() + MINUTE)})
    assert [ready.alias for ready in found.ready] == ["second"]


def test_a_breaker_that_is_open_is_passed_over_before_anything_is_claimed(configure):
    configure()
    ProviderState.objects.create(alias="first", state="open", retry_at=timezone.now() + MINUTE)
    assert [ready.alias for ready in planned(make_emails(2)).ready] == ["second", "second"]


def test_what_has_no_provider_left_waits_for_the_first_that_may_be_used_again(configure):
    configure()
    emails = make_emails(2)
    soon = timezone.now() + MINUTE
    found = planned(emails, {"first": Held(soon + MINUTE), "second": Held(soon)})
    assert found.ready == []
    for email in emails:
        assert (stored(email).status, stored(email).reason, stored(email).due_at) == (
            "deferred",
            "provider_open",
            soon,
        )
        assert stored(email).attempt_count == 0
    assert not Attempt.objects.exists()


def test_a_paused_provider_is_passed_over(configure):
    configure()
    pause("provider", "first", "maintenance")
    assert [ready.alias for ready in planned(make_emails(1)).ready] == ["second"]


def test_a_named_provider_is_not_replaced(configure):
    configure()
    email = make_email(provider="first")
    planned([email], {"first": Held(timezone.now() + MINUTE)})
    assert stored(email).status == "deferred"


def test_what_is_over_the_quota_is_told_when_to_come_and_which_limit_it_was(configure):
    configure(DAILY_QUOTA=2)
    emails = make_emails(5, provider="first")
    found = planned(emails)
    assert [ready.email.pk for ready in found.ready] == [e.pk for e in emails[:2]]
    waiting = [stored(e) for e in emails[2:]]
    assert {(e.status, e.reason, e.attempt_count) for e in waiting} == {("deferred", "throttled", 0)}
    assert all(timedelta(hours=22) < e.due_at - timezone.now() < timedelta(hours=26) for e in waiting)
    assert {d.detail for d in Decision.objects.all()} == {"first daily quota"}


def test_what_has_to_wait_a_moment_only_stays_as_it_is(configure):
    configure(RATE_LIMIT="2/s")
    emails = make_emails(4, provider="first")
    found = planned(emails, within=0.1)
    assert 1 <= len(found.ready) < 4
    assert found.soon == [e.pk for e in emails[len(found.ready) :]]
    assert found.again > 0
    assert {stored(e).status for e in emails} == {"queued"}
