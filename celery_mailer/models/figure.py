"""How many emails of a stream, or of a batch, came to what: sums by five minutes.

To count the emails themselves takes as long as there are many. These few rows are written by beat and with
the events that they count (``celery_mailer.reputation``); queueing and delivery know nothing of them.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import connections, models, router, transaction
from django.db.models import F, Q, Sum
from django.utils.translation import gettext_lazy as _

SLICE = timedelta(minutes=5)
STEP = 500  # rows that one statement writes
REFUSED, BOUNCED, COMPLAINED = "refused", "bounced", "complained"  # the others are final statuses


class Key(NamedTuple):
    """What is counted: ``name`` is that of a stream, or the id of a batch."""

    kind: str
    name: str
    what: str
    start: datetime


class Figure(models.Model):
    """So many emails that became final in the ``SLICE`` from ``start`` on.

    ``what`` is their status; or ``refused``, by a server that knows the recipient not to exist; or what was
    heard of them later, ``bounced`` (hard) and ``complained``. It has no keys to other tables, so that who
    writes it waits for nobody else.
    """

    class Subject(models.TextChoices):
        STREAM = "stream", _("stream")
        BATCH = "batch", _("batch")

    kind = models.CharField(max_length=10, choices=Subject)
    name = models.CharField(max_length=64)
    what = models.CharField(max_length=10)
    start = models.DateTimeField()
    number = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "name", "what", "start"], name="mailer_figure_once")
        ]
        indexes = [models.Index(fields=["kind", "what", "start"], name="mailer_figure_start_idx")]

    def __str__(self) -> str:
        return f"{self.number} of {self.kind} {self.name} {self.what}"


def slice_of(moment: datetime) -> datetime:
    """The beginning of the slice that ``moment`` is in."""
    return moment.replace(minute=moment.minute - moment.minute % 5, second=0, microsecond=0)


def put(numbers: Mapping[Key, int]) -> None:
    """Let the figures be ``numbers``, whatever they were: who counts the same again changes nothing."""
    using = router.db_for_write(Figure)
    names_conflict = connections[using].features.supports_update_conflicts_with_target
    Figure.objects.using(using).bulk_create(
        [Figure(**key._asdict(), number=numbers[key]) for key in sorted(numbers)],
        batch_size=STEP,
        update_conflicts=True,
        update_fields=["number"],
        unique_fields=["kind", "name", "what", "start"] if names_conflict else None,
    )


def add(numbers: Mapping[Key, int]) -> None:
    """Add ``numbers`` to the figures, in an order in which two that do so cannot deadlock."""
    keys = sorted(numbers)
    with transaction.atomic(using=router.db_for_write(Figure)):
        Figure.objects.bulk_create([Figure(**key._asdict()) for key in keys], ignore_conflicts=True)
        for key in keys:
            Figure.objects.filter(**key._asdict()).update(number=F("number") + numbers[key])


def sums(kind: str, since: Mapping[str, datetime | None]) -> dict[str, Counter[str]]:
    """By name, what the figures add up to: each from its time on, ``None`` from the beginning; one query."""
    found: dict[str, Counter[str]] = {name: Counter() for name in since}
    if not since:
        return found
    by_start: dict[datetime | None, list[str]] = defaultdict(list)
    for name, start in since.items():
        by_start[start].append(name)
    wanted = Q(pk__in=[])
    for start, names in by_start.items():
        wanted |= Q(name__in=names) & (Q() if start is None else Q(start__gte=start))
    rows = Figure.objects.filter(wanted, kind=kind).values_list("name", "what").order_by()
    for name, what, number in rows.annotate(sum=Sum("number")):
        found[name][what] = number
    return found


def delete_old_figures(before: datetime, limit: int) -> int:
    """Delete up to ``limit`` of slices that began before that time; returns how many."""
    ids = list(Figure.objects.filter(start__lt=before).values_list("pk", flat=True)[:limit])
    return Figure.objects.filter(pk__in=ids).delete()[0]


def worst(kind: str, whats: Collection[str], since: datetime, limit: int) -> list[str]:
    """The names that have most of ``whats`` since then."""
    rows = Figure.objects.filter(kind=kind, what__in=whats, start__gte=since).values("name")
    return list(rows.annotate(sum=Sum("number")).order_by("-sum").values_list("name", flat=True)[:limit])


def latest(kind: str, whats: Collection[str]) -> datetime | None:
    """The beginning of the newest slice that has any of ``whats``."""
    rows = (Figure.objects.filter(kind=kind, what=what).order_by("-start") for what in whats)
    starts = [row.values_list("start", flat=True).first() for row in rows]
    return max(filter(None, starts), default=None)
