"""Alarms: streams and batches of which too much comes back, or is called spam."""

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils import timezone

from celery_mailer.models.figure import Figure
from celery_mailer.values import Level, Measure


class Alarm(models.Model):
    """How it stands with a stream or a batch that has been conspicuous once.

    ``number`` of ``total`` emails is what was last seen; of a pause, what led to it. ``since`` is when a
    person let it go on after a pause: what was sent before does not count any more.
    """

    kind = models.CharField(max_length=10, choices=Figure.Subject)
    name = models.CharField(max_length=64)
    level = models.CharField(max_length=10, blank=True, choices=Level)
    measure = models.CharField(max_length=10, choices=Measure)
    number = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    since = models.DateTimeField(null=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "name"], name="mailer_alarm_kind_name")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.level}"


def delete_old_alarms(before: datetime) -> int:
    """Delete those that are over since before that time; returns how many."""
    over = Q(since=None) | Q(since__lt=before)
    return Alarm.objects.filter(over, level="", at__lt=before).delete()[0]
