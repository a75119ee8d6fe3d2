"""Cancelling a batch, and its buttons in the admin."""

import pytest
from celery import current_app
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from kombu.exceptions import OperationalError

from celery_mailer import cancelling, routing
from celery_mailer.cancelling import begin, cancel_batch
from celery_mailer.models import Decision, Email, Pause
from celery_mailer.models import transitions as t
from celery_mailer.models.pause import pause
from tests.factories import claim, make_email
from tests.test_admin_emails import admin, batch_page, login, make_batch, text_of  # noqa: F401 fixtures

pytestmark = pytest.mark.django_db


@pytest.fixture
def published(monkeypatch):
    """What the task was published with."""
    found = []
    monkeypatch.setattr(cancel_batch, "apply_async", lambda args, **options: found.append(args))
    return found


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(cancelling, "STEP", 2)
    monkeypatch.setattr(cancelling, "AT_ONCE", 3)
    monkeypatch.setattr(cancelling, "IN_A_TASK", 4)
    monkeypatch.setattr("celery_mailer.admin.batches.AT_ONCE", 3)


def statuses():
    return sorted(Email.objects.values_list("status", flat=True))


def test_a_small_batch_is_cancelled_at_once(published):
    batch, _ = make_batch(3)
    other = make_email()
    assert begin(batch.pk, "ada") == (3, True)
    assert statuses() == ["cancelled"] * 3 + ["queued"]
    assert Email.objects.get(status="queued") == other
    assert not published
    assert not Pause.objects.exists()
    assert {(d.move, d.reason, d.detail) for d in Decision.objects.all()} == {("cancel", "by_hand", "by ada")}


def test_the_rest_of_a_large_one_is_paused_and_left_to_a_task(published, small):
    batch, _ = make_batch(9)
    assert begin(batch.pk, "ada") == (3, True)
    assert published == [(str(batch.pk), "ada")]
    assert statuses().count("cancelled") == 3
    assert Pause.objects.get().name == str(batch.pk)


def test_the_task_goes_on_until_nothing_waits(published, small):
    batch, _ = make_batch(9)
    begin(batch.pk, "ada")
    while published:
        cancel_batch(*published.pop())
    assert statuses() == ["cancelled"] * 9
    assert not Pause.objects.exists()


def test_what_a_worker_has_and_what_is_final_stays(published):
    batch, emails = make_batch(3)
    claim([emails[0]])
    t.move([emails[1].pk], t.EXPIRE, reason="expired")
    begin(batch.pk, "ada")
    assert statuses() == ["cancelled", "expired", "sending"]


def test_while_the_broker_is_down_the_rest_is_paused(monkeypatch, small, admin):  # noqa: F811
    def refuse(args, **options):
        raise OperationalError

    monkeypatch.setattr(cancel_batch, "apply_async", refuse)
    batch, _ = make_batch(9)
    text = text_of(admin.post(batch_page(batch, "cancel"), follow=True))
    assert "The broker does not answer" in text
    assert "paused" in text
    assert Pause.objects.exists()


def test_cancelling_again_goes_on(published, small):
    batch, _ = make_batch(5)
    begin(batch.pk, "ada")
    begin(batch.pk, "ada")
    assert statuses() == ["cancelled"] * 5
    assert not Pause.objects.exists()


def test_cancelling_does_not_wait_behind_newsletters():
    route = current_app.amqp.router.route({}, routing.CANCEL_BATCH)
    assert route["queue"].name == "mail.high"


# In the admin.


def test_a_large_batch_says_that_a_worker_goes_on(published, small, admin):  # noqa: F811
    batch, _ = make_batch(9)
    assert "A worker cancels the others" in text_of(admin.post(batch_page(batch, "cancel"), follow=True))


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
