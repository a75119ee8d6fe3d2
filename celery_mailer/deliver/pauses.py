"""Which pauses hold now, as this process sees them: at most a second old."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from django.db.models import Q

from celery_mailer import conf
from celery_mailer.models import Email, Pause
from celery_mailer.models.provider import routes_of
from celery_mailer.values import Priority

T = TypeVar("T")

FRESH = timedelta(seconds=1)  # for as long, what was read is believed


class Recent(Generic[T]):
    """What ``load`` returned, not older than ``FRESH``."""

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._read: tuple[datetime, T] | None = None

    def at(self, now: datetime) -> T:
        read = self._read
        if read is None or not read[0] <= now < read[0] + FRESH:  # also if the clock was set back
            self._read = read = now, self._load()
        return read[1]

    def forget(self) -> None:
        self._read = None


class Pauses:
    """Answers from the rows of ``Pause``, which it reads once per second."""

    def __init__(self) -> None:
        self._rows = Recent(lambda: {(p.kind, p.name): p for p in Pause.objects.all()})

    def forget(self) -> None:
        self._rows.forget()

    def of(self, kind: str, name: str, now: datetime) -> Pause | None:
        """The pause of ``kind`` ``name`` itself."""
        found = self._rows.at(now).get((kind, name))
        return found if found is not None and found.holds(now) else None

    def holding(self, email: Email, now: datetime) -> Pause | None:
        """The pause that keeps ``email`` from being sent; by its providers only if all of them are paused."""
        if not self._rows.at(now):
            return None
        subject = Pause.Subject
        names = {
            subject.LANE: Priority(email.priority).label,
            subject.STREAM: email.stream,
            subject.BATCH: str(email.batch_id),
        }
        found = (self.of(kind, str(name), now) for kind, name in names.items())
        return next(filter(None, found), None) or self._of_all(list(routes_of(email)), now)

    def _of_all(self, aliases: list[str], now: datetime) -> Pause | None:
        """The pause that ends first, if every one of ``aliases`` is paused."""
        found = [self.of(Pause.Subject.PROVIDER, alias, now) for alias in aliases]
        pauses = [pause for pause in found if pause is not None]
        return min(pauses, key=lambda p: p.again_at(now)) if len(pauses) == len(aliases) else None

    def passing(self, now: datetime) -> Q:
        """The emails that no pause holds, as a condition on ``Email``; what it cannot say, the gate sees."""
        names: dict[str, set[str]] = {kind: set() for kind in Pause.Subject.values}
        for (kind, name), row in self._rows.at(now).items():
            if row.holds(now):
                names[kind].add(name)
        held = {
            "priority__in": [p for p in Priority if p.label in names["lane"]],
            "stream__in": sorted(names["stream"]),
            "batch__in": sorted(names["batch"]),
        }
        condition = Q()
        for field, values in held.items():
            if values:
                condition &= ~Q(**{field: values})
        return condition & ~_bound_to(names["provider"]) if names["provider"] else condition


def _bound_to(paused: set[str]) -> Q:
    """Emails that can only go by providers in ``paused``; without those that their domains lead there."""
    settings = conf.get()
    named = Q(provider__in=sorted(paused))
    if settings.domain_routes:
        return named
    streams = [s for s in settings.streams if set(settings.routes_for(s, None)) <= paused]
    return named | Q(provider="", stream__in=streams)


pauses = Pauses()
