"""The dashboard: what it counts, what it says to do, and that it is bounded."""

import re
import threading
import xml.etree.ElementTree as ET
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin import AdminSite
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from celery_mailer import routing
from celery_mailer.admin import cluster, dashboard, tallies
from celery_mailer.admin.cluster import Answer, Asker, ask
from celery_mailer.admin.emails import EmailAdmin
from celery_mailer.admin.plots import Column, Part, ceiling, stacked
from celery_mailer.admin.providers import ProviderAdmin
from celery_mailer.admin.tallies import HOUR, MINUTES, Tallies, Tally, together
from celery_mailer.models import Email, ProviderState
from celery_mailer.models.pause import pause
from tests.factories import claim, make_email, make_emails
from tests.test_admin_emails import admin, in_doubt, login, text_of  # noqa: F401 fixtures

pytestmark = pytest.mark.django_db

PAGE = reverse("admin:celery_mailer_email_dashboard")
NOW = datetime(2030, 5, 1, 12, 7, 30, tzinfo=UTC)
SERVED = {"w1@host": ["celery", "mail.high", "mail.low", "mail.medium"]}
WELL = Answer("redis://host", "", {"mail.high": 7, "mail.medium": 0, "mail.low": 0}, SERVED)


class Told:
    """An asker that has an answer."""

    def __init__(self, answer):
        self.answer = answer

    def latest(self):
        return self.answer


@pytest.fixture
def told(monkeypatch):
    """Let the cluster say this; a worker and beat are there in the beginning."""

    def say(answer):
        monkeypatch.setattr(dashboard, "asker", Told(answer))

    say(WELL)
    PeriodicTask.objects.filter(task=routing.DISPATCH).update(last_run_at=timezone.now())
    return say


@pytest.fixture(autouse=True)
def nothing_counted(told, monkeypatch):
    monkeypatch.setattr(tallies, "BUDGET", 60.0)  # a busy machine stalls
    dashboard.tallies.forget()
    yield
    dashboard.tallies.forget()


def ended(number, at, status="sent", **arguments):
    """Emails that became final then."""
    ids = [email.pk for email in make_emails(number, **arguments)]
    values = {"status": status, "finished_at": at, "due_at": None, "lease_until": None}
    Email.objects.filter(pk__in=ids).update(**values)


# What it shows.


def test_what_is_fine_shows_no_trouble(admin):  # noqa: F811
    make_email()
    response = admin.get(PAGE)
    assert response.context["troubles"] == []
    text = text_of(response)
    assert "w1@host" in text
    assert "nothing is due" in text


def test_without_any_email_it_says_how_to_send_one(admin):  # noqa: F811
    assert "There is no email yet" in text_of(admin.get(PAGE))
    make_email()
    assert "There is no email yet" not in text_of(admin.get(PAGE))


def test_a_lane_shows_what_waits_and_the_oldest_that_is_due(admin):  # noqa: F811
    now = timezone.now()
    for minutes in (90, 3, -30):
        email = make_email(priority="high")
        Email.objects.filter(pk=email.pk).update(attempt_count=1, due_at=now - timedelta(minutes=minutes))
    lanes = {lane.mark: lane for lane in admin.get(PAGE).context["lanes"]}
    assert list(lanes) == ["now", "high", "medium", "low"]
    high = lanes["high"]
    assert (high.waiting, high.oldest_due, high.queue) == (3, now - timedelta(minutes=90), "mail.high")
    assert (high.depth, high.workers) == (7, 1)
    assert (lanes["low"].waiting, lanes["low"].oldest_due) == (0, None)


def test_mail_whose_messages_nobody_takes_has_waited_since_it_was_queued(admin):  # noqa: F811
    email = make_email()
    queued = timezone.now() - timedelta(hours=3)
    under_way = timezone.now() + timedelta(seconds=30)
    Email.objects.filter(pk=email.pk).update(created_at=queued, due_at=under_way)
    lanes = {lane.mark: lane for lane in admin.get(PAGE).context["lanes"]}
    assert lanes["medium"].oldest_due == queued


def test_waiting_emails_are_counted_up_to_a_bound(admin, monkeypatch):  # noqa: F811
    monkeypatch.setattr(dashboard, "BOUND", 2)
    make_emails(3)
    assert " 2+ " in text_of(admin.get(PAGE))


def test_uncertain_emails_lead_to_their_list(admin):  # noqa: F811
    in_doubt()
    page = admin.get(PAGE).content.decode()
    assert '/admin/celery_mailer/email/?status=uncertain">1 email is uncertain' in page


def test_emails_that_are_being_sent_are_counted(admin):  # noqa: F811
    claim(make_emails(2))
    assert "2 emails are being sent" in text_of(admin.get(PAGE))


def test_the_plots_show_what_ended_by_lane_and_by_status(admin):  # noqa: F811
    now = timezone.now()
    ended(3, now, priority="high")
    ended(2, now, "failed", priority="low")
    by_lane, day, week = admin.get(PAGE).context["plots"]
    assert {part.mark: part.number for part in by_lane.legend} == {"now": 0, "high": 3, "medium": 0, "low": 0}
    for plot in (day, week):
        numbers = {part.mark: part.number for part in plot.legend if part.number}
        assert numbers == {"sent": 3, "failed": 2}


def test_the_plots_of_a_day_and_of_a_week_end_where_they_should(admin):  # noqa: F811
    now = timezone.now()
    ended(1, now - timedelta(hours=22))
    ended(1, now - timedelta(hours=25))
    ended(1, now - timedelta(days=8))
    _, day, week = admin.get(PAGE).context["plots"]
    assert [sum(part.number for part in plot.legend) for plot in (day, week)] == [1, 2]


def test_the_pages_of_the_app_lead_to_it(admin):  # noqa: F811
    for url in (reverse("admin:celery_mailer_email_changelist"), "/admin/celery_mailer/"):
        assert PAGE in admin.get(url).content.decode()


BEAT = "/admin/django_celery_beat/periodictask/"


def bar(client):
    """Of the page, the links to others; Django's own list of pages stands beside it."""
    content = client.get(PAGE).content.decode()
    return re.search(r'<div class="mailer-bar">(.*?)</div>', content, re.DOTALL)[1]


def test_it_leads_to_the_schedules_of_beat(admin):  # noqa: F811
    assert f'href="{BEAT}"' in bar(admin)


@pytest.mark.parametrize(
    ("permission", "shown"),
    [("view_periodictask", True), ("change_periodictask", True), ("view_batch", False)],
)
def test_it_leads_to_the_schedules_who_may_look_at_them(login, permission, shown):  # noqa: F811
    assert (f'href="{BEAT}"' in bar(login("view_email", permission))) is shown


def test_without_the_schedules_in_the_admin_there_is_no_link_to_them(admin, settings):  # noqa: F811
    site = AdminSite()
    site.register(Email, EmailAdmin)
    site.register(ProviderState, ProviderAdmin)
    settings.ROOT_URLCONF = (path("admin/", site.urls),)
    assert "django_celery_beat" not in bar(admin)


def test_it_has_no_inline_scripts_and_styles(admin):  # noqa: F811
    ended(3, timezone.now())
    own = admin.get(PAGE).content.decode().partition('id="content-main"')[2]
    assert not re.search(r"<style|<script(?![^>]*src=)| style=| on\w+=", own)


def test_it_needs_the_permission_to_view_and_changes_nothing(login):  # noqa: F811
    client = login("view_batch")
    assert client.get(PAGE).status_code == 403
    assert client.post(PAGE).status_code == 405


def test_it_costs_the_same_however_many_emails_there_are(admin):  # noqa: F811
    def queries():
        dashboard.tallies.forget()
        with CaptureQueriesContext(connection) as found:
            admin.get(PAGE)
        return len(found)

    ended(1, timezone.now())
    few = queries()
    ended(20, timezone.now())
    assert queries() == few


# What it says to do.


def say_of(admin):  # noqa: F811
    return text_of(admin.get(PAGE))


def test_while_the_cluster_is_being_asked_it_says_so(admin, told):  # noqa: F811
    told(None)
    assert "are being asked" in say_of(admin)


def test_a_broker_that_is_down(admin, told):  # noqa: F811
    told(Answer("redis://:**@host:6379//", "OperationalError"))
    text = say_of(admin)
    assert "The broker redis://:**@host:6379// does not answer (OperationalError)" in text
    assert "No mail is lost" in text


def test_no_worker(admin, told):  # noqa: F811
    told(Answer("redis://host"))
    assert "No worker answers. Start one: celery -A tests worker" in say_of(admin)


def test_workers_that_do_not_serve_a_lane(admin, told):  # noqa: F811
    told(Answer("redis://host", workers={"w": ["celery", "mail.high"]}))
    assert "No worker serves mail.medium, mail.low." in say_of(admin)
    assert "celery -A tests worker -Q mail.medium,mail.low" in say_of(admin)


def test_no_beat(admin):  # noqa: F811
    row = PeriodicTask.objects.filter(task=routing.DISPATCH)
    row.update(last_run_at=None)
    assert "Beat has not been seen so far. Start it" in say_of(admin)
    row.update(last_run_at=timezone.now() - timedelta(hours=3))
    assert "Beat has not run for 3" in say_of(admin)


def test_a_dispatcher_that_was_switched_off(admin):  # noqa: F811
    row = PeriodicTask.objects.get(task=routing.DISPATCH)
    PeriodicTask.objects.update(enabled=False)
    assert "The dispatcher is switched off" in say_of(admin)
    link = reverse("admin:django_celery_beat_periodictask_change", args=[row.pk])
    assert link in admin.get(PAGE).content.decode()


def test_mail_that_is_due_for_no_visible_reason(admin):  # noqa: F811
    email = make_email()
    Email.objects.filter(pk=email.pk).update(created_at=timezone.now() - timedelta(minutes=20))
    assert "Mail has been waiting for 20" in say_of(admin)


def test_mail_of_a_paused_lane_is_no_trouble(admin):  # noqa: F811
    email = make_email(priority="low")
    Email.objects.filter(pk=email.pk).update(due_at=timezone.now() - timedelta(minutes=20))
    pause("lane", "low", "x")
    response = admin.get(PAGE)
    assert response.context["troubles"] == []
    assert "low paused" in text_of(response)


def test_a_provider_that_refuses_our_login_is_there_with_its_words(admin):  # noqa: F811
    now = timezone.now()
    words = "535 5.7.8 authentication failed"
    ProviderState.objects.create(
        alias="default",
        state="open",
        retry_at=now + timedelta(minutes=5),
        kind="provider",
        text=words,
        fault_at=now,
    )
    assert words in text_of(admin.get(PAGE))


# The cluster, asked in the background.


def test_a_page_does_not_wait_for_an_answer():
    answered = threading.Event()
    asker = Asker(lambda: answered.wait(10) and WELL)
    assert asker.latest() is None
    answered.set()
    asker.wait(10)
    assert asker.latest() is WELL


def test_while_a_question_hangs_no_other_is_asked():
    now, asked, answered = [0.0], [], threading.Event()

    def hang():
        asked.append(1)
        answered.wait(10)
        return WELL

    asker = Asker(hang, lambda: now[0])
    asker.latest()
    now[0] += cluster.PATIENCE + 1
    assert asker.latest().fault == "TimeoutError"
    assert asked == [1]
    answered.set()
    asker.wait(10)
    assert asker.latest() is WELL
    asker.wait(10)


def test_an_answer_is_asked_for_again_when_it_is_old():
    now, asked = [0.0], []
    asker = Asker(lambda: asked.append(1) or Answer(str(len(asked))), lambda: now[0])
    for _ in range(3):
        asker.latest()
        asker.wait(10)
    assert asker.latest().broker == "1"
    now[0] += cluster.FRESH
    asker.latest()
    asker.wait(10)
    assert asker.latest().broker == "2"


def test_the_broker_tells_how_many_messages_wait(monkeypatch):
    from celery import current_app

    monkeypatch.setattr(cluster, "REPLIES", 0.05)
    queue = routing.lane(0)
    with current_app.connection_for_write() as connection_:
        channel = connection_.default_channel
        channel.queue_declare(queue)
        channel.queue_purge(queue)
        producer = connection_.Producer(channel)
        for _ in range(3):
            producer.publish({}, routing_key=queue)
        try:
            answer = ask()
        finally:
            channel.queue_purge(queue)
    assert (answer.fault, answer.depths[queue], answer.workers) == ("", 3, {})


def test_a_broker_that_is_not_there_is_an_answer_without_secrets(monkeypatch):
    from celery import current_app
    from kombu import Connection

    dead = Connection("redis://user:hunter2@127.0.0.1:1//")
    monkeypatch.setattr(current_app, "connection_for_read", lambda **options: dead)
    answer = ask()
    assert answer.fault == "OperationalError"
    assert "hunter2" not in answer.broker
    assert "127.0.0.1:1" in answer.broker


# Counting.


@pytest.fixture
def counts(monkeypatch):
    """The slices that were counted, by their beginning."""
    found = Counter()

    def counted(start, end):
        found[start] += 1
        return Tally(Counter({(0, "sent"): 1}))

    monkeypatch.setattr(tallies, "counted", counted)
    return found


def test_a_slice_that_is_over_is_counted_once(counts):
    own = Tallies(lambda: 0.0)
    starts = tallies.minutes(NOW)
    for _ in range(3):
        assert None not in own.of(starts, MINUTES, NOW, 1.0)
    assert counts.pop(starts[-1]) == 3  # it is not over
    assert set(counts.values()) == {1}


def test_when_the_time_is_up_the_oldest_are_left_for_the_next_look(counts):
    ticks = iter(range(100))
    own = Tallies(lambda: next(ticks))
    starts = tallies.hours(NOW, 6)
    found = own.of(starts, HOUR, NOW, 3)
    assert [tally is None for tally in found] == [True, True, True, False, False, False]
    assert None not in own.of(starts, HOUR, NOW, 100)


def test_what_is_kept_is_bounded(counts, monkeypatch):
    monkeypatch.setattr(tallies, "KEPT", 3)
    own = Tallies(lambda: 0.0)
    own.of(tallies.hours(NOW, 9), HOUR, NOW, 1.0)
    assert len(own._kept) == 3


def test_slices_touch_and_do_not_overlap():
    start = NOW.replace(minute=5, second=0)
    for at in (
        start - timedelta(microseconds=1),
        start,
        start + MINUTES - timedelta(microseconds=1),
        start + MINUTES,
    ):
        ended(1, at)
    assert tallies.counted(start, start + MINUTES).numbers == {(1, "sent"): 2}


def test_a_slice_with_too_many_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(tallies, "CAP", 3)
    ended(2, NOW)
    assert not tallies.counted(NOW, NOW + HOUR).cut
    ended(2, NOW, "failed", priority="high")
    tally = tallies.counted(NOW, NOW + HOUR)
    assert tally.cut
    assert sum(tally.numbers.values()) == 3
    assert set(tally.numbers) == {(1, "sent"), (2, "failed")}


def test_the_page_says_what_was_cut(admin, monkeypatch):  # noqa: F811
    monkeypatch.setattr(tallies, "CAP", 1)
    ended(2, timezone.now())
    assert "no more than" in text_of(admin.get(PAGE))


def test_a_sum_is_known_when_all_its_parts_are():
    one = Tally(Counter({(0, "sent"): 1}), cut=True)
    assert together([one, one]) == Tally(Counter({(0, "sent"): 2}), cut=True)
    assert together([one, None]) is None


def test_hours_begin_where_the_clock_on_the_wall_says():
    with timezone.override("Asia/Kolkata"):  # half an hour beside UTC
        starts = tallies.hours(NOW, 2)
    assert [start.strftime("%H:%M") for start in starts] == ["09:30", "10:30"]  # the next is not over


# Plots.


def columns(*numbers):
    return [Column(f"{n}:00", [Part("sent", "sent", number)]) for n, number in enumerate(numbers)]


def test_a_plot_is_xml_that_tells_its_numbers():
    svg = ET.fromstring(stacked("A <title> & more", columns(5, 0, 12)))
    assert svg.get("aria-label") == "A <title> & more. 0:00: 5 sent; 2:00: 12 sent"
    assert [title.text for title in svg.iter("title")] == ["0:00: 5 sent", "1:00: 0", "2:00: 12 sent"]


def test_parts_stand_on_each_other_in_proportion():
    column = Column("x", [Part("a", "a", 5), Part("b", "b", 10), Part("c", "c", 0)])
    rects = list(ET.fromstring(stacked("t", [column])).iter("rect"))
    low, high = rects
    assert float(high.get("height")) == pytest.approx(2 * float(low.get("height")), abs=0.2)
    assert float(high.get("y")) + float(high.get("height")) == pytest.approx(float(low.get("y")), abs=0.2)


@pytest.mark.parametrize(
    ("number", "top"), [(0, 2), (1, 2), (3, 4), (10, 10), (11, 20), (99, 100), (401, 1000)]
)
def test_the_scale_ends_at_a_plain_number(number, top):
    assert ceiling(number) == top


def test_a_plot_without_numbers_is_a_plot():
    assert ET.fromstring(stacked("t", [])) is not None
    missing = stacked("t", [Column("x", missing="not counted yet")])
    assert "x: not counted yet" in missing
