"""What the shop does, and the emails that belong to it: each is part of the transaction it is written in."""

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from celery_mailer import mail
from celery_mailer.tasks import send_email
from shop.models import Customer, Order, Product


@transaction.atomic
def sign_up(name: str, email: str, password: str) -> Customer:
    """A new customer, and a welcome that does not wait behind a newsletter."""
    customer = Customer.objects.create_user(username=email, email=email, password=password, first_name=name)
    send_email.delay(
        template="emails/welcome.html", context={"name": name}, recipient_list=[email], priority="high"
    )
    return customer


@transaction.atomic
def place_order(customer: Customer, product: Product, quantity: int = 1) -> Order:
    """An order and its confirmation; the key keeps a repeated call from confirming it twice."""
    order = Order.objects.create(customer=customer, product=product, quantity=quantity)
    send_email.delay(
        template="emails/order_confirmation.html",
        context=_about(order),
        recipient_list=[customer.email],
        idempotency_key=f"order-{order.pk}-confirmation",
    )
    return order


def ask_for_review(order: Order, after: timedelta = timedelta(days=7)) -> None:
    send_email.delay(
        template="emails/review_request.html",
        context=_about(order),
        recipient_list=[order.customer.email],
        scheduled_at=timezone.now() + after,
        priority="low",
    )


def send_newsletter(headline: str, story: str) -> int:
    """One email for each customer who wants it, as one batch; returns how many."""
    readers = Customer.objects.filter(wants_newsletter=True, unreachable=False)
    emails = mail.send_many(
        {
            "recipients": [reader.email],
            "template": "emails/newsletter.html",
            "context": {"name": reader.first_name, "headline": headline, "story": story},
            "priority": "low",
            "stream": "marketing",
        }
        for reader in readers
    )
    return len(emails)


def _about(order: Order) -> dict[str, object]:
    return {
        "name": order.customer.first_name,
        "number": order.pk,
        "product": order.product.name,
        "quantity": order.quantity,
        "total": str(order.total),
    }
