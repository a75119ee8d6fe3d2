"""Rows for tests, made by the one door behind all doors."""

from datetime import timedelta
from uuid import uuid4

from django.utils import timezone

from celery_mailer.enqueue import enqueue
from celery_mailer.models import Attempt, Email
from celery_mailer.models.transitions import CLAIM, move
from celery_mailer.values import EmailRequest


def make_email(**arguments):
    """One queued email whose chain nobody started."""
    values = {"to": "a@example.com", "subject": "s", "message": "m", **arguments}
    return enqueue([EmailRequest(**values)], start=False)[0]


def make_emails(number, **arguments):
    values = {"subject": "s", "message": "m", **arguments}
    return enqueue([EmailRequest(to=f"u{i}@example.com", **values) for i in range(number)], start=False)


def claim(emails, lease=timedelta(minutes=2)):
    """The token under which ``emails`` are now claimed."""
    token = uuid4()
    ids = [e.pk for e in emails]
    assert move(ids, CLAIM, lease_until=timezone.now() + lease, token=token) == ids
    return token


def make_attempt(email, token, outcome="accepted", **values):
    now = timezone.now()
    fields = {"provider": "default", "started_at": now, "finished_at": now, **values}
    return Attempt.objects.create(email=email, claim=token, outcome=outcome, **fields)


def stored(email):
    return Email.objects.get(pk=email.pk)
