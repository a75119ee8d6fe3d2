"""Why an email moved, where no attempt says it: a row for each decision off the plain path.

The plain path (queued, sending, sent) needs none: the email and its attempts tell it. Deferred until t,
expired, failed, uncertain, rescued: each is a row with a typed reason, so that an email can explain
itself without anybody reading a log file.
"""

from django.db import models
from django.utils import timezone

from celery_mailer.models.email import Email
from celery_mailer.values import Status, uuid7


class Decision(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.ForeignKey(Email, models.CASCADE, related_name="decisions", db_index=False)
    at = models.DateTimeField(default=timezone.now)
    move = models.CharField(max_length=20, help_text="the move's name in models.transitions")
    status = models.CharField(max_length=10, choices=Status, help_text="the status it led to")
    reason = models.CharField(max_length=40, blank=True)
    detail = models.TextField(blank=True, help_text="what a person needs to mend it")
    until = models.DateTimeField(null=True, help_text="when the email is due again")

    class Meta:
        indexes = [models.Index(fields=["email", "id"], name="mailer_decision_email_idx")]

    def __str__(self) -> str:
        return f"{self.move}: {self.status} ({self.reason})"
