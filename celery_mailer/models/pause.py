"""Pauses: what a person stops for a while. Nothing is lost or fails by it, and no attempt is counted."""

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta

from django.core.exceptions import ValidationError
from django.db import models, router, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from celery_mailer import conf
from celery_mailer.models.batch import Batch, was_cancelled
from celery_mailer.models.email import Email
from celery_mailer.models.provider import HELD, ProviderState, State
from celery_mailer.values import Kind, Priority, Status

PAUSED = "paused"  # the reason of mail that is held by a pause
OF_PROVIDERS = (HELD, str(Kind.PROVIDER))  # the reasons of mail that waits until a provider can be used again
LOOK_AGAIN = timedelta(minutes=1)  # held mail is due again after this: a pause may end at any time
HORIZON = timedelta(hours=1)  # nothing that waits for a provider is due later than that


class Pause(models.Model):
    """A provider, a lane, a stream or a batch that is to send nothing until ``until``, or until resumed.

    ``name`` is an alias, a priority (each lane is one), a stream, or the id of a batch. Mail that has another
    provider goes by that one while its first is paused.
    """

    class Subject(models.TextChoices):
        PROVIDER = "provider", _("provider")
        LANE = "lane", _("lane")
        STREAM = "stream", _("stream")
        BATCH = "batch", _("batch")

    kind = models.CharField(max_length=10, choices=Subject)
    name = models.CharField(max_length=64)
    reason = models.CharField(max_length=255)
    until = models.DateTimeField(null=True, blank=True, help_text=_("Empty: until it is resumed."))
    by = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "name"], name="mailer_pause_kind_name")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.reason}"

    def clean(self) -> None:
        """Raise ``ValidationError`` for a name that nothing has."""
        known = {
            self.Subject.PROVIDER: conf.get().providers,
            self.Subject.LANE: Priority.labels,
            self.Subject.STREAM: conf.get().streams,
        }
        if self.kind in known and self.name not in known[self.Subject(self.kind)]:
            raise ValidationError({"name": _("Known: %s.") % ", ".join(known[self.Subject(self.kind)])})
        if self.kind == self.Subject.BATCH:
            try:
                self.name = str(uuid.UUID(self.name))
            except ValueError:
                raise ValidationError({"name": _("Give the id of a batch.")}) from None
            if not Batch.objects.filter(pk=self.name).exists():
                raise ValidationError({"name": _("There is no batch %s.") % self.name})

    def holds(self, now: datetime) -> bool:
        return self.until is None or now < self.until

    def again_at(self, now: datetime) -> datetime:
        """When mail that it holds is to be looked at again."""
        return min(self.until or now + LOOK_AGAIN, now + LOOK_AGAIN)


def pause(kind: str, name: str, reason: str, *, until: datetime | None = None, by: str = "") -> Pause:
    """Stop ``kind`` ``name``; where it is paused already, the new reason and end take the place of the old.

    Workers see it within about a second; what is under way ends. Raises ``ValidationError``, also for a batch
    that was cancelled: it is held until the last email is cancelled, and another pause could end before.
    """
    asked = Pause(kind=kind, name=name, reason=reason, until=until, by=by)
    asked.full_clean(validate_unique=False, validate_constraints=False)
    with transaction.atomic(using=router.db_for_write(Pause)):
        if kind == Pause.Subject.BATCH and was_cancelled(uuid.UUID(asked.name)):
            raise ValidationError(_("This batch was cancelled."))
        return _put(asked)


def hold(kind: str, name: str, reason: str, *, by: str = "") -> Pause:
    """As ``pause``, until it is resumed; also a batch that was cancelled. For what no person asks for."""
    return _put(Pause(kind=kind, name=name, reason=reason, by=by))


def _put(asked: Pause) -> Pause:
    values = {field: getattr(asked, field) for field in ("reason", "until", "by", "created_at")}
    return Pause.objects.update_or_create(kind=asked.kind, name=asked.name, defaults=values)[0]


def paused_providers(now: datetime) -> set[str]:
    """The aliases that a pause holds."""
    rows = Pause.objects.filter(kind=Pause.Subject.PROVIDER)
    return {row.name for row in rows if row.holds(now)}


def resume(kind: str, name: str) -> bool:
    """End the pause of ``kind`` ``name``; returns whether there was one.

    A provider whose breaker is open, paused or not, is tried with the next mail: say so after mending it.
    """
    ended, _rows = Pause.objects.filter(kind=kind, name=name).delete()
    if kind == Pause.Subject.PROVIDER:
        breaker = ProviderState.objects.filter(alias=name, state=State.OPEN)
        breaker.update(retry_at=timezone.now(), version=F("version") + 1)
        wake([PAUSED, *OF_PROVIDERS])
    else:
        wake([PAUSED])
    return bool(ended)


def wake(reasons: Collection[str]) -> None:
    """Make what waits for one of ``reasons`` due now."""
    now = timezone.now()
    waiting = Email.objects.filter(priority__in=Priority.values, due_at__gt=now, due_at__lte=now + HORIZON)
    waiting.filter(status=Status.DEFERRED, reason__in=reasons).update(due_at=now)
