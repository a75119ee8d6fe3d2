import time
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser

from celery_mailer import chain
from celery_mailer.enqueue import enqueue
from celery_mailer.exceptions import InvalidEmail
from celery_mailer.management.base import JsonCommand
from celery_mailer.models import Email
from celery_mailer.values import FINAL, EmailRequest, Status

LOOK = 0.2  # seconds
OF_ATTEMPT = ("provider", "outcome", "kind", "code", "text")


class Command(JsonCommand):
    help = "Send a test email and tell what became of it; ends with status 1 if no provider accepted it."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("to", help="an address")
        parser.add_argument("--provider", help="an alias; else as routed")
        parser.add_argument(
            "--queue", action="store_true", help="by the broker and a worker, in the place of this process"
        )
        parser.add_argument("--wait", type=float, default=30, help="seconds that a worker has, with --queue")

    def handle(self, *args: Any, **options: Any) -> None:
        request = EmailRequest(
            to=options["to"],
            subject="Test email of celery_mailer",
            message="If you can read this, mail goes out.\n",
            priority="high",
            provider=options["provider"],
        )
        try:
            (email,) = enqueue([request], start=options["queue"])
        except InvalidEmail as error:
            raise CommandError(str(error)) from None
        if options["queue"]:
            _await(email, options["wait"])
        else:
            chain.run([email.pk])
        email.refresh_from_db()
        self._report(email, options)

    def _report(self, email: Email, options: Any) -> None:
        result = {
            "id": email.pk,
            "status": email.status,
            "reason": email.reason,
            "attempts": list(email.attempts.order_by("pk").values(*OF_ATTEMPT)),
        }
        self.tell(result, "\n".join(_in_words(email)), options)
        if email.status != Status.SENT:
            raise CommandError(_advice(email, options["queue"]))


def _await(email: Email, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        email.refresh_from_db()
        if email.status in FINAL or (email.attempts.exists() and email.status != Status.SENDING):
            return
        time.sleep(LOOK)


def _in_words(email: Email) -> Iterator[str]:
    for attempt in email.attempts.order_by("pk"):
        yield " ".join(str(word) for name in OF_ATTEMPT if (word := getattr(attempt, name)))
    for decision in email.decisions.order_by("pk"):
        yield f"{decision.status} ({decision.reason}) {decision.detail}".strip()
    yield f"email {email.pk}: {email.status}"


def _advice(email: Email, queue: bool) -> str:
    if queue and email.status == Status.QUEUED:
        return "No worker has taken it: mailer_doctor looks for the cause."
    if email.status in FINAL:
        return "It was not sent, and is not tried again."
    return f"It was not sent yet, and stays {email.status}: mailer_cancel {email.pk} ends that."
