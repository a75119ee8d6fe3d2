"""Reputation: what is counted, from which shares on it is warned of or paused, and how it goes on."""

import logging
from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from celery_mailer import batches, conf, periodic, reputation
from celery_mailer.deliver.pauses import Pauses
from celery_mailer.enqueue import enqueue
from celery_mailer.log.settle import settle_emails
from celery_mailer.models import Alarm, Email, Figure, Pause
from celery_mailer.models.alarm import delete_old_alarms
from celery_mailer.models.figure import SLICE, Key, add, put, slice_of, sums
from celery_mailer.models.pause import pause, resume
from celery_mailer.reputation import WINDOW, Standing, Verdict, count, judge, watch
from celery_mailer.tracking.events import Happening, record
from celery_mailer.values import EmailRequest, Level, Measure, ReputationPolicy
from tests.factories import claim, make_attempt, make_email, make_emails

NOW = timezone.now().replace(minute=32, second=30, microsecond=0)
START = slice_of(NOW)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
RULES = ReputationPolicy(0.05, 0.1, 0.001, 0.003, 1000, True)
FEW = {
    "BOUNCES_WARN": 0.1,
    "BOUNCES_PAUSE": 0.2,
    "COMPLAINTS_WARN": 0.1,
    "COMPLAINTS_PAUSE": 0.3,
    "MINIMUM": 10,
}
TRACKING = {"BASE_URL": "https://mail.example.com"}


# The verdict.


@pytest.mark.parametrize(
    ("total", "bounces", "complaints", "expected"),
    [
        (0, 0, 0, None),
        (3, 1, 1, None),
        (999, 999, 999, None),
        (1000, 49, 0, None),
        (1000, 50, 0, Verdict(Level.WARN, Measure.BOUNCES)),
        (1000, 99, 0, Verdict(Level.WARN, Measure.BOUNCES)),
        (1000, 100, 0, Verdict(Level.PAUSE, Measure.BOUNCES)),
        (1000, 0, 1, Verdict(Level.WARN, Measure.COMPLAINTS)),
        (1001, 0, 1, None),
        (9000, 0, 26, Verdict(Level.WARN, Measure.COMPLAINTS)),
        (9000, 0, 27, Verdict(Level.PAUSE, Measure.COMPLAINTS)),
        (1000, 100, 1, Verdict(Level.PAUSE, Measure.BOUNCES)),
        (1000, 50, 3, Verdict(Level.PAUSE, Measure.COMPLAINTS)),
        (1000, 0, 5000, Verdict(Level.PAUSE, Measure.COMPLAINTS)),
    ],
)
def test_the_verdict(total, bounces, complaints, expected):
    assert judge(Standing(total, bounces, complaints), RULES) == expected


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_complaints_never_make_it_better(total, bounces, complaints):
    levels = [None, Level.WARN, Level.PAUSE]
    before, after = (judge(Standing(total, bounces, n), RULES) for n in (complaints, complaints + 1))
    assert levels.index(after and after.level) >= levels.index(before and before.level)


def test_the_rules_of_a_stream_go_over_those_of_the_project(settings):
    settings.CELERY_MAILER = {
        "REPUTATION": {"BOUNCES_WARN": 0.02, "MINIMUM": 50},
        "STREAMS": {"digest": {"REPUTATION": {"MINIMUM": 7}}},
    }
    policy = conf.get().reputation_policy("digest")
    assert (policy.bounces_warn, policy.minimum, policy.bounces_pause) == (0.02, 7, 0.1)
    assert conf.get().reputation_policy("of an earlier release").minimum == 50


def test_the_transactional_stream_is_not_paused_whatever_else_is_set_for_it(settings):
    settings.CELERY_MAILER = {"STREAMS": {"transactional": {"REPUTATION": {"MINIMUM": 7}}}}
    policy = conf.get().reputation_policy("transactional")
    assert (policy.pause_stream, policy.minimum) == (False, 7)


@pytest.mark.parametrize("share", [0, -1, 1.1, "5 %", True, float("nan")])
def test_what_is_no_share_is_a_fault(settings, share):
    settings.CELERY_MAILER = {"REPUTATION": {"BOUNCES_PAUSE": share}}
    (problem,) = conf.problems()
    assert problem.path == "CELERY_MAILER['REPUTATION']['BOUNCES_PAUSE']"
    assert problem.hint == "Give a share between 0 and 1."


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"REPUTATION": {"BOUNCES_WARN": 0.2}}, "['REPUTATION']['BOUNCES_WARN']"),
        ({"REPUTATION": {"COMPLAINTS_PAUSE": 0.0001}}, "['REPUTATION']['COMPLAINTS_WARN']"),
        (
            {"STREAMS": {"digest": {"REPUTATION": {"BOUNCES_PAUSE": 0.01}}}},
            "['STREAMS']['digest']['REPUTATION']['BOUNCES_WARN']",
        ),
    ],
)
def test_a_warning_that_comes_after_the_pause_is_a_fault(settings, sections, path):
    settings.CELERY_MAILER = sections
    (problem,) = conf.problems()
    assert problem.path == f"CELERY_MAILER{path}"


# What is counted.


pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _few(settings):
    settings.CELERY_MAILER = {"REPUTATION": FEW, "TRACKING": TRACKING, "STREAMS": {"news": {}}}


def ended(emails, at=NOW, status="sent", **values):
    values = {"status": status, "finished_at": at, "due_at": None, "lease_until": None, **values}
    Email.objects.filter(pk__in=[email.pk for email in emails]).update(**values)
    return list(Email.objects.filter(pk__in=[email.pk for email in emails]))


def batch_of(number, stream="news", at=NOW, sent=None):
    requests = [
        EmailRequest(to=f"u{i}@example.com", subject="s", message="m", stream=stream) for i in range(number)
    ]
    emails = enqueue(requests, as_batch=True, start=False)
    return emails[0].batch, ended(emails[:sent], at)


def figures(kind="stream"):
    rows = Figure.objects.filter(kind=kind, number__gt=0)
    return {(row.name, row.what, row.start): row.number for row in rows}


def happen(kind, emails, bounce="", **values):
    record(
        Happening(
            kind, values.pop("at", NOW), email_id=email.pk, bounce=bounce, event_id=uuid4().hex, **values
        )
        for email in emails
    )


def bounce(emails):
    happen("bounced", emails, "hard")


def complain(emails):
    happen("complained", emails)


def test_what_ended_is_counted_by_stream_status_and_slice():
    ended(make_emails(3, stream="news"))
    ended(make_emails(2))
    ended(make_emails(1), status="failed", reason="content")
    ended(make_emails(1), NOW - SLICE)
    make_email()
    assert count(NOW) == 2
    assert figures() == {
        ("news", "sent", START): 3,
        ("transactional", "sent", START): 2,
        ("transactional", "failed", START): 1,
        ("transactional", "sent", START - SLICE): 1,
    }


def test_the_emails_of_a_batch_count_for_it_too():
    batch, _ = batch_of(3, sent=2)
    count(NOW)
    assert figures("batch") == {(str(batch.pk), "sent", START): 2}
    assert figures() == {("news", "sent", START): 2}


def test_to_count_again_changes_nothing():
    ended(make_emails(2))
    count(NOW)
    before = figures()
    count(NOW)
    assert figures() == before


def test_what_comes_late_is_counted_with_the_slice_before():
    ended(make_emails(1))
    count(NOW)
    ended(make_emails(1), NOW + SLICE)
    ended(make_emails(4), NOW)  # committed after it was over
    count(NOW + SLICE)
    assert figures() == {("transactional", "sent", START): 5, ("transactional", "sent", START + SLICE): 1}


def test_slices_that_are_over_are_not_read_again():
    emails = ended(make_emails(1), NOW - HOUR)
    ended(make_emails(1), NOW)
    count(NOW)
    Email.objects.filter(pk=emails[0].pk).delete()
    ended(make_emails(5), NOW - HOUR)
    assert count(NOW) == 1
    assert figures()["transactional", "sent", START - HOUR] == 1


def test_after_a_long_time_it_goes_on_in_steps(monkeypatch):
    monkeypatch.setattr(reputation, "SLICES", 2)
    for n in range(4):
        ended(make_emails(1), NOW - n * HOUR)
    ended(make_emails(1), NOW - WINDOW - HOUR)  # too old to matter
    assert [count(NOW) for _ in range(4)] == [2, 2, 2, 1]
    assert len(figures()) == 4


def test_a_hard_bounce_and_a_complaint_count_where_their_email_does():
    emails = ended(make_emails(2, stream="news"), NOW - DAY)
    bounce(emails[:1])
    complain(emails[1:])
    assert figures() == {("news", "bounced", START - DAY): 1, ("news", "complained", START - DAY): 1}


def test_those_of_a_batch_count_for_it_too():
    batch, emails = batch_of(2)
    complain(emails)
    assert figures("batch") == {(str(batch.pk), "complained", START): 2}


def test_what_comes_before_its_email_is_final_counts_for_now():
    complain([make_email()])
    ((name, what, start),) = figures()
    assert (name, what) == ("transactional", "complained")
    assert start in (slice_of(timezone.now()), slice_of(timezone.now() - SLICE))


def test_an_email_that_bounces_twice_counts_once():
    emails = ended(make_emails(1))
    bounce([*emails, *emails])
    bounce(emails)
    assert list(figures().values()) == [1]


@pytest.mark.parametrize(
    ("kind", "how"), [("bounced", "soft"), ("bounced", ""), ("opened", ""), ("unsubscribed", "")]
)
def test_other_events_do_not_count(kind, how):
    happen(kind, ended(make_emails(1)), how)
    assert figures() == {}


def test_what_is_said_of_somebody_else_does_not_count():
    email = make_email(to=["a@example.com", "b@example.com"])
    happen("complained", ended([email]), recipient="mallory@example.com")
    assert figures() == {}


def test_on_a_staging_site_nothing_counts(settings):
    email = make_email()
    settings.CELERY_MAILER = {**settings.CELERY_MAILER, "OVERRIDE_RECIPIENTS": ["dev@example.com"]}
    complain(ended([email]))
    assert figures() == {}


@pytest.mark.parametrize(
    ("code", "text", "refused"),
    [(550, "5.1.1 no such user", 1), (550, "5.7.1 blocked by policy", 0)],
)
def test_a_recipient_that_a_server_does_not_know_is_counted_as_refused(code, text, refused):
    email = make_email()
    make_attempt(email, claim([email]), "rejected", kind="recipient", phase="rcpt", code=code, text=text)
    settle_emails([email.pk])
    count(timezone.now())
    numbers = sums("stream", {"transactional": None})["transactional"]
    assert (numbers["failed"], numbers["refused"]) == (1, refused)
    assert Standing.of(numbers) == Standing(refused, refused, 0)


def test_figures_are_added_and_put():
    key = Key("stream", "news", "sent", START)
    add({key: 2})
    add({key: 3})
    assert sums("stream", {"news": None}) == {"news": {"sent": 5}}
    put({key: 4})
    put({key: 4})
    assert sums("stream", {"news": None}) == {"news": {"sent": 4}}


def test_each_name_is_summed_from_its_own_time_on(django_assert_num_queries):
    for name in ("a", "b", "c"):
        put({Key("stream", name, "sent", START - n * HOUR): 10**n for n in range(3)})
    with django_assert_num_queries(1):
        found = sums("stream", {"a": START - HOUR, "b": START, "c": None})
    assert {name: numbers["sent"] for name, numbers in found.items()} == {"a": 11, "b": 1, "c": 111}


def test_cleanup_forgets_old_figures():
    put(
        {Key("stream", "news", "sent", timezone.now() - 91 * DAY): 1, Key("stream", "news", "sent", START): 1}
    )
    assert periodic.cleanup()["figures_deleted"] == 1
    assert list(figures()) == [("news", "sent", START)]


# What follows.


def news(number, at=None):
    return ended(make_emails(number, stream="news"), at or timezone.now() - HOUR)


def paused():
    return [(row.kind, row.name, row.by, row.reason) for row in Pause.objects.all()]


def alarms():
    return {(alarm.kind, alarm.name): alarm.level for alarm in Alarm.objects.exclude(level="")}


def test_a_stream_of_which_too_much_is_called_spam_is_paused():
    complain(news(20)[:6])
    assert watch() == {"slices": 1, "warned": 0, "paused": 1}
    assert paused() == [("stream", "news", "celery_mailer", "6 of 20 emails were called spam (30 %)")]
    assert alarms() == {("stream", "news"): "pause"}


def test_a_stream_of_which_too_much_comes_back_is_paused():
    bounce(news(20)[:4])
    watch()
    assert paused() == [("stream", "news", "celery_mailer", "4 of 20 emails came back (20 %)")]


def test_what_servers_refused_counts_as_come_back():
    news(15)
    put({Key("stream", "news", "refused", slice_of(timezone.now() - HOUR)): 5})
    watch()
    assert paused()[0][3] == "5 of 20 emails came back (25 %)"


def test_before_it_is_paused_it_is_warned_of_once(caplog, django_capture_on_commit_callbacks):
    complain(news(20)[:2])
    with caplog.at_level(logging.WARNING, logger="celery_mailer"):
        for _ in range(2):
            with django_capture_on_commit_callbacks(execute=True):
                watch()
    assert [line.getMessage() for line in caplog.records if line.event == "conspicuous"] == [
        "stream news: warned, 2 of 20 emails were called spam (10 %)"
    ]
    assert (paused(), alarms()) == ([], {("stream", "news"): "warn"})


def test_one_of_three_is_not_too_much():
    complain(news(3)[:1])
    watch()
    assert (paused(), alarms()) == ([], {})


def test_what_was_sent_before_the_last_week_does_not_count():
    complain(news(20, timezone.now() - WINDOW - HOUR))
    news(20)
    watch()
    assert (paused(), alarms()) == ([], {})


def test_the_transactional_stream_is_only_warned_of():
    complain(ended(make_emails(20), timezone.now() - HOUR))
    watch()
    assert (paused(), alarms()) == ([], {("stream", "transactional"): "warn"})


def test_a_batch_of_the_transactional_stream_is_paused():
    batch, emails = batch_of(21, "transactional", timezone.now() - HOUR, sent=20)
    complain(emails[:6])
    watch()
    assert [row[:2] for row in paused()] == [("batch", str(batch.pk))]


def test_a_batch_goes_by_all_of_it():
    now = timezone.now()
    batch, _ = batch_of(41, at=now - WINDOW - DAY, sent=30)
    count(now - WINDOW)
    complain(
        ended(Email.objects.filter(batch=batch, status="queued")[:10], now - HOUR)[:5]
    )  # of 40, not of 10
    watch()
    assert alarms() == {("batch", str(batch.pk)): "warn", ("stream", "news"): "pause"}


def test_of_a_batch_that_is_over_nothing_can_be_paused():
    batch, emails = batch_of(20, at=timezone.now() - HOUR)
    complain(emails)
    watch()
    assert alarms()["batch", str(batch.pk)] == "warn"
    assert ("batch", str(batch.pk)) not in [row[:2] for row in paused()]


def test_a_batch_that_was_cancelled_is_not_paused():
    batch, emails = batch_of(21, at=timezone.now() - HOUR, sent=20)
    complain(emails)
    batches.cancel_batch(batch.pk)
    batches.tend()
    watch()
    assert alarms()["batch", str(batch.pk)] == "warn"
    assert ("batch", str(batch.pk)) not in [row[:2] for row in paused()]


def test_a_small_batch_is_left_alone():
    _, emails = batch_of(9, at=timezone.now() - HOUR)
    complain(emails)
    watch()
    assert alarms() == {}


def test_what_a_person_has_paused_stays_theirs():
    pause("stream", "news", "a wrong price", by="ada")
    complain(news(20))
    watch()
    assert paused() == [("stream", "news", "ada", "a wrong price")]
    assert alarms() == {("stream", "news"): "warn"}
    resume("stream", "news")
    watch()
    assert paused()[0][2] == "celery_mailer"


def test_who_resumes_is_not_paused_again_for_the_same_numbers():
    complain(news(20))
    watch()
    resume("stream", "news")
    for _ in range(2):
        watch()
    assert (paused(), alarms()) == ([], {})


def test_after_that_what_was_sent_since_counts(monkeypatch):
    old = news(20)
    complain(old[:10])
    watch()
    resume("stream", "news")
    watch()
    complain(old[10:])  # of what was sent before
    later = timezone.now() + DAY
    monkeypatch.setattr(timezone, "now", lambda: later)
    news(12)
    watch()
    assert (paused(), alarms()) == ([], {})
    complain(news(8)[:6])
    watch()
    assert paused()[0][3] == "6 of 20 emails were called spam (30 %)"


def test_a_batch_that_was_resumed_counts_from_then():
    batch, emails = batch_of(21, at=timezone.now() - HOUR, sent=20)
    complain(emails)
    watch()
    assert batches.resume_batch(batch.pk)
    watch()
    assert ("batch", str(batch.pk)) not in alarms()
    assert ("batch", str(batch.pk)) not in [row[:2] for row in paused()]


def test_a_pause_stays_when_the_numbers_get_better(monkeypatch):
    complain(news(20))
    watch()
    later = timezone.now() + 2 * WINDOW
    monkeypatch.setattr(timezone, "now", lambda: later)
    watch()
    assert len(paused()) == 1
    assert alarms() == {("stream", "news"): "pause"}


def test_a_warning_ends_when_the_numbers_get_better():
    complain(news(20)[:2])
    watch()
    news(30)
    watch()
    assert alarms() == {}


def test_two_that_watch_at_once_pause_once(monkeypatch):
    complain(news(20))
    real, twice = reputation._settle, []

    def both(case, alarm, held, now):
        twice.extend([real(case, alarm, held, now), real(case, alarm, held, now)])
        return twice[0]

    monkeypatch.setattr(reputation, "_settle", both)
    assert watch()["paused"] == 1
    assert twice == [Level.PAUSE, None]


def test_the_pause_holds_what_waits():
    complain(news(20))
    watch()
    email = make_email(stream="news")
    assert Pauses().holding(email, timezone.now()).by == "celery_mailer"


def test_alarms_that_are_long_over_are_forgotten():
    old = timezone.now() - 100 * DAY
    for name, level, since in [
        ("a", "", None),
        ("b", "", timezone.now()),
        ("c", "warn", None),
        ("d", "", old),
    ]:
        Alarm.objects.create(kind="stream", name=name, level=level, since=since, measure="bounces", at=old)
    delete_old_alarms(timezone.now() - 90 * DAY)
    assert sorted(Alarm.objects.values_list("name", flat=True)) == ["b", "c"]


def test_with_nothing_to_say_a_run_is_at_most_25_queries(django_assert_max_num_queries):
    news(50)
    watch()
    with django_assert_max_num_queries(25):
        watch()
