"""What happens in the shop during the demo, and what is to become of each email.

Called after ``django.setup()``: it is the shop's own code that runs here, its views among it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.test import Client
from django.urls import reverse

from celery_mailer.signals import email_queued
from celery_mailer.values import Status
from demo.mailserver import DEFERRED_ONCE, REFUSED
from shop import services
from shop.models import Customer, Product

READERS = 200
LATER = timedelta(seconds=4)


@dataclass
class Scene:
    """Something that happens, and the emails that come of it."""

    title: str
    act: Callable[[], object]
    status: Status = Status.SENT
    attempts: int = 1
    expected: int = 1  # emails
    emails: list[UUID] = field(default_factory=list)


def scenes() -> list[Scene]:
    return [
        Scene(f"A newsletter to {READERS} customers, low priority", send_newsletter, expected=READERS),
        Scene(
            "Behind it, Ada signs up: a welcome, high priority", lambda: sign_up("Ada", "ada@demo.example")
        ),
        Scene("Ada orders a teapot: a confirmation, medium priority", order),
        Scene(f"Ada is to be asked for a review, {LATER.seconds} seconds later", ask_for_review),
        Scene("Ada forgot her password: Django's own mail, through EMAIL_BACKEND", reset_password),
        Scene("Bob signs up, but the transaction is rolled back: no mail", sign_up_in_vain, expected=0),
        Scene(
            "A signup with an address that its server refuses",
            lambda: sign_up("Gus", REFUSED),
            status=Status.FAILED,
        ),
        Scene(
            "A signup whose server says: come back later", lambda: sign_up("Bea", DEFERRED_ONCE), attempts=2
        ),
    ]


def play(scene: Scene) -> None:
    """Let ``scene`` happen, and note which emails were committed for it."""
    with _noting(scene.emails):
        scene.act()


@contextmanager
def _noting(ids: list[UUID]) -> Iterator[None]:
    def note(emails: list, **kwargs: object) -> None:
        ids.extend(email.pk for email in emails)

    email_queued.connect(note)
    try:
        yield
    finally:
        email_queued.disconnect(note)


def set_the_stage() -> None:
    """Customers for the newsletter, and a teapot; what an earlier run left of them goes first."""
    Customer.objects.filter(email__endswith="@demo.example").delete()
    addresses = [f"reader{n:03}@demo.example" for n in range(1, READERS + 1)]
    Customer.objects.bulk_create(
        Customer(username=a, email=a, first_name=a.partition("@")[0]) for a in addresses
    )
    Product.objects.get_or_create(name="Teapot", defaults={"price": "24.90"})


def send_newsletter() -> None:
    services.send_newsletter("The new blue glaze is here", "It took us two years. See it in the shop.")


def sign_up(name: str, email: str) -> None:
    _post("sign_up", {"first_name": name, "email": email, "password": "earl-grey-418"})


def order() -> None:
    services.place_order(_ada(), Product.objects.get(name="Teapot"), quantity=2)


def ask_for_review() -> None:
    services.ask_for_review(_ada().orders.get(), after=LATER)


def reset_password() -> None:
    _post("password_reset", {"email": _ada().email})


class CardDeclined(Exception):
    pass


def sign_up_in_vain() -> None:
    with suppress(CardDeclined), transaction.atomic():
        services.sign_up("Bob", "bob@demo.example", "lapsang-418")
        raise CardDeclined


def _ada() -> Customer:
    return Customer.objects.get(email="ada@demo.example")


def _post(view: str, data: dict[str, str]) -> None:
    response = Client(SERVER_NAME="localhost").post(reverse(view), data)
    if response.status_code != 302:
        raise RuntimeError(f"{view} answered {response.status_code}")
