"""Whoever may only look changes nothing, by any URL or method; nobody changes anything by a GET."""

from collections.abc import Iterator

import pytest
from django.apps import apps
from django.contrib import admin as django_admin
from django.contrib.auth.models import Permission, User
from django.core.signals import request_finished
from django.db import close_old_connections
from django.urls import reverse
from django.utils import timezone

from celery_mailer import chain
from celery_mailer.models import Batch, Email, EmailTemplate, Event, Pause, ProviderState, Suppression
from celery_mailer.models.pause import pause
from celery_mailer.models.suppression import Entry, suppress
from celery_mailer.tracking.events import Happening, record
from celery_mailer.values import EventKind, SuppressionReason
from tests.factories import make_email
from tests.test_admin_emails import make_batch

pytestmark = pytest.mark.django_db

UNSAFE = ("post", "put", "patch", "delete")
# What a form could ask for, all at once; a view takes what it knows.
ASKED = {
    "post": "yes",
    "action": "cancel_selected",
    "kind": "provider",
    "name": "default",
    "reason": "x",
    "until": "2999-01-01T10:00",
    "subject": "changed",
    "_save": "Save",
}


@pytest.fixture
def rows(monkeypatch):
    """Something of everything that has pages."""
    monkeypatch.setattr(chain, "start", lambda ids, priority: pytest.fail("a chain was started"))
    template = EmailTemplate.objects.create(name="hello", subject="Hello", language="en")
    template.version()
    batch, _ = make_batch(2)
    make_email(html_message="<p>x</p>", attachments=[("a.txt", b"harmless", "text/plain")])
    ProviderState.objects.create(alias="default")
    pause("lane", "low", "x")
    suppress([Entry("a@example.com", SuppressionReason.MANUAL)])
    record([Happening(EventKind.DELIVERED, timezone.now(), "a@example.com")])
    found = {model: model.objects.get() for model in (Event, Suppression)}
    return found | {Email: Email.objects.get(batch=None), Batch: batch, EmailTemplate: template}


def addresses(rows) -> Iterator[str]:
    """Every URL of the app's admin."""
    for model, model_admin in django_admin.site._registry.items():
        if model._meta.app_label != "celery_mailer":
            continue
        row = rows.get(model) or ProviderState.objects.get()
        for pattern in model_admin.get_urls():
            if pattern.name is None:
                continue  # Django's old redirect
            names = {name: value_of(name, row) for name in pattern.pattern.converters}
            yield reverse(f"admin:{pattern.name}", kwargs=names)


def value_of(name, row):
    known = {"name": "cancel", "enclosure": 1, "version": 1}
    return known.get(name, row.pk)


def everything() -> dict[str, list[tuple[object, ...]]]:
    return {
        model._meta.label: sorted(model.objects.values_list(), key=repr)
        for model in apps.get_app_config("celery_mailer").get_models()
    }


def staff(*codenames):
    user = User.objects.create_user("bob", "bob@example.com", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def test_view_only_staff_change_nothing_by_any_url_or_method(client, rows):
    viewing = Permission.objects.filter(content_type__app_label="celery_mailer", codename__startswith="view_")
    client.force_login(staff("read_email", *viewing.values_list("codename", flat=True)))
    before, found = everything(), list(addresses(rows))
    assert len(found) > 30
    for address in found:
        for method in UNSAFE:
            data = {**ASKED, "_selected_action": [str(rows[Email].pk)]}
            answer = getattr(client, method)(address, data if method == "post" else None)
            # 200: a list, which is shown as after a GET.
            assert answer.status_code in (200, 302, 403, 404, 405), f"{method} {address}"
            assert everything() == before, f"{method} {address}"


def close(response):
    """End it, and leave the test's transaction alone, as the test client sees to it for its part."""
    request_finished.disconnect(close_old_connections)
    response.close()
    request_finished.connect(close_old_connections)


def test_nobody_changes_anything_by_a_get(client, rows):
    client.force_login(User.objects.create_superuser("ada"))
    before = everything()
    for address in addresses(rows):
        close(client.get(address, ASKED))
        assert everything() == before, address


def test_the_anonymous_change_nothing(client, rows):
    before = everything()
    for address in addresses(rows):
        for method in UNSAFE:
            assert getattr(client, method)(address).status_code in (302, 403, 405), f"{method} {address}"
    assert everything() == before
    assert Pause.objects.count() == 1
