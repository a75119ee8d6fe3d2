"""The admin's pages about providers, and their switches."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from celery_mailer.admin import health
from celery_mailer.deliver import limits
from celery_mailer.deliver.breaker import breakers
from celery_mailer.deliver.buckets.process import ProcessBuckets
from celery_mailer.models import Pause, ProviderChange, ProviderState
from celery_mailer.models.pause import pause
from tests.factories import claim, make_attempt, make_email
from tests.test_admin_emails import admin, login, make_batch, text_of  # noqa: F401 fixtures

pytestmark = pytest.mark.django_db

LIST = reverse("admin:celery_mailer_providerstate_changelist")
SMTP = "django.core.mail.backends.smtp.EmailBackend"
PROVIDER = {"kind": "provider", "name": "default"}
LATER = "2999-01-01T10:00"


@pytest.fixture(autouse=True)
def providers(settings, monkeypatch):
    """Two of them; the limits are counted by this test alone."""
    settings.CELERY_MAILER = {
        "PROVIDERS": {
            "default": {"BACKEND": SMTP, "OPTIONS": {"password": "hunter2"}, "DAILY_QUOTA": 50},
            "a/b c": {"BACKEND": SMTP},
        }
    }
    store = ProcessBuckets()
    monkeypatch.setattr(limits, "store", lambda: store)


def url(name):
    return reverse(f"admin:celery_mailer_providerstate_{name}")


def page(alias):
    from django.contrib.admin.utils import quote

    return reverse("admin:celery_mailer_providerstate_change", args=[quote(alias)])


# The pages.


def test_each_provider_of_the_settings_is_there_also_one_nothing_was_heard_of(admin):  # noqa: F811
    text = text_of(admin.get(LIST))
    assert "default State in use" in text
    assert "a/b c State in use" in text
    assert SMTP in text


def test_the_page_shows_no_secret(admin):  # noqa: F811
    assert "hunter2" not in admin.get(LIST).content.decode()
    assert "hunter2" not in admin.get(page("default")).content.decode()


def test_the_page_shows_the_state_of_a_breaker_and_the_last_fault(admin):  # noqa: F811
    now = timezone.now()
    ProviderState.objects.create(
        alias="default", state="open", retry_at=now, kind="connection", text="no route to host", fault_at=now
    )
    text = text_of(admin.get(LIST))
    for words in ("left alone", "could not be reached", "no route to host"):
        assert words in text


def test_the_page_shows_the_log_of_a_breaker(admin):  # noqa: F811
    at = datetime(2030, 1, 1, 12, 30, 5, tzinfo=UTC)
    ProviderChange.objects.create(
        alias="default", at=at, from_state="closed", to_state="open", reason="connection", detail="<timeout>"
    )
    text = text_of(admin.get(page("default")))
    for words in ("left alone", "could not be reached", "&lt;timeout&gt;"):
        assert words in text


def test_a_provider_that_is_not_in_the_settings_is_a_404(admin):  # noqa: F811
    assert admin.get(page("a/b c")).status_code == 200
    assert admin.get(page("nobody")).status_code == 404


def test_the_page_shows_the_limits_in_use(admin):  # noqa: F811
    limits.store().take([{limits._of_provider("default")[-1]: 7}], 0, 0, "t")
    assert "daily quota 7 of 50" in text_of(admin.get(LIST))


def test_the_page_says_so_while_nobody_knows_the_limits(admin, monkeypatch):  # noqa: F811
    monkeypatch.setattr(health, "usage", lambda aliases: None)
    assert "store of limits does not answer" in text_of(admin.get(LIST))


def test_the_page_shows_what_came_of_the_last_attempts(admin, monkeypatch):  # noqa: F811
    monkeypatch.setattr(health, "LAST", 3)
    email = make_email()
    token = claim([email])
    for outcome in ("rejected", "accepted", "deferred", "accepted"):
        make_attempt(email, token, outcome)
    assert "accepted 2, deferred 1" in text_of(admin.get(LIST))


def test_the_page_costs_the_same_however_many_providers_there_are(admin, settings):  # noqa: F811
    def queries():
        with CaptureQueriesContext(connection) as found:
            assert admin.get(LIST).status_code == 200
        return len(found)

    few = queries()
    settings.CELERY_MAILER = {"PROVIDERS": {f"p{n}": {"BACKEND": SMTP} for n in range(9)}}
    assert queries() == few


def test_the_pages_have_no_inline_scripts_and_styles(admin):  # noqa: F811
    for place in (LIST, page("default")):
        own = admin.get(place).content.decode().partition('id="content-main"')[2]
        assert not re.search(r"<style|<script(?![^>]*src=)| style=| on\w+=", own)


# The switches.


@pytest.mark.parametrize(
    ("kind", "name"), [("provider", "default"), ("lane", "low"), ("stream", "marketing")]
)
def test_what_can_be_paused_is_paused_with_a_reason_and_an_end(admin, kind, name):  # noqa: F811
    data = {"kind": kind, "name": name, "reason": "a fault in the template", "until": LATER}
    text = text_of(admin.post(url("pause"), data, follow=True))
    row = Pause.objects.get()
    assert (row.kind, row.name, row.reason, row.by) == (kind, name, "a fault in the template", "ada")
    assert row.until == datetime(2999, 1, 1, 10, tzinfo=timezone.get_current_timezone())
    assert f"“{name}” is paused" in text
    assert "a fault in the template" in text


def test_a_pause_may_have_no_end(admin):  # noqa: F811
    admin.post(url("pause"), {**PROVIDER, "reason": "x", "until": ""})
    assert Pause.objects.get().until is None


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({**PROVIDER}, "Reason: This field is required"),
        ({**PROVIDER, "reason": "x", "until": "2020-01-01T10:00"}, "Give a time to come"),
        ({**PROVIDER, "reason": "x", "until": "soon"}, "Enter a valid date/time"),
        ({"kind": "provider", "name": "nobody", "reason": "x"}, "Known: default, a/b c"),
        ({"kind": "planet", "name": "mars", "reason": "x"}, "Select a valid choice"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_paused(admin, data, fault):  # noqa: F811
    assert fault in text_of(admin.post(url("pause"), data, follow=True))
    assert not Pause.objects.exists()


def test_what_is_paused_can_be_resumed(admin):  # noqa: F811
    pause("lane", "low", "x")
    assert "“low” goes on" in text_of(admin.post(url("resume"), {"kind": "lane", "name": "low"}, follow=True))
    assert not Pause.objects.exists()


@pytest.mark.parametrize(("name", "left"), [("pause", 0), ("resume", 1)])
def test_a_batch_is_not_paused_or_resumed_with_the_permission_for_providers(login, name, left):  # noqa: F811
    batch, _ = make_batch(1)
    subject = {"kind": "batch", "name": str(batch.pk)}
    if left:
        pause(**subject, reason="a wrong price")
    client = login("view_providerstate", "switch_provider")
    response = client.post(url(name), {**subject, "reason": "x"}, follow=True)
    assert "Select a valid choice" in text_of(response)
    assert Pause.objects.count() == left


def test_resuming_what_is_not_paused_says_so(admin):  # noqa: F811
    assert "was not paused" in text_of(admin.post(url("resume"), PROVIDER, follow=True))


def test_a_breaker_is_opened_and_closed(admin):  # noqa: F811
    admin.post(url("open"), {**PROVIDER, "until": LATER})
    assert ProviderState.objects.get().state == "open"
    breakers.forget()
    assert "Use again" in text_of(admin.get(LIST))
    admin.post(url("close"), PROVIDER)
    assert ProviderState.objects.get().state == "closed"
    assert [change.detail for change in ProviderChange.objects.order_by("pk")] == ["by ada", "by ada"]


@pytest.mark.parametrize("name", ["open", "close"])
@pytest.mark.parametrize("wrong", [{"name": "nobody"}, {"kind": "stream", "name": "marketing"}])
def test_only_a_provider_has_a_breaker(admin, name, wrong):  # noqa: F811
    response = admin.post(url(name), {**PROVIDER, "until": LATER, **wrong}, follow=True)
    assert "errornote" in str(response.content) or "Known" in text_of(response) or "Only" in text_of(response)
    assert not ProviderState.objects.exists()


def test_who_switched_is_in_the_log_of_the_admin(admin):  # noqa: F811
    admin.post(url("pause"), {**PROVIDER, "reason": "x"})
    admin.post(url("resume"), PROVIDER)
    admin.post(url("open"), {**PROVIDER, "until": LATER})
    admin.post(url("close"), PROVIDER)
    messages = LogEntry.objects.order_by("pk").values_list("change_message", flat=True)
    assert list(messages) == ["Paused: x", "Resumed", "Left alone", "Used again"]


SWITCHES = {
    "pause": {**PROVIDER, "reason": "x"},
    "resume": PROVIDER,
    "open": {**PROVIDER, "until": LATER},
    "close": PROVIDER,
}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_needs_a_post(admin, name):  # noqa: F811
    assert admin.get(url(name), SWITCHES[name]).status_code == 405


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_needs_its_permission(login, name):  # noqa: F811
    client = login("view_providerstate", "pause_batch", "cancel_email")
    assert "<form method" not in client.get(LIST).content.decode().partition('id="content-main"')[2]
    assert client.post(url(name), SWITCHES[name]).status_code == 403
    assert not Pause.objects.exists()
    assert not ProviderState.objects.exists()
    User.objects.get().user_permissions.add(Permission.objects.get(codename="switch_provider"))
    assert client.post(url(name), SWITCHES[name]).status_code == 302


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_needs_the_csrf_token(name):
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("ada"))
    assert client.post(url(name), SWITCHES[name]).status_code == 403


def test_the_pages_need_the_permission_to_view(login):  # noqa: F811
    client = login("switch_provider", "view_email")
    assert [client.get(place).status_code for place in (LIST, page("default"))] == [403, 403]
    assert client.post(url("pause"), SWITCHES["pause"]).status_code == 403


def test_a_pause_that_is_over_is_none(admin):  # noqa: F811
    pause("provider", "default", "lunch", until=timezone.now() + timedelta(hours=1))
    Pause.objects.update(until=timezone.now() - timedelta(seconds=1))
    assert "lunch" not in text_of(admin.get(LIST))
