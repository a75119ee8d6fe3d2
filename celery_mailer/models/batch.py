"""The emails of one bulk call."""

from uuid import UUID

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from celery_mailer.values import uuid7


class Batch(models.Model):
    """Where its emails stand is not stored: it is what their statuses say (``batches.progress``).

    What is stored is what became of the recipients: ``taken`` of them were looked at, ``invalid`` of these
    were refused, ``total`` have an email. ``stage`` is what beat still has to do with the batch, so that only
    the few that have one are looked at.
    """

    class Stage(models.TextChoices):
        """Who moves it on: ``batches.tend``, unless it says otherwise."""

        NONE = "", _("nothing to do")
        CANARY = "canary", _("the first ones are on their way, the rest is held")
        REFUSED = "refused", _("too many of the first ones failed, the rest is held")  # a person resumes it
        RELEASE = "release", _("the rest is being let go")
        CANCEL = "cancel", _("being cancelled")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    idempotency_key = models.CharField(  # noqa: DJ001 NULLs are distinct
        max_length=64, null=True, unique=True, editable=False, help_text="SHA-256 of the caller's key"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    total = models.PositiveIntegerField()
    taken = models.PositiveIntegerField(default=0, editable=False)
    invalid = models.PositiveIntegerField(default=0, editable=False)
    faults = models.JSONField(
        default=list, editable=False, help_text="of the first invalid ones: position, field, fault"
    )
    reading = models.BooleanField(
        default=False, editable=False, help_text="recipients are still being taken, or their process died"
    )
    cancelled_at = models.DateTimeField(null=True, editable=False)
    stage = models.CharField(max_length=10, choices=Stage, default=Stage.NONE, blank=True, editable=False)
    canary = models.PositiveIntegerField(default=0, editable=False, help_text="this many go first")
    canary_failures = models.FloatField(
        default=0, editable=False, help_text="the share of them that may fail, 0 to 1"
    )

    class Meta:
        verbose_name = _("batch")
        verbose_name_plural = _("batches")
        permissions = [("pause_batch", _("Can pause and resume batches"))]
        indexes = [models.Index(fields=["stage"], name="mailer_batch_stage_idx", condition=~Q(stage=""))]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def duplicates(self) -> int:
        """How many recipients had an address that was there before; it is known when all were taken."""
        return max(0, self.taken - self.invalid - self.total)


def was_cancelled(batch_id: UUID) -> bool:
    """Whether it was; until the caller's transaction ends, nobody else cancels it."""
    row = Batch.objects.select_for_update().filter(pk=batch_id).first()
    return row is not None and row.cancelled_at is not None
