"""Numbers from the tables: what waits and for how long, what became of the rest."""

from datetime import timedelta

import pytest
from django.utils import timezone

from celery_mailer import census
from celery_mailer.models import Email
from tests.factories import claim, make_email, make_emails

pytestmark = pytest.mark.django_db

NOW = timezone.now()
HOUR = timedelta(hours=1)
LEASE = timedelta(minutes=2)  # due after it: a message is under way


def age(email, **values):
    Email.objects.filter(pk=email.pk).update(**values)


def test_what_is_not_final_is_counted_by_lane_and_status():
    make_emails(2, priority="low")
    deferred, uncertain, sending = make_emails(3, priority="high")
    age(deferred, status="deferred")
    age(uncertain, status="uncertain", due_at=None)
    claim([sending])
    assert census.unfinished() == {
        "high": {"queued": 0, "sending": 1, "deferred": 1, "uncertain": 1},
        "medium": {"queued": 0, "sending": 0, "deferred": 0, "uncertain": 0},
        "low": {"queued": 2, "sending": 0, "deferred": 0, "uncertain": 0},
    }


def test_what_was_to_be_sent_now_is_of_the_high_lane():
    make_email(priority="now")
    assert census.unfinished()["high"]["queued"] == 1


def test_of_what_is_final_only_the_latest_is_counted():
    for hours in (1, 3):
        age(make_email(), status="sent", due_at=None, finished_at=NOW - hours * HOUR)
    assert census.finished(NOW - 2 * HOUR)["medium"] == {
        "sent": 1,
        "failed": 0,
        "expired": 0,
        "suppressed": 0,
        "cancelled": 0,
    }


def test_nothing_waits_for_no_time():
    assert census.oldest_due(NOW) == {"high": 0, "medium": 0, "low": 0}


def test_mail_that_nobody_has_tried_waits_since_it_was_queued():
    for hours in (1, 3):
        age(make_email(), created_at=NOW - hours * HOUR, due_at=NOW + LEASE)
    assert census.oldest_due(NOW)["medium"] == 3 * 3600


def test_mail_that_was_scheduled_waits_since_its_time():
    age(make_email(), created_at=NOW - 3 * HOUR, scheduled_at=NOW - HOUR, due_at=NOW + LEASE)
    assert census.oldest_due(NOW)["medium"] == 3600


def test_mail_whose_time_has_not_come_does_not_wait():
    age(make_email(), created_at=NOW - HOUR, scheduled_at=NOW + HOUR, due_at=NOW + HOUR)
    age(make_email(), status="deferred", created_at=NOW - HOUR, due_at=NOW + HOUR)
    assert census.oldest_due(NOW)["medium"] == 0


def test_mail_that_is_tried_again_waits_since_it_is_due():
    age(make_email(), status="deferred", created_at=NOW - 3 * HOUR, due_at=NOW - HOUR, attempt_count=1)
    assert census.oldest_due(NOW)["medium"] == 3600


def test_mail_under_way_after_a_failure_does_not_wait():
    age(make_email(), created_at=NOW - 3 * HOUR, due_at=NOW + LEASE, attempt_count=1)
    assert census.oldest_due(NOW)["medium"] == 0
