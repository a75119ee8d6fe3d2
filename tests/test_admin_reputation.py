"""Reputation in the admin: the streams on the dashboard, its troubles, and batches, large ones too."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from celery_mailer.admin import batches as pages
from celery_mailer.admin.reputations import reputations
from celery_mailer.models import Alarm, Email
from celery_mailer.models.figure import Key, put, slice_of
from celery_mailer.models.pause import pause, resume
from celery_mailer.reputation import WINDOW, watch
from tests.test_admin_dashboard import PAGE, nothing_counted, told  # noqa: F401 fixtures
from tests.test_admin_emails import admin, batch_page, login, make_batch, text_of  # noqa: F401 fixtures

pytestmark = pytest.mark.django_db

LIST = reverse("admin:celery_mailer_batch_changelist")


def figures(name, kind="stream", at=None, **numbers):
    start = slice_of(at or timezone.now())
    put({Key(kind, str(name), what, start): number for what, number in numbers.items()})


def of(name):
    return next(row for row in reputations(timezone.now()) if row.name == name)


# The dashboard.


def test_each_stream_shows_its_shares_and_the_limits(admin):  # noqa: F811
    figures("marketing", sent=1990, refused=10, bounced=20, complained=3)
    text = text_of(admin.get(PAGE))
    assert "marketing 2000 30 (1.5 %) warned of from 5 %, paused from 10 % on" in text
    assert "3 (0.15 %) warned of from 0.1 %, paused from 0.3 % on" in text


def test_a_stream_that_is_not_paused_does_not_say_that_it_will_be(admin):  # noqa: F811
    row = of("transactional")
    assert not row.pauses
    assert "warned of from 5 % on" in text_of(admin.get(PAGE))


@pytest.mark.parametrize(
    ("complained", "mark"), [(0, ""), (1, ""), (2, "warn"), (5, "warn"), (6, "pause"), (5000, "pause")]
)
def test_a_share_is_marked_by_the_level_that_it_reaches(complained, mark):
    figures("marketing", sent=2000, complained=complained)
    assert of("marketing").complaints.mark == mark


def test_of_too_few_emails_nothing_is_said(admin):  # noqa: F811
    figures("marketing", sent=999, complained=999)
    row = of("marketing")
    assert (row.too_few, row.complaints.mark) == (True, "")
    assert "too few to judge: below 1000" in text_of(admin.get(PAGE))


def test_only_the_last_week_counts():
    figures("marketing", sent=1000, at=timezone.now() - WINDOW * 2)
    figures("marketing", sent=7)
    assert of("marketing").total == 7


def test_after_a_pause_it_is_counted_anew_and_says_so(admin):  # noqa: F811
    figures("marketing", sent=1000, complained=30)
    watch()
    assert of("marketing").pause is not None
    resume("stream", "marketing")
    watch()
    row = of("marketing")
    assert (row.total, row.pause) == (0, None)
    assert timezone.now() - row.since < timezone.timedelta(minutes=1)


def test_the_streams_cost_three_queries(django_assert_num_queries):
    for name in ("marketing", "transactional"):
        figures(name, sent=5)
    with django_assert_num_queries(3):
        reputations(timezone.now())


# Troubles.


def troubles(admin):  # noqa: F811
    return admin.get(PAGE).context["troubles"]


def test_what_is_warned_of_is_a_trouble_and_leads_to_its_emails(admin):  # noqa: F811
    figures("marketing", sent=1000, complained=1)
    watch()
    (trouble,) = troubles(admin)
    assert trouble.fault == "stream marketing: 1 of 1000 emails were called spam (0.1 %)."
    assert trouble.link == "/admin/celery_mailer/email/?stream=marketing"
    assert admin.get(trouble.link).status_code == 200


def test_what_is_paused_leads_to_where_it_is_resumed(admin):  # noqa: F811
    figures("marketing", sent=900, bounced=100, refused=100)
    watch()
    (trouble,) = troubles(admin)
    assert trouble.fault == "stream marketing: 200 of 1000 emails came back (20 %)."
    assert "resume it" in trouble.cure
    page = text_of(admin.get(trouble.link))
    assert "by celery_mailer" in page
    assert "200 of 1000 emails came back (20 %)" in page


def test_a_batch_leads_to_its_page(admin):  # noqa: F811
    batch, _ = make_batch(1, stream="marketing")
    figures(batch.pk, "batch", sent=1000, complained=1)
    watch()
    (trouble,) = troubles(admin)
    assert trouble.link == batch_page(batch)
    assert str(batch.pk) in trouble.fault


def test_what_is_paused_comes_before_what_is_warned_of(admin):  # noqa: F811
    for name, level in (("a", "warn"), ("b", "pause"), ("c", "")):
        Alarm.objects.create(kind="stream", name=name, level=level, measure="bounces", number=1, total=9)
    assert [trouble.fault.split(":")[0] for trouble in troubles(admin)] == ["stream b", "stream a"]


# Batches.


@pytest.fixture
def large(monkeypatch):
    """A batch of six, of which two are sent, where more than five are many."""
    monkeypatch.setattr(pages, "BOUND", 5)
    batch, emails = make_batch(6)
    values = {"status": "sent", "finished_at": timezone.now(), "due_at": None}
    Email.objects.filter(pk__in=[email.pk for email in emails[:2]]).update(**values)
    return batch


def test_of_a_large_batch_it_shows_what_beat_has_counted(admin, large):  # noqa: F811
    assert "0 of 6 are finished" in text_of(admin.get(batch_page(large)))
    watch()
    text = text_of(admin.get(batch_page(large)))
    assert "2 of 6 are finished" in text
    assert "not finished 4" in text
    assert "beat counts every half minute" in text
    assert "2 sent, 4 not finished" in text_of(admin.get(LIST))


def test_of_a_small_one_the_emails_are_counted(admin):  # noqa: F811
    batch, _ = make_batch(2)
    text = text_of(admin.get(batch_page(batch)))
    assert "queued 2" in text
    assert "beat counts" not in text
    assert "2 queued" in text_of(admin.get(LIST))


@pytest.mark.parametrize("page", ["change", "list"])
def test_the_emails_of_a_large_batch_are_not_read(admin, large, page):  # noqa: F811
    with CaptureQueriesContext(
        connection,
    ) as queries:
        admin.get(batch_page(large) if page == "change" else LIST)
    of_emails = [q["sql"] for q in queries if 'FROM "celery_mailer_email"' in q["sql"].replace("`", '"')]
    assert of_emails == []


def test_a_large_batch_can_be_paused_and_cancelled_while_it_is_not_finished(login, large):  # noqa: F811
    client = login("view_batch", "pause_batch", "cancel_email")

    def offered():
        page = client.get(batch_page(large)).content.decode()
        return [act for act in ("pause", "cancel") if batch_page(large, act) in page]

    assert offered() == ["pause", "cancel"]
    figures(large.pk, "batch", sent=6)
    assert offered() == []


def test_the_list_shares_the_bound_among_its_batches(monkeypatch):
    monkeypatch.setattr(pages, "BOUND", 10)
    first, _ = make_batch(6)
    assert pages.progress([first])[first.pk].exact
    assert not pages.progress([first, first])[first.pk].exact


def test_a_batch_tells_what_came_back_of_it(admin):  # noqa: F811
    batch, _ = make_batch(1)
    assert "came back" not in text_of(admin.get(batch_page(batch)))
    figures(batch.pk, "batch", sent=90, refused=10, bounced=5, complained=2)
    text = text_of(admin.get(batch_page(batch)))
    assert "Of 100 that were taken or refused, 15 came back for good and 2 were called spam." in text


def test_a_batch_that_was_paused_by_its_reputation_says_why_and_can_be_resumed(admin):  # noqa: F811
    batch, _ = make_batch(1, stream="marketing")
    pause("batch", str(batch.pk), "6 of 20 emails were called spam (30 %)", by="celery_mailer")
    page = admin.get(batch_page(batch))
    assert "by celery_mailer" in text_of(page)
    assert batch_page(batch, "resume") in page.content.decode()
