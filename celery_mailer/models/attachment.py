"""Files that hang on emails: each content is stored once, under the hash of its bytes."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.core.files.storage import Storage, storages
from django.db import models, router, transaction
from django.utils import timezone

from celery_mailer import conf
from celery_mailer.models.email import Email
from celery_mailer.models.fields import OrderedJSON


class Attachment(models.Model):
    """The bytes of one or many emails' attachments, in Django's storage.

    ``used_at`` is renewed whenever an email is given it, so that cleaning up cannot take away what an
    email that is being queued this moment relies on.
    """

    id = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of the bytes")
    size = models.PositiveBigIntegerField()
    path = models.CharField(max_length=255, help_text="its name in the storage")
    used_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.size} bytes, {self.id[:8]}"


class Form(models.TextChoices):
    """What the bytes were when the email was made, so that the same comes out."""

    TEXT = "text", "text"  # a string: written in the email's encoding
    BYTES = "bytes", "bytes"
    PART = "part", "MIME part"  # a whole entity with headers of its own: ``email.message.MIMEPart``
    BASE = "base", "legacy MIME part"  # the same as ``email.mime.base.MIMEBase``


class Enclosure(models.Model):
    """An attachment as it hangs on one email: its name there, its type, its place in the order.

    One with a ``content_id`` is an image that the HTML shows; it goes out only with HTML that does. The
    others have none rather than an empty one, so that the constraint lets several stand side by side.
    """

    email = models.ForeignKey(Email, models.CASCADE, related_name="enclosures", db_index=False)
    attachment = models.ForeignKey(Attachment, models.PROTECT, related_name="enclosures")
    position = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=255, blank=True)
    mimetype = models.CharField(max_length=255, blank=True)
    form = models.CharField(max_length=5, choices=Form)
    headers = OrderedJSON(default=dict)
    content_id = models.CharField(  # noqa: DJ001
        max_length=64, null=True, help_text="of an inline image, without the angle brackets"
    )

    class Meta:
        constraints = [
            # Rendering an email twice must not give it an image twice.
            models.UniqueConstraint(fields=["email", "content_id"], name="mailer_enclosure_image"),
        ]

    def __str__(self) -> str:
        return self.name or f"attachment {self.position}"


def storage() -> Storage:
    return storages[conf.get().attachments.storage]


def enclosures_of(email_ids: Collection[UUID]) -> dict[UUID, list[Enclosure]]:
    """The enclosures of each email, in their order."""
    found: dict[UUID, list[Enclosure]] = {}
    if email_ids:
        rows = Enclosure.objects.filter(email_id__in=email_ids).select_related("attachment")
        for enclosure in rows.order_by("email_id", "position"):
            found.setdefault(enclosure.email_id, []).append(enclosure)
    return found


def delete_unused(before: datetime, limit: int) -> int:
    """Delete files that no email has and that none was given since ``before``; returns how many."""
    with transaction.atomic(using=router.db_for_write(Attachment)):
        used = models.Exists(Enclosure.objects.filter(attachment=models.OuterRef("pk")))
        unused = Attachment.objects.filter(~used, used_at__lt=before).order_by("used_at")
        rows = list(unused.select_for_update()[:limit])
        for row in rows:
            # The file first: while the rows are locked, an email that is given the same bytes waits for
            # what becomes of its row, and then stores them anew.
            storage().delete(row.path)
        Attachment.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return len(rows)
