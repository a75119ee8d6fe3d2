"""The hot row: what the dispatcher, the gate and the claim read, and nothing else."""

from collections.abc import Iterable
from typing import Any

from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from celery_mailer.models.batch import Batch
from celery_mailer.models.fields import QuickJSON
from celery_mailer.models.quick import QuickRow
from celery_mailer.models.recipient import FirstAddress, note_further
from celery_mailer.values import FINAL, WAITING, Priority, Status, uuid7

# What people look for, and few emails are; not on the way of the many that are sent.
NOTABLE = sorted({Status.UNCERTAIN, *FINAL} - {Status.SENT})


class Emails(models.QuerySet["Email"]):
    """Inserts emails with the rows of their further recipients."""

    def bulk_create(self, objs: Iterable["Email"], *args: Any, **kwargs: Any) -> list["Email"]:
        with transaction.atomic(using=self.db, savepoint=False):
            emails = super().bulk_create(objs, *args, **kwargs)
            note_further(emails, self.db)
        return emails


class Email(QuickRow):
    """An email as the caller asked for it.

    ``due_at`` is set exactly while the email waits (queued, deferred), ``lease_until`` exactly while it
    is being sent, ``finished_at`` exactly when it is final. So "due", "stuck" and "old" are each one
    partial index that holds only those rows, and costs the same at a thousand rows and at ten million.
    MariaDB ignores the condition and indexes the NULLs too; a range scan does not read them.

    The other indexes are for people who look for an email in the admin, where each list and search is one.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    batch = models.ForeignKey(
        Batch, models.SET_NULL, null=True, editable=False, related_name="emails", db_index=False
    )
    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED, editable=False)
    reason = models.CharField(max_length=40, blank=True, help_text="why it has this status, as a typed word")
    priority = models.SmallIntegerField(choices=Priority)
    stream = models.CharField(max_length=40)
    provider = models.CharField(max_length=64, blank=True, help_text="the alias asked for; empty: as routed")
    to = QuickJSON(default=list)
    cc = QuickJSON(default=list, blank=True)
    bcc = QuickJSON(default=list, blank=True)
    address = FirstAddress(
        max_length=320, blank=True, editable=False, help_text="of the first recipient, as it is looked for"
    )
    message_id = models.CharField(max_length=255)
    idempotency_key = models.CharField(  # noqa: DJ001 NULLs are distinct
        max_length=64, null=True, unique=True, editable=False, help_text="SHA-256 of the caller's key"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    scheduled_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    due_at = models.DateTimeField(null=True, editable=False, help_text="when the dispatcher looks at it")
    lease_until = models.DateTimeField(null=True, editable=False)
    claim = models.UUIDField(
        null=True, editable=False, help_text="token of the last move; while sending, the claim"
    )
    attempt_count = models.PositiveSmallIntegerField(default=0, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)
    log_level = models.PositiveSmallIntegerField(
        default=2, editable=False, help_text="attempts kept in the end: 0 none, 1 failures, 2 all"
    )
    resent_from = models.ForeignKey(
        "self", models.SET_NULL, null=True, editable=False, related_name="resends", db_index=False
    )

    objects = Emails.as_manager()

    class Meta:
        verbose_name = _("email")
        verbose_name_plural = _("emails")
        default_permissions = ("view", "delete")  # nobody adds or changes one by hand
        permissions = [
            ("read_email", _("Can read what emails say")),
            ("cancel_email", _("Can cancel emails")),
            ("resend_email", _("Can send emails now, or again")),
            ("decide_email", _("Can decide what became of uncertain emails")),
        ]
        constraints = [
            models.CheckConstraint(name="mailer_email_status", condition=Q(status__in=Status.values)),
            models.CheckConstraint(name="mailer_email_priority", condition=Q(priority__in=Priority.values)),
            models.CheckConstraint(
                name="mailer_email_due",
                condition=Q(status__in=sorted(WAITING), due_at__isnull=False)
                | (~Q(status__in=sorted(WAITING)) & Q(due_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="mailer_email_lease",
                condition=Q(status=Status.SENDING, lease_until__isnull=False, claim__isnull=False)
                | (~Q(status=Status.SENDING) & Q(lease_until__isnull=True)),
            ),
        ]
        indexes = [
            models.Index(
                fields=["priority", "due_at"], name="mailer_email_due_idx", condition=Q(due_at__isnull=False)
            ),
            models.Index(
                fields=["lease_until"], name="mailer_email_stuck_idx", condition=Q(lease_until__isnull=False)
            ),
            models.Index(
                fields=["finished_at"], name="mailer_email_old_idx", condition=Q(finished_at__isnull=False)
            ),
            # With the id: large batches are gone through in steps. Ids ascend, so that it grows at one end.
            models.Index(
                fields=["batch", "id"], name="mailer_email_batch_idx", condition=Q(batch__isnull=False)
            ),
            models.Index(fields=["created_at", "id"], name="mailer_email_created_idx"),
            models.Index(
                fields=["status", "created_at"],
                name="mailer_email_notable_idx",
                condition=Q(status__in=NOTABLE),
            ),
            models.Index(fields=["address"], name="mailer_email_address_idx"),
            # Without the second one that ``db_index`` makes on PostgreSQL, for LIKE.
            models.Index(fields=["message_id"], name="mailer_email_message_id_idx"),
            models.Index(
                fields=["resent_from"],
                name="mailer_email_resent_idx",
                condition=Q(resent_from__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.status})"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Also saves the content that ``mail.send(commit=False)`` left unsaved on it."""
        new = self._state.adding
        super().save(*args, **kwargs)
        if new:
            note_further([self], str(self._state.db))
        content = self._state.fields_cache.get("content")
        if content is not None and content._state.adding:
            content.save(using=self._state.db)

    @property
    def recipients(self) -> list[str]:
        """Everyone it is for, as given: to, then cc, then bcc."""
        return [*self.to, *self.cc, *self.bcc]
