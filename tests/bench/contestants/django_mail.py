"""Django by itself, in the process of the caller."""

from collections.abc import Iterator
from typing import Any

from tests.bench import workload
from tests.bench.contestants.base import Contestant


class DjangoMail(Contestant):
    name = "django"
    title = "Django: send_mail; bulk over one connection"

    def one(self, i: int) -> None:
        send_mail(i)

    def bulk(self, first: int, count: int) -> None:
        from django.core.mail import get_connection

        get_connection().send_messages(list(messages(first, count)))


def send_mail(i: int) -> None:
    """Django's function, with what its user would write around it."""
    from django.core import mail

    subject, text, html = rendered(workload.context(i))
    mail.send_mail(subject, text, None, [workload.address(i)], html_message=html)


def messages(first: int, count: int) -> Iterator[Any]:
    from django.core.mail import EmailMultiAlternatives

    for recipient in workload.recipients(first, count):
        subject, text, html = rendered(recipient["context"])
        message = EmailMultiAlternatives(subject, text, None, [recipient["email"]])
        message.attach_alternative(html, "text/html")
        yield message


def rendered(context: dict[str, Any]) -> tuple[str, str, str]:
    """Subject, text and HTML, from templates that Django keeps compiled."""
    from django.template.loader import render_to_string

    subject = render_to_string(workload.SUBJECT, context).strip()
    return subject, render_to_string(workload.TEXT, context), render_to_string(workload.TEMPLATE, context)
