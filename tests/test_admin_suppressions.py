"""Suppressions and events in the admin."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.utils import timezone

from celery_mailer.models import Event, Suppression
from celery_mailer.models.suppression import Entry, forget_address, release, suppress, suppressed
from celery_mailer.tracking.events import Happening, record
from celery_mailer.values import EventKind, SuppressionReason
from tests.factories import make_email
from tests.test_admin_emails import admin, login  # noqa: F401

pytestmark = pytest.mark.django_db

LIST = "/admin/celery_mailer/suppression/"
EVENTS = "/admin/celery_mailer/event/"
A = "a@example.com"
MANUAL = SuppressionReason.MANUAL
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
FORM = {"address": "A@Example.com", "stream": "", "expires_at_0": "", "expires_at_1": "", "note": "asked us"}


@pytest.fixture
def row():
    suppress([Entry(A, MANUAL)])
    return Suppression.objects.get()


def addresses(response):
    return [r.address for r in response.context["cl"].result_list]


def test_the_list_shows_whom_and_why(admin, row):  # noqa: F811
    text = admin.get(LIST).content.decode()
    assert A in text
    assert "suppressed by hand" in text


def test_an_address_is_found_in_any_spelling_and_after_its_erasure(admin, row):  # noqa: F811
    suppress([Entry("b@example.com", MANUAL)])
    assert addresses(admin.get(LIST, {"q": "A@EXAMPLE.com"})) == [A]
    forget_address(A)
    assert addresses(admin.get(LIST, {"q": A})) == [""]


@pytest.mark.parametrize(
    ("state", "expected"),
    [("in_force", "a@example.com"), ("expired", "b@example.com"), ("released", "c@example.com")],
)
def test_the_list_is_filtered_by_state(admin, row, state, expected):  # noqa: F811
    suppress([Entry("b@example.com", MANUAL, expires_at=timezone.now() - timedelta(1))])
    suppress([Entry("c@example.com", MANUAL)])
    release([Suppression.objects.get(address="c@example.com").pk], by="eve", note="")
    assert addresses(admin.get(LIST, {"state": state})) == [expected]


def test_the_list_is_filtered_by_a_reason_in_the_words_of_the_list(admin, row):  # noqa: F811
    suppress([Entry("b@example.com", SuppressionReason.COMPLAINT)])
    response = admin.get(LIST, {"reason": "complaint"})
    assert addresses(response) == ["b@example.com"]
    # In the list, and as a filter.
    assert response.content.decode().count("the recipient called our mail spam") == 2
    assert len(addresses(admin.get(LIST, {"reason": "unknown"}))) == 2


def test_an_address_is_suppressed_by_hand(admin):  # noqa: F811
    assert admin.post(f"{LIST}add/", FORM | {"stream": "marketing"}).status_code == 302
    row = Suppression.objects.get()
    assert (row.address, row.stream, row.reason, row.note) == (A, "marketing", "manual", "asked us")


def test_what_the_admin_logs_of_it_does_not_name_the_address(admin):  # noqa: F811
    admin.post(f"{LIST}add/", FORM)
    admin.post(f"{LIST}{Suppression.objects.get().pk}/release/", {"note": "asked us"})
    logged = LogEntry.objects.values_list("object_repr", flat=True)
    assert len(logged) == 2
    assert not any("@" in name for name in logged)


def test_who_suppressed_it_is_noted_where_nothing_else_is(admin):  # noqa: F811
    admin.post(f"{LIST}add/", FORM | {"note": ""})
    assert Suppression.objects.get().note == "by ada"


@pytest.mark.parametrize("change", [{"address": "nobody"}, {"address": ""}, {"stream": "other"}], ids=str)
def test_a_faulty_form_suppresses_nobody(admin, change):  # noqa: F811
    assert admin.post(f"{LIST}add/", FORM | change).status_code == 200
    assert not Suppression.objects.exists()


def test_the_same_is_not_suppressed_twice(admin, row):  # noqa: F811
    assert b"Release it first" in admin.post(f"{LIST}add/", FORM).content
    assert Suppression.objects.count() == 1


def test_one_that_has_expired_is_renewed(admin):  # noqa: F811
    suppress([Entry(A, MANUAL, expires_at=timezone.now() - timedelta(1), note="on leave")])
    assert admin.post(f"{LIST}add/", FORM).status_code == 302
    row = Suppression.objects.get()
    assert (row.address, row.expires_at, row.note) == (A, None, "asked us")
    assert suppressed([A]) == {A: {"": "manual"}}


def test_one_that_has_yet_to_expire_is_not_suppressed_twice(admin):  # noqa: F811
    suppress([Entry(A, MANUAL, expires_at=timezone.now() + timedelta(1))])
    assert b"Release it first" in admin.post(f"{LIST}add/", FORM).content


def test_a_page_shows_all_there_is_to_know(admin):  # noqa: F811
    email = make_email()
    record([Happening(EventKind.COMPLAINED, NOON, email_id=email.pk)])
    row = Suppression.objects.get()
    text = admin.get(f"{LIST}{row.pk}/change/").content.decode()
    assert f"/admin/celery_mailer/email/{email.pk}/change/" in text
    assert "called our mail spam" in text


def test_a_release_asks_for_a_reason_and_is_on_record(admin, row):  # noqa: F811
    admin.post(f"{LIST}{row.pk}/release/", {"note": "  "})
    row.refresh_from_db()
    assert row.active
    admin.post(f"{LIST}{row.pk}/release/", {"note": "she wrote to us"})
    row.refresh_from_db()
    assert (row.active, row.released_by, row.release_note) == (None, "ada", "she wrote to us")
    assert b"she wrote to us" in admin.get(f"{LIST}{row.pk}/change/").content
    assert b"she wrote to us" in admin.get(f"{LIST}{row.pk}/history/").content


def test_a_get_releases_nothing(admin, row):  # noqa: F811
    assert admin.get(f"{LIST}{row.pk}/release/").status_code == 405


def test_to_release_takes_a_permission_of_its_own(login, row):  # noqa: F811
    client = login("view_suppression", "add_suppression")
    assert b"/release/" not in client.get(f"{LIST}{row.pk}/change/").content
    assert client.post(f"{LIST}{row.pk}/release/", {"note": "why"}).status_code == 403
    row.refresh_from_db()
    assert row.active


def test_with_the_permission_it_is_released(login, row):  # noqa: F811
    client = login("view_suppression", "release_suppression")
    assert b"/release/" in client.get(f"{LIST}{row.pk}/change/").content
    assert client.post(f"{LIST}{row.pk}/release/", {"note": "why"}).status_code == 302
    row.refresh_from_db()
    assert row.active is None


def test_nothing_is_edited_or_deleted(admin, row):  # noqa: F811
    assert admin.post(f"{LIST}{row.pk}/change/", FORM).status_code == 403
    assert admin.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403


def test_an_event_is_in_the_timeline_of_its_email(admin):  # noqa: F811
    email = make_email()
    happened = Happening(
        EventKind.BOUNCED, NOON, email_id=email.pk, provider="mx.example.net", bounce="hard",
        code=550, text="no such user",
    )  # fmt: skip
    record([happened, Happening(EventKind.OPENED, NOON, email_id=email.pk, machine=True)])
    text = admin.get(f"/admin/celery_mailer/email/{email.pk}/change/").content.decode()
    for words in ("Came back", "550 no such user", "there is no such address", "Opened", "by a machine"):
        assert words in text


def test_events_of_unknown_emails_are_listed(admin):  # noqa: F811
    email = make_email()
    record([
        Happening(EventKind.OPENED, NOON, email_id=email.pk),
        Happening(EventKind.COMPLAINED, NOON, "who@example.com"),
    ])  # fmt: skip
    unknown = admin.get(EVENTS, {"email": "unknown"}).context["cl"].result_list
    assert [event.recipient for event in unknown] == ["who@example.com"]
    known = admin.get(EVENTS, {"email": "known"}).context["cl"].result_list
    assert [event.email for event in known] == [email]


def test_events_are_found_by_their_recipient(admin):  # noqa: F811
    record([Happening(EventKind.COMPLAINED, NOON, w) for w in ("who@example.com", A)])
    found = admin.get(EVENTS, {"q": "WHO@example.com"}).context["cl"].result_list
    assert [event.recipient for event in found] == ["who@example.com"]


def test_an_event_is_never_edited(admin):  # noqa: F811
    record([Happening(EventKind.COMPLAINED, NOON, A)])
    pk = Event.objects.get().pk
    assert admin.post(f"{EVENTS}{pk}/change/", {}).status_code == 403


def test_an_email_is_deleted_with_its_events(login):  # noqa: F811
    email = make_email()
    record([Happening(EventKind.OPENED, NOON, email_id=email.pk)])
    client = login("view_email", "delete_email")
    assert client.post(f"/admin/celery_mailer/email/{email.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Event.objects.exists()
