"""What Prometheus reads."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.test import RequestFactory
from django.utils import timezone
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from celery_mailer import metrics
from celery_mailer.models import Email, ProviderState
from celery_mailer.models.pause import pause
from celery_mailer.values import uuid7
from tests.factories import make_attempt, make_email, make_emails
from tests.servers import databases
from tests.site import Site

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


@pytest.fixture
def clock():
    class Clock:
        now = NOON

    return Clock


@pytest.fixture
def scrape(clock):
    """What one process tells; it remembers what it has counted."""
    registry = CollectorRegistry()
    registry.register(metrics.MailerCollector(clock=lambda: clock.now))
    return lambda metric, /, **labels: registry.get_sample_value(f"celery_mailer_{metric}", labels)


def finished(at, status="sent", took=SECOND, **arguments):
    email = make_email(**arguments)
    Email.objects.filter(pk=email.pk).update(
        status=status, due_at=None, finished_at=at, created_at=at - took, scheduled_at=None
    )
    return email


def attempted(at, **values):
    first = metrics._first_id(at)
    make_attempt(make_email(), uuid7(), id=UUID(int=first.int + uuid7().int % 2**62), **values)


def sent(scrape):
    return scrape("emails_finished_total", lane="medium", stream="transactional", status="sent")


def test_what_waits_is_a_gauge_by_lane_and_status(scrape):
    make_emails(3, priority="low")
    assert scrape("emails", lane="low", status="queued") == 3
    assert scrape("emails", lane="high", status="queued") == 0


def test_the_age_of_the_oldest_due_email_is_a_gauge(scrape, clock):
    make_email()
    Email.objects.update(created_at=NOON - HOUR, due_at=NOON)
    assert scrape("oldest_due_age_seconds", lane="medium") == 3600
    assert scrape("oldest_due_age_seconds", lane="low") == 0


def test_a_provider_that_is_left_alone_is_down(scrape):
    assert scrape("provider_up", provider="default") == 1
    ProviderState.objects.create(alias="default", state="open", retry_at=timezone.now())
    assert scrape("provider_up", provider="default") == 0


def test_what_is_paused_is_told(scrape):
    pause("lane", "low", "r")
    assert scrape("paused", kind="lane", name="low") == 1
    assert scrape("paused", kind="lane", name="high") is None


def test_outcomes_are_counted_by_lane_stream_and_status(scrape):
    finished(NOON - HOUR, stream="marketing", priority="low")
    finished(NOON - HOUR, status="failed")
    assert scrape("emails_finished_total", lane="low", stream="marketing", status="sent") == 1
    assert scrape("emails_finished_total", lane="medium", stream="transactional", status="failed") == 1


def test_attempts_are_counted_by_provider_outcome_and_kind(scrape):
    attempted(NOON - HOUR)
    attempted(NOON - HOUR, outcome="deferred", kind="connection", provider="ses")
    attempted(NOON - 24 * HOUR)
    assert scrape("attempts_total", provider="default", outcome="accepted", kind="") == 1
    assert scrape("attempts_total", provider="ses", outcome="deferred", kind="connection") == 1


def test_a_counter_goes_on_from_scrape_to_scrape(scrape, clock):
    finished(NOON - HOUR)
    assert sent(scrape) == 1
    finished(NOON - SECOND)
    assert sent(scrape) == 2
    clock.now += HOUR
    finished(NOON + 30 * MINUTE)
    assert sent(scrape) == 3
    assert sent(scrape) == 3


def test_what_is_committed_late_is_counted(scrape, clock):
    assert sent(scrape) is None
    finished(NOON - 30 * SECOND)
    clock.now += 20 * SECOND
    assert sent(scrape) == 1


def test_every_process_counts_the_same(scrape, clock):
    finished(NOON - HOUR)
    assert sent(scrape) == 1
    clock.now += HOUR
    finished(NOON + SECOND)
    other = CollectorRegistry()
    other.register(metrics.MailerCollector(clock=lambda: clock.now))
    labels = {"lane": "medium", "stream": "transactional", "status": "sent"}
    assert other.get_sample_value("celery_mailer_emails_finished_total", labels) == sent(scrape) == 2


def test_a_counter_begins_anew_each_day(scrape, clock):
    finished(NOON - HOUR)
    assert sent(scrape) == 1
    clock.now += 24 * HOUR
    finished(clock.now - HOUR)
    assert sent(scrape) == 1


def test_what_was_counted_is_not_read_again(scrape):
    finished(NOON - HOUR)
    sent(scrape)
    Email.objects.filter(finished_at__isnull=False).delete()
    assert sent(scrape) == 1


def test_the_delay_is_a_histogram(scrape):
    for took in (SECOND / 2, 3 * SECOND, 10 * MINUTE, 30 * HOUR):
        finished(NOON - HOUR, took=took)
    finished(NOON - HOUR, status="failed")
    bucket = "delivery_delay_seconds_bucket"
    found = [scrape(bucket, lane="medium", le=le) for le in ("1", "5", "300", "900", "21600", "+Inf")]
    assert found == [1, 2, 2, 3, 3, 4]
    assert scrape("delivery_delay_seconds_count", lane="medium") == 4
    assert scrape("delivery_delay_seconds_sum", lane="medium") == 0.5 + 3 + 600 + 30 * 3600


def test_the_delay_of_scheduled_mail_is_from_its_time(scrape):
    email = finished(NOON - HOUR, took=9 * HOUR)
    Email.objects.filter(pk=email.pk).update(scheduled_at=NOON - HOUR - SECOND)
    assert scrape("delivery_delay_seconds_sum", lane="medium") == 1


def test_the_view_is_what_prometheus_parses():
    make_email()
    response = metrics.metrics(RequestFactory().get("/metrics"))
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name for family in text_string_to_metric_families(response.content.decode())}
    assert {"celery_mailer_emails", "celery_mailer_oldest_due_age_seconds"} <= families


def test_the_view_only_answers_to_questions():
    assert metrics.metrics(RequestFactory().post("/metrics")).status_code == 405


def test_no_address_is_told():
    make_email(to="ann@example.com")
    assert b"ann" not in metrics.metrics(RequestFactory().get("/metrics")).content


@pytest.mark.parametrize(
    "database",
    [
        pytest.param(databases.postgres, marks=pytest.mark.postgres),
        pytest.param(databases.mariadb, marks=pytest.mark.mariadb),
    ],
)
def test_the_numbers_are_the_same_on_every_database(database):
    with database() as url:
        site = Site(url, "memory://", 25, "{'PROVIDERS': {'default': {'URL': 'simulator://'}}}")
        site.migrate()
        found = site.run("""
            from django.db.models import F
            from prometheus_client import CollectorRegistry
            from celery_mailer.mail import send
            from celery_mailer.metrics import MailerCollector
            from celery_mailer.models import Email
            send("a@example.com", subject="s", message="m", priority="now")
            Email.objects.update(created_at=F("finished_at") - timedelta(seconds=100))
            registry = CollectorRegistry()
            registry.register(MailerCollector())
            value = lambda name, **labels: registry.get_sample_value(f"celery_mailer_{name}", labels)
            result = [
                value("emails_finished_total", lane="high", stream="transactional", status="sent"),
                value("attempts_total", provider="default", outcome="accepted", kind=""),
                value("delivery_delay_seconds_bucket", lane="high", le="60"),
                value("delivery_delay_seconds_bucket", lane="high", le="300"),
                99 < value("delivery_delay_seconds_sum", lane="high") <= 100,
            ]
        """)
        site.close()
    assert found == [1, 1, 0, 1, True]
