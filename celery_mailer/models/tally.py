"""Opens and clicks of nobody in particular: where the mode is anonymous, they are only counted."""

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple
from uuid import UUID

from django.db import models
from django.db.models import F

from celery_mailer.models.batch import Batch
from celery_mailer.values import EventKind


class Counted(NamedTuple):
    """What is told apart: not the email, nor the recipient, nor the link."""

    kind: EventKind
    day: date  # UTC
    stream: str
    batch_id: UUID | None
    machine: bool


class Tally(models.Model):
    """How often on a day. Two workers may each make the row for the same: who reads adds rows up."""

    kind = models.CharField(max_length=12, choices=EventKind)
    day = models.DateField()
    stream = models.CharField(max_length=40)
    batch = models.ForeignKey(Batch, models.CASCADE, null=True, related_name="tallies", db_index=False)
    machine = models.BooleanField(default=False, help_text="by a prefetcher or a scanner")
    number = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name_plural = "tallies"
        indexes = [
            models.Index(fields=["batch", "kind", "day"], name="mailer_tally_batch_idx"),
            models.Index(fields=["stream", "kind", "day"], name="mailer_tally_stream_idx"),
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.kind} on {self.day}"


def tally(numbers: Mapping[Counted, int]) -> None:
    """Add ``numbers``; those of a batch that was deleted are left out."""
    wanted = {counted.batch_id for counted in numbers if counted.batch_id is not None}
    there = {None, *Batch.objects.filter(pk__in=wanted).values_list("pk", flat=True)}
    for counted in sorted(numbers, key=str):  # in one order, in which two workers cannot deadlock
        values = counted._asdict()
        if counted.batch_id not in there:
            continue
        same = Tally.objects.filter(**values).order_by("pk").values_list("pk", flat=True)[:1]
        pk = same.first()
        if pk is None or not Tally.objects.filter(pk=pk).update(number=F("number") + numbers[counted]):
            Tally.objects.create(**values, number=numbers[counted])
