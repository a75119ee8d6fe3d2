"""Quiet hours: when they end, as a table, and what they do to mail that becomes due within them."""
# ruff: noqa: DTZ001 some times are those on the wall

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.test import override_settings
from django.utils import timezone
from hypothesis import assume, given
from hypothesis import strategies as st

from celery_mailer import conf
from celery_mailer.deliver import gate
from celery_mailer.deliver.slice import deliver_emails
from celery_mailer.models import Attempt, Decision, Email
from celery_mailer.models.transitions import WAKE, move
from celery_mailer.quiet import QuietHours
from tests.factories import make_email, make_emails, stored

BERLIN = ZoneInfo("Europe/Berlin")  # in 2030 an hour ahead of UTC, from March 31 to October 27 two
KOLKATA = ZoneInfo("Asia/Kolkata")
NIGHT, NOON, TWO = ("22:00", "07:00"), ("12:00", "14:30"), ("22:00", "02:30")


def hours(start, end):
    return QuietHours(time.fromisoformat(start), time.fromisoformat(end))


def utc(text):
    return datetime.fromisoformat(f"2030-{text}:00+00:00")


@pytest.mark.parametrize(
    ("quiet", "zone", "now", "until"),
    [
        # over midnight
        (NIGHT, BERLIN, "01-10T20:59", None),
        (NIGHT, BERLIN, "01-10T21:00", "01-11T06:00"),
        (NIGHT, BERLIN, "01-10T23:30", "01-11T06:00"),
        (NIGHT, BERLIN, "01-11T05:59", "01-11T06:00"),
        (NIGHT, BERLIN, "01-11T06:00", None),
        (NIGHT, BERLIN, "07-10T20:00", "07-11T05:00"),
        (NIGHT, BERLIN, "12-31T22:00", "01-01T06:00"),
        # within a day
        (NOON, BERLIN, "01-10T10:59", None),
        (NOON, BERLIN, "01-10T11:00", "01-10T13:30"),
        (NOON, BERLIN, "01-10T13:30", None),
        (NOON, KOLKATA, "01-10T08:00", "01-10T09:00"),
        (("00:00", "06:00"), UTC, "01-10T00:00", "01-10T06:00"),
        (("18:00", "00:00"), UTC, "01-10T23:59", "01-11T00:00"),
        (("18:00", "00:00"), UTC, "01-11T00:00", None),
        # the night that is an hour shorter: what begins at +1 ends at +2
        (NIGHT, BERLIN, "03-30T22:00", "03-31T05:00"),
        # and has no 02:30
        (TWO, BERLIN, "03-30T23:00", "03-31T01:30"),
        (TWO, BERLIN, "03-31T01:10", None),
        # the night that is an hour longer
        (NIGHT, BERLIN, "10-26T21:00", "10-27T06:00"),
        # and has two: both times 02:10 is quiet, and 02:40 is not
        (TWO, BERLIN, "10-27T00:10", "10-27T00:30"),
        (TWO, BERLIN, "10-27T00:40", None),
        (TWO, BERLIN, "10-27T01:10", "10-27T01:30"),
        (TWO, BERLIN, "10-27T01:40", None),
    ],
)
def test_when_they_end(quiet, zone, now, until):
    expected = utc(until) if until else None
    if until == "01-01T06:00":
        expected = expected.replace(year=2031)
    assert hours(*quiet).until(utc(now), zone) == expected


def test_without_time_zones_the_time_is_that_on_the_wall():
    night = hours(*NIGHT)
    assert night.until(datetime(2030, 1, 10, 23), BERLIN) == datetime(2030, 1, 11, 7)
    assert night.until(datetime(2030, 1, 10, 12), BERLIN) is None


@given(
    st.tuples(st.times(), st.times()).filter(lambda pair: pair[0] != pair[1]),
    st.datetimes(datetime(2029, 1, 1), datetime(2031, 1, 1)),
    st.sampled_from([BERLIN, KOLKATA, ZoneInfo("America/Sao_Paulo"), ZoneInfo("Australia/Lord_Howe")]),
)
def test_it_is_always_later_within_a_day_and_then_over(pair, now, zone):
    quiet, now = QuietHours(*pair), now.replace(tzinfo=UTC)
    until = quiet.until(now, zone)
    if until is not None:
        assert now < until <= now + timedelta(hours=25)
        # An end that this day's clock leaves out comes later, and may be within the next quiet hours.
        assume(until.astimezone(zone).time() == pair[1])
        # Only the second of two equal hours may be quiet again.
        assert quiet.until(until, zone) is None or until.astimezone(zone).fold != now.astimezone(zone).fold


# The settings.


@pytest.mark.parametrize(
    "given",
    ["22:00", ("22:00",), ("22:00", "7:00"), ("22:00", "24:00"), (22, 7), ("22:00", "22:00"), ("a", "b")],
)
def test_what_are_no_hours_is_a_fault(settings, given):
    settings.CELERY_MAILER = {"STREAMS": {"digest": {"QUIET_HOURS": given}}}
    (problem,) = conf.problems()
    assert problem.path == "CELERY_MAILER['STREAMS']['digest']['QUIET_HOURS']"
    assert "'22:00', '07:00'" in problem.hint


def test_hours_may_be_a_list(settings):
    settings.CELERY_MAILER = {"STREAMS": {"digest": {"QUIET_HOURS": ["22:00", "07:00"]}}}
    assert conf.get().streams["digest"].quiet_hours == hours(*NIGHT)


# The gate.


@pytest.fixture
def digest(settings):
    """A stream with quiet hours from now to in an hour or two, where the site is."""
    now = timezone.localtime(timezone.now(), timezone.get_default_timezone())
    start, end = f"{now:%H}:00", f"{now + timedelta(hours=2):%H}:00"
    settings.CELERY_MAILER = {"STREAMS": {"digest": {"QUIET_HOURS": (start, end)}, "loud": {}}}
    return hours(start, end)


@pytest.mark.django_db
@pytest.mark.parametrize("priority", ["now", "high", "medium", "low"])
def test_mail_of_the_stream_waits_until_they_end_whatever_its_priority(digest, priority, mailoutbox):
    asked = timezone.now() - timedelta(minutes=1)
    email = make_email(stream="digest", priority=priority, scheduled_at=asked)
    assert deliver_emails([email.pk]) == []
    now, row = timezone.now(), stored(email)
    assert (row.status, row.reason, row.due_at) == (
        "deferred",
        "quiet_hours",
        digest.until(now, timezone.get_default_timezone()),
    )
    assert (row.attempt_count, row.scheduled_at) == (0, asked)
    assert not Attempt.objects.exists()
    assert mailoutbox == []


@pytest.mark.django_db
def test_the_timeline_says_why_and_until_when(digest):
    email = make_email(stream="digest")
    deliver_emails([email.pk])
    decision = Decision.objects.get()
    assert (decision.move, decision.reason, decision.detail) == ("hold", "quiet_hours", str(digest))
    assert decision.until == stored(email).due_at


@pytest.mark.django_db
def test_all_that_waits_together_is_one_move(digest, django_assert_max_num_queries):
    ids = [email.pk for email in make_emails(20, stream="digest")]
    with django_assert_max_num_queries(4):
        deliver_emails(ids)
    assert Email.objects.values("due_at").distinct().count() == 1


@pytest.mark.django_db
def test_mail_of_other_streams_goes(digest, mailoutbox):
    deliver_emails([make_email(stream="loud").pk, make_email().pk])
    assert len(mailoutbox) == 2


@pytest.mark.django_db
def test_a_stream_that_is_no_longer_configured_is_not_quiet(digest):
    email = make_email(stream="digest")
    with override_settings(CELERY_MAILER={}):
        assert gate.not_in_quiet_hours(email, timezone.now()) is None


@pytest.mark.django_db
def test_in_the_morning_it_goes(settings, digest, mailoutbox):
    email = make_email(stream="digest")
    deliver_emails([email.pk])
    settings.CELERY_MAILER = {"STREAMS": {"digest": {}}}
    move([email.pk], WAKE, due_at=timezone.now())
    deliver_emails([email.pk])
    assert stored(email).status == "sending"
    assert len(mailoutbox) == 1


@pytest.mark.django_db
def test_mail_that_expires_in_the_night_is_not_sent_in_the_morning(digest):
    email = make_email(stream="digest", expires_at=timezone.now() + timedelta(minutes=5))
    deliver_emails([email.pk])
    due = stored(email).due_at
    assert gate.check(Email.objects.get(pk=email.pk), due).reason == "expired"
