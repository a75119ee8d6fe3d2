"""The emails of one bulk call."""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from celery_mailer.values import uuid7


class Batch(models.Model):
    """Counts are not stored: they are what the emails' statuses say."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    total = models.PositiveIntegerField()

    class Meta:
        verbose_name = _("batch")
        verbose_name_plural = _("batches")
        permissions = [("pause_batch", _("Can pause and resume batches"))]

    def __str__(self) -> str:
        return f"batch {self.id} of {self.total}"
