"""What the world says of an email after it was handed over: its events, and what they add up to."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from celery_mailer.models.attempt import final_recipients
from celery_mailer.models.email import Email
from celery_mailer.models.recipient import searchable
from celery_mailer.values import Bounce, EventKind, uuid7


class Event(models.Model):
    """One thing that happened to one recipient; written once, changed only to name its email.

    An event may come before the commit that makes its email known, and for mail that is not ours at all. It
    is kept without ``email``, with the names it gives; ``match_at`` is when these are looked for again.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    key = models.CharField(max_length=64, unique=True, editable=False, help_text="SHA-256: a duplicate's")
    kind = models.CharField(max_length=12, choices=EventKind)
    email = models.ForeignKey(
        Email, models.CASCADE, null=True, editable=False, related_name="events", db_index=False
    )
    recipient = models.CharField(max_length=320, blank=True, help_text="bare, in small letters")
    at = models.DateTimeField(help_text="when it happened")
    received_at = models.DateTimeField(default=timezone.now, editable=False)
    provider = models.CharField(max_length=64, blank=True, help_text="who says so; empty: we ourselves")
    bounce = models.CharField(max_length=4, blank=True, choices=Bounce)
    code = models.PositiveSmallIntegerField(null=True, help_text="SMTP reply code (RFC 5321)")
    enhanced_code = models.CharField(max_length=12, blank=True, help_text="as 5.1.1 (RFC 3463)")
    text = models.TextField(blank=True, help_text="the server's words")
    url = models.TextField(blank=True, help_text="of a click")
    machine = models.BooleanField(default=False, help_text="by a prefetcher or a scanner; not counted")
    named_email = models.UUIDField(null=True, editable=False)
    named_message_id = models.CharField(max_length=255, blank=True, editable=False)
    named_provider_message_id = models.CharField(max_length=255, blank=True, editable=False)
    match_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        default_permissions = ("view",)  # they go with their emails
        constraints = [
            models.CheckConstraint(name="mailer_event_kind", condition=Q(kind__in=EventKind.values)),
            models.CheckConstraint(
                name="mailer_event_match", condition=Q(match_at=None) | Q(email__isnull=True)
            ),
        ]
        indexes = [
            models.Index(fields=["email", "id"], name="mailer_event_email_idx"),
            models.Index(fields=["recipient", "at"], name="mailer_event_recipient_idx"),
            models.Index(
                fields=["match_at"], name="mailer_event_match_idx", condition=Q(match_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.at}"


class Feedback(models.Model):
    """What the events of an email add up to; it only grows, in whatever order they come.

    A row of its own, made with the first event: the email's row is hot, and what is opened a hundred times
    must not rewrite it. Times are the earliest of their kind, counts leave machines out.
    """

    email = models.OneToOneField(Email, models.CASCADE, primary_key=True, related_name="feedback")
    delivered_at = models.DateTimeField(null=True)
    bounced_at = models.DateTimeField(null=True)
    complained_at = models.DateTimeField(null=True)
    opened_at = models.DateTimeField(null=True)
    clicked_at = models.DateTimeField(null=True)
    unsubscribed_at = models.DateTimeField(null=True)
    open_count = models.PositiveIntegerField(default=0)
    click_count = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"feedback on {self.email_id}"


def delete_unknown_events(before: datetime, limit: int) -> int:
    """Delete up to ``limit`` events that no email was found for, received before; returns how many."""
    rows = Event.objects.filter(email=None, match_at=None, received_at__lt=before)
    ids = list(rows.values_list("pk", flat=True)[:limit])
    return Event.objects.filter(pk__in=ids).delete()[0]


def known_to_be_taken(ids: Collection[UUID]) -> set[UUID]:
    """Of the emails ``ids``, each in doubt, those that an event shows a provider to have.

    What it says of a recipient whose answer is known says nothing of those who are in doubt.
    """
    if not ids:
        return set()
    told = Event.objects.filter(email_id__in=ids).exclude(kind=EventKind.REJECTED)
    known = {pk: set(map(searchable, answers)) for pk, answers in final_recipients(ids).items()}
    named = told.values_list("email_id", "recipient")
    return {pk for pk, recipient in named if recipient not in known.get(pk, ())}
