"""Addresses that must not be written to.

An address is known by its digest, so that one that was erased stays suppressed; the address itself is there
for people, until it is erased. One address may have several rows, for several reasons: who lifts a hard
bounce does not lift an opt-out.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import models, router, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from celery_mailer.models.email import Email
from celery_mailer.models.recipient import searchable
from celery_mailer.values import SuppressionReason, uuid7

EVERY_STREAM = ""
STEP = 500  # rows that one statement writes


def digest_of(address: str) -> str:
    """What ``address``, in any spelling of case and IDNA, is suppressed by."""
    return hashlib.sha256(searchable(address).encode()).hexdigest()


class Suppression(models.Model):
    """In force while ``active`` is set and ``expires_at`` has not come; what was released stays as a record.

    ``active`` is true or NULL, never false: a unique constraint lets NULLs pass on every database, where a
    condition on it would not be kept by MariaDB.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    digest = models.CharField(max_length=64, editable=False, help_text="SHA-256 of the address")
    address = models.CharField(max_length=320, blank=True, help_text=_("bare, in small letters"))
    stream = models.CharField(max_length=40, blank=True, help_text=_("Empty: every stream."))
    reason = models.CharField(max_length=12, choices=SuppressionReason, default=SuppressionReason.MANUAL)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text=_("Empty: never."))
    email = models.ForeignKey(Email, models.SET_NULL, null=True, editable=False, related_name="suppressions")
    note = models.CharField(max_length=255, blank=True)
    active = models.BooleanField(null=True, default=True, editable=False)
    released_at = models.DateTimeField(null=True, editable=False)
    released_by = models.CharField(max_length=150, blank=True, editable=False)
    release_note = models.CharField(max_length=255, blank=True, editable=False)

    class Meta:
        verbose_name = _("suppression")
        verbose_name_plural = _("suppressions")
        default_permissions = ("add", "view")
        permissions = [("release_suppression", _("Can release suppressed addresses"))]
        constraints = [
            models.UniqueConstraint(
                fields=["digest", "stream", "reason", "active"], name="mailer_suppression_once"
            ),
            models.CheckConstraint(
                name="mailer_suppression_active",
                condition=Q(active=True, released_at=None) | Q(active=None, released_at__isnull=False),
            ),
        ]
        indexes = [models.Index(fields=["expires_at"], name="mailer_suppression_expiry_idx")]

    def __str__(self) -> str:
        # Not the address: the admin's log keeps this for as long as it is kept.
        return f"{self.reason} of {self.digest[:12]}"

    def save(self, *args: object, **kwargs: object) -> None:
        """Also normalises the address."""
        if self.address:
            self.address, self.digest = searchable(self.address), digest_of(self.address)
        super().save(*args, **kwargs)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Entry:
    """An address to suppress. ``digest`` stands for an address that was erased."""

    address: str
    reason: str
    stream: str = EVERY_STREAM
    expires_at: datetime | None = None
    email_id: UUID | None = None
    note: str = ""
    digest: str = ""


def suppress(entries: Iterable[Entry]) -> int:
    """Suppress what is not yet, for the same stream and reason; returns how many rows are new.

    One that expires, or has, is prolonged. Addresses are taken in any spelling.
    """
    by_key = {(row.digest, row.stream, row.reason): row for row in map(_row, entries)}
    rows = [by_key[key] for key in sorted(by_key)]  # in one order, so that two cannot deadlock
    with transaction.atomic(using=router.db_for_write(Suppression)):
        return sum(_insert(rows[at : at + STEP]) for at in range(0, len(rows), STEP))


def _insert(rows: list[Suppression]) -> int:
    _prolong(rows)
    Suppression.objects.bulk_create(rows, ignore_conflicts=True)
    return Suppression.objects.filter(pk__in=[row.pk for row in rows]).count()


def _row(entry: Entry) -> Suppression:
    return Suppression(
        digest=entry.digest or digest_of(entry.address),
        address=searchable(entry.address) if entry.address else "",
        stream=entry.stream,
        reason=entry.reason,
        expires_at=entry.expires_at,
        email_id=entry.email_id,
        note=entry.note,
    )


def _prolong(rows: Iterable[Suppression]) -> None:
    """Let those that end, and are to last longer, do so."""
    asked = {(row.digest, row.stream, row.reason): row for row in rows}
    ending = Suppression.objects.filter(active=True, expires_at__isnull=False)
    for row in ending.filter(digest__in={key[0] for key in asked}):
        longer = asked.get((row.digest, row.stream, row.reason))
        if longer is None or row.expires_at is None:
            continue
        if longer.expires_at is None or row.expires_at < longer.expires_at:
            values = {"expires_at": longer.expires_at, "email_id": longer.email_id}
            Suppression.objects.filter(pk=row.pk, active=True).update(**values)


def in_force(now: datetime) -> Q:
    """As a condition on ``Suppression``."""
    return Q(active=True) & (Q(expires_at=None) | Q(expires_at__gt=now))


def suppressed(addresses: Collection[str]) -> dict[str, dict[str, str]]:
    """Of ``addresses``, those that are suppressed: by stream (empty: every one), the reason; one query.

    Whether mail in a stream to an address is stopped: ``why_stopped``.
    """
    digests = {address: digest_of(address) for address in addresses}
    if not digests:
        return {}
    rows = Suppression.objects.filter(in_force(timezone.now()), digest__in=set(digests.values()))
    found: dict[str, dict[str, str]] = {}
    for digest, stream, reason in rows.values_list("digest", "stream", "reason"):
        found.setdefault(digest, {})[stream] = reason
    return {address: found[digest] for address, digest in digests.items() if digest in found}


def why_stopped(by_stream: Mapping[str, str], stream: str) -> str:
    """The reason that stops mail in ``stream``, or nothing: an opt-out stops its own stream only."""
    return by_stream.get(EVERY_STREAM) or by_stream.get(stream, "")


def release(ids: Collection[UUID], *, by: str, note: str) -> int:
    """End suppressions, on record with who did it and why; returns how many were in force."""
    rows = Suppression.objects.filter(pk__in=ids, active=True)
    return rows.update(active=None, released_at=timezone.now(), released_by=by, release_note=note)


def forget_address(address: str) -> int:
    """Erase ``address`` from its suppressions, which stay in force by its digest; returns how many had it."""
    return Suppression.objects.filter(digest=digest_of(address)).update(address="", note="", release_note="")


def delete_expired_suppressions(before: datetime, limit: int) -> int:
    """Delete up to ``limit`` that ended by themselves before that time; returns how many."""
    ids = list(Suppression.objects.filter(expires_at__lt=before).values_list("pk", flat=True)[:limit])
    # Once more by the time: one of them may have been prolonged.
    return Suppression.objects.filter(pk__in=ids, expires_at__lt=before).delete()[0]
