"""The buttons on the page of a batch."""

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone

from celery_mailer import batches
from celery_mailer.models import Batch, Email, Pause
from celery_mailer.models import transitions as t
from celery_mailer.models.pause import pause
from tests.factories import claim
from tests.test_admin_emails import admin, batch_page, login, make_batch, text_of  # noqa: F401 fixtures

pytestmark = pytest.mark.django_db


def statuses():
    return sorted(Email.objects.values_list("status", flat=True))


def test_a_small_batch_is_cancelled_at_once(admin):  # noqa: F811
    batch, _ = make_batch(3)
    assert "3 emails were cancelled" in text_of(admin.post(batch_page(batch, "cancel"), follow=True))
    assert statuses() == ["cancelled"] * 3
    assert not Pause.objects.exists()


def test_of_a_large_batch_the_rest_is_left_to_beat(admin, monkeypatch):  # noqa: F811
    monkeypatch.setattr(batches, "STEP", 2)
    monkeypatch.setattr(batches, "AT_ONCE", 2)
    batch, _ = make_batch(9)
    text = text_of(admin.post(batch_page(batch, "cancel"), follow=True))
    assert "4 emails were cancelled" in text
    assert "step by step" in text
    assert Pause.objects.get().name == str(batch.pk)
    batches.tend()
    assert statuses() == ["cancelled"] * 9
    assert Batch.objects.get().stage == ""


def test_a_batch_is_paused_and_resumed(admin):  # noqa: F811
    batch, emails = make_batch(2)
    data = {"reason": "a wrong price", "until": "2999-01-01T10:00"}
    text = text_of(admin.post(batch_page(batch, "pause"), data, follow=True))
    assert "a wrong price" in text
    row = Pause.objects.get()
    assert (row.kind, row.name, row.by, row.until.year) == ("batch", str(batch.pk), "ada", 2999)
    t.move([emails[0].pk], t.HOLD, reason="paused", due_at=timezone.now() + timezone.timedelta(minutes=1))
    admin.post(batch_page(batch, "resume"))
    assert not Pause.objects.exists()
    assert Email.objects.get(pk=emails[0].pk).due_at <= timezone.now()


def test_a_pause_of_a_batch_needs_a_reason(admin):  # noqa: F811
    batch, _ = make_batch(1)
    assert "Reason: This field is required" in text_of(admin.post(batch_page(batch, "pause"), follow=True))
    assert not Pause.objects.exists()


def test_a_batch_that_is_being_cancelled_is_neither_paused_nor_resumed(admin):  # noqa: F811
    batch, emails = make_batch(1)
    claim(emails)
    admin.post(batch_page(batch, "cancel"))
    data = {"reason": "lunch", "until": "2999-01-01T10:00"}
    assert "This batch was cancelled" in text_of(admin.post(batch_page(batch, "pause"), data, follow=True))
    assert "This batch was cancelled" in text_of(admin.post(batch_page(batch, "resume"), follow=True))
    assert (Pause.objects.get().reason, Pause.objects.get().until) == (batches.CANCELLED, None)
    page = admin.get(batch_page(batch)).content.decode()
    assert not [act for act in ("pause", "resume") if batch_page(batch, act) in page]


def test_nothing_but_the_batch_of_the_page_can_be_paused_there(admin):  # noqa: F811
    batch, _ = make_batch(1)
    admin.post(batch_page(batch, "pause"), {"kind": "lane", "name": "high", "reason": "x"})
    assert Pause.objects.get().name == str(batch.pk)


@pytest.mark.parametrize(
    ("act", "permission"),
    [("pause", "pause_batch"), ("resume", "pause_batch"), ("cancel", "cancel_email")],
)
def test_each_act_needs_a_post_and_its_permission(login, act, permission):  # noqa: F811
    batch, _ = make_batch(1)
    pause("batch", str(batch.pk), "before")
    others = {"pause_batch", "cancel_email"} - {permission}
    client = login("view_batch", "view_email", "switch_provider", *others)
    assert client.post(batch_page(batch, act), {"reason": "after"}).status_code == 403
    assert (statuses(), Pause.objects.get().reason) == (["queued"], "before")
    User.objects.get().user_permissions.add(Permission.objects.get(codename=permission))
    assert client.get(batch_page(batch, act)).status_code == 405
    assert client.post(batch_page(batch, act), {"reason": "after"}).status_code == 302


def test_the_page_offers_what_can_be_done(login):  # noqa: F811
    batch, emails = make_batch(1)
    client = login("view_batch", "pause_batch", "cancel_email")

    def offered():
        page = client.get(batch_page(batch)).content.decode()
        return [act for act in ("pause", "resume", "cancel") if batch_page(batch, act) in page]

    assert offered() == ["pause", "cancel"]
    pause("batch", str(batch.pk), "x")
    assert offered() == ["resume", "cancel"]
    Pause.objects.all().delete()
    t.move([emails[0].pk], t.CANCEL)
    assert offered() == []
    assert "data-mailer-refresh" not in client.get(batch_page(batch)).content.decode()


# Deleting.

LIST = "/admin/celery_mailer/batch/"


def delete(client, batch, how):
    if how == "page":
        return client.post(batch_page(batch, "delete"), {"post": "yes"}, follow=True)
    selected = {"action": "delete_selected", "_selected_action": [str(batch.pk)], "post": "yes"}
    return client.post(LIST, selected, follow=True)


@pytest.mark.parametrize("how", ["page", "list"])
@pytest.mark.parametrize("status", ["queued", "sending", "uncertain"])
def test_a_batch_that_is_not_finished_is_not_deleted(admin, status, how):  # noqa: F811
    batch, emails = make_batch(2)
    pause("batch", str(batch.pk), "a wrong price")
    t.move([emails[0].pk], t.CANCEL)
    if status != "queued":
        token = claim(emails[1:])
    if status == "uncertain":
        t.move([emails[1].pk], t.DOUBT, claim=token)
    assert "not finished" in text_of(delete(admin, batch, how))
    assert Email.objects.filter(batch=batch).count() == 2
    assert Pause.objects.exists()


@pytest.mark.parametrize("how", ["page", "list"])
def test_a_batch_that_is_finished_is_deleted_with_its_pause(admin, how):  # noqa: F811
    batch, emails = make_batch(1)
    pause("batch", str(batch.pk), "a wrong price")
    pause("lane", "low", "moving")
    t.move([emails[0].pk], t.CANCEL)
    assert delete(admin, batch, how).status_code == 200
    assert not Batch.objects.exists()
    assert Email.objects.get().batch is None
    assert Pause.objects.get().kind == "lane"


def test_the_page_offers_to_delete_what_is_finished(admin, login):  # noqa: F811
    batch, emails = make_batch(1)
    place = batch_page(batch, "delete")
    assert place not in admin.get(batch_page(batch)).content.decode()
    t.move([emails[0].pk], t.CANCEL)
    assert place in admin.get(batch_page(batch)).content.decode()
    assert place not in login("view_batch").get(batch_page(batch)).content.decode()


@pytest.mark.parametrize("how", ["page", "list"])
def test_deleting_a_batch_needs_the_permission(login, how):  # noqa: F811
    batch, emails = make_batch(1)
    t.move([emails[0].pk], t.CANCEL)
    delete(login("view_batch", "delete_email"), batch, how)
    assert Batch.objects.exists()
