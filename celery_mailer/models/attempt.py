"""One hand-over of one email to one provider, and what came of it. A fact: written once, never changed."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.db import models

from celery_mailer.models.email import Email
from celery_mailer.values import Outcome, uuid7


class Attempt(models.Model):
    """``claim`` is the email's claim under which it was made, so that log judges each fact once."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.ForeignKey(Email, models.CASCADE, related_name="attempts", db_index=False)
    claim = models.UUIDField()
    provider = models.CharField(max_length=64)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    outcome = models.CharField(max_length=10, choices=Outcome)
    kind = models.CharField(max_length=20, blank=True, help_text="kind of failure")
    phase = models.CharField(max_length=10, blank=True, help_text="step of the session in which it ended")
    code = models.PositiveSmallIntegerField(null=True, help_text="the server's status code")
    text = models.TextField(blank=True, help_text="the server's words")
    recipients = models.JSONField(default=dict, help_text="address: [outcome, code, text]")

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="mailer_attempt_outcome", condition=models.Q(outcome__in=Outcome.values)
            )
        ]
        indexes = [models.Index(fields=["email", "id"], name="mailer_attempt_email_idx")]

    def __str__(self) -> str:
        return f"{self.outcome} by {self.provider}"


def final_recipients(email_ids: Collection[UUID]) -> dict[UUID, dict[str, Outcome]]:
    """By email and bare address: who has it by an earlier attempt, or was refused for good.

    Neither is ever to be asked again. Attempts that went the same way for all leave nothing here.
    """
    found: dict[UUID, dict[str, Outcome]] = {}
    if email_ids:
        rows = Attempt.objects.filter(email_id__in=email_ids).exclude(recipients={})
        for email_id, recipients in rows.values_list("email_id", "recipients"):
            found.setdefault(email_id, {}).update(final_in(recipients))
    return found


def final_in(recipients: dict[str, list[Any]]) -> dict[str, Outcome]:
    """Of one attempt's ``recipients``, those with an answer that stands."""
    outcomes = {address: Outcome(outcome) for address, (outcome, *_) in recipients.items()}
    return {a: o for a, o in outcomes.items() if o in (Outcome.ACCEPTED, Outcome.REJECTED)}
