"""Mail that was kept instead of sent, for a developer's inbox."""

from datetime import datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

from django.db import models
from django.utils import timezone

from celery_mailer.models.email import Email
from celery_mailer.values import uuid7


class CapturedMessage(models.Model):
    """One message as it would have gone out; newer ids sort last."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.ForeignKey(Email, models.SET_NULL, null=True, editable=False, related_name="captured")
    provider = models.CharField(max_length=64, blank=True, help_text="the alias of the provider that kept it")
    recipients = models.JSONField(default=list, help_text="of the envelope: bcc too")
    subject = models.CharField(max_length=255, blank=True)
    raw = models.BinaryField(help_text="the message as it goes over the wire (RFC 5322)")
    received_at = models.DateTimeField(default=timezone.now)

    class Meta:
        default_permissions = ()  # it is seen in the inbox only
        indexes = [models.Index(fields=["received_at"], name="mailer_captured_at_idx")]

    def __str__(self) -> str:
        return self.subject

    @property
    def message(self) -> EmailMessage:
        """``raw``, parsed."""
        # MariaDB and SQLite return bytes, PostgreSQL a memoryview.
        return message_from_bytes(bytes(self.raw), policy=default)


def delete_captured(before: datetime, limit: int) -> int:
    """Delete up to ``limit`` messages that came before that time; returns how many."""
    old = CapturedMessage.objects.filter(received_at__lt=before).order_by("received_at")
    ids = list(old.values_list("pk", flat=True)[:limit])
    CapturedMessage.objects.filter(pk__in=ids).delete()
    return len(ids)
