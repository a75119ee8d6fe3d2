"""Whoever may only look changes nothing, by any URL or method; nobody changes anything by a GET.

The URLs are those that the resolver knows, so that no new one is forgotten.
"""

import re
from collections.abc import Iterator

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.core.signals import request_finished
from django.db import close_old_connections
from django.urls import URLResolver, get_resolver
from django.utils import timezone

from celery_mailer import chain
from celery_mailer.acts import ACTS
from celery_mailer.models import (
    CapturedMessage,
    EmailTemplate,
    Enclosure,
    Event,
    Pause,
    ProviderState,
    Suppression,
)
from celery_mailer.models.pause import pause
from celery_mailer.models.suppression import Entry, suppress
from celery_mailer.tracking.events import Happening, record
from celery_mailer.values import EventKind, SuppressionReason
from tests.factories import make_email
from tests.test_admin_emails import make_batch

pytestmark = pytest.mark.django_db

UNSAFE = ("post", "put", "patch", "delete")
SAFE = ("get", "head", "options")
METHODS = (*SAFE, *UNSAFE)
RAW = b"""Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/html; name=a.html

<p>Hello</p>
--b--
"""
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
    """A row of everything that has pages, by what its URLs are called."""
    monkeypatch.setattr(chain, "start", lambda ids, priority: pytest.fail("a chain was started"))
    template = EmailTemplate.objects.create(name="hello", subject="Hello", language="en")
    batch, _ = make_batch(2)
    email = make_email(html_message="<p>x</p>", attachments=[("a.txt", b"harmless", "text/plain")])
    pause("lane", "low", "x")
    suppress([Entry("a@example.com", SuppressionReason.MANUAL)])
    record([Happening(EventKind.DELIVERED, timezone.now(), "a@example.com")])
    return {
        "batch": batch,
        "captured": CapturedMessage.objects.create(email=email, raw=RAW, recipients=["a@example.com"]),
        "email": email,
        "emailtemplate": template,
        "enclosure": Enclosure.objects.get(),
        "event": Event.objects.get(),
        "providerstate": ProviderState.objects.create(alias="default"),
        "suppression": Suppression.objects.get(),
        "version": template.version(),
    }


def addresses(rows) -> list[str]:
    """Every URL of the app that is for the staff, each with rows that are there."""
    found = [address for route in routes(get_resolver()) for address in filled(route, rows)]
    assert not [address for address in found if set(address) & set("<>^$()?")]
    return found


def routes(resolver, before="") -> Iterator[str]:
    """As ``admin/celery_mailer/email/<path:object_id>/change/``."""
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern, route)
        elif route.startswith("admin/^(?P<app_label>"):
            yield "admin/celery_mailer/"
        elif route.startswith(("admin/celery_mailer/", "inbox/")):
            yield route


def filled(route, rows) -> list[str]:
    kind = route.split("/")[2] if route.startswith("admin/celery_mailer/") else "captured"
    pks = {name: str(row.pk) for name, row in rows.items()}
    pks |= {name: pks.get(kind, "") for name in ("pk", "object_id")} | {"number": "1"}
    acts = ACTS if "<slug:name>" in route else [""]
    return [
        "/" + re.sub(r"<\w+:(\w+)>", lambda match: {**pks, "name": act}[match[1]], route)  # noqa: B023
        for act in acts
    ]


def everything() -> dict[str, list[tuple[object, ...]]]:
    """All rows of all apps."""
    return {
        model._meta.label: sorted(model._base_manager.values_list(), key=repr)
        for model in apps.get_models()
        if model._meta.label != "sessions.Session"  # which says who looked, and when
    }


def staff(*codenames):
    user = User.objects.create_user("bob", "bob@example.com", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def ask(client, method, address, **more):
    data = {**ASKED, **more} if method in ("get", "post") else None
    response = getattr(client, method)(address, data)
    if response.streaming:
        # End it, and leave the test's transaction alone, as the test client sees to it for its part.
        request_finished.disconnect(close_old_connections)
        response.close()
        request_finished.connect(close_old_connections)
    return response.status_code


def test_view_only_staff_change_nothing_by_any_url_or_method(client, rows):
    viewing = Permission.objects.filter(content_type__app_label="celery_mailer", codename__startswith="view_")
    client.force_login(staff("read_email", *viewing.values_list("codename", flat=True)))
    before, found = everything(), addresses(rows)
    assert len(found) > 50
    for address in found:
        for method in METHODS:
            status = ask(client, method, address, _selected_action=[str(rows["email"].pk)])
            # 200: what may be looked at, and a list, which is shown as after a GET.
            assert status in (200, 301, 302, 403, 404, 405), f"{method} {address}"
            assert everything() == before, f"{method} {address}"


def test_nobody_changes_anything_by_a_get(client, rows):
    client.force_login(User.objects.create_superuser("ada"))
    before = everything()
    for address in addresses(rows):
        for method in SAFE:
            ask(client, method, address)
            assert everything() == before, f"{method} {address}"


def test_the_anonymous_see_and_change_nothing(client, rows):
    before = everything()
    for address in addresses(rows):
        for method in METHODS:
            assert ask(client, method, address) in (302, 403, 405), f"{method} {address}"
    assert everything() == before
    assert Pause.objects.count() == 1


def test_each_url_leads_to_a_page_of_a_row_that_is_there(client, rows):
    """Else the tests above would prove nothing."""
    client.force_login(User.objects.create_superuser("ada"))
    asked = {address: ask(client, "get", address) for address in addresses(rows)}
    # 403: what is not to be added by hand; 405: what needs a POST.
    assert {a: status for a, status in asked.items() if status not in (200, 302, 403, 405)} == {}
