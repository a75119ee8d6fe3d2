"""Lists that are fast at a million rows: nothing in them looks at every row, but to find what is rare.

Of emails, an index serves the dates, the search, and every status but ``sent``; a lane, only of those that
wait. No other filter is worth an index that each email pays for: for ``sent``, a lane or a stream, emails are
read in the order of time until there are enough. That is soon for what is frequent; for what is rare, as
``?priority=0&status=sent`` where little goes by that lane, all are read, or all within the date.

Measured with a million emails in PostgreSQL 15, and no such rare value: the slowest query of a first page
took 7 ms; of the fiftieth page, 72 ms.
"""

from calendar import monthrange
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import cached_property
from itertools import takewhile
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import formats, timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from celery_mailer import conf
from celery_mailer.admin.words import LANES, STATUSES
from celery_mailer.models.email import Email
from celery_mailer.values import WAITING, Status

BOUND = 10_000  # rows up to which a list counts, and can be paged through


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts up to ``BOUND`` rows: to count a million takes seconds, and nobody turns so many pages."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:BOUND].count())


class BoundedChangeList(ChangeList):
    """A list that says when it was cut, and whose date hierarchy is a calendar.

    Django's own asks which years, months and days have rows, and reads all of them to know it.
    """

    @property
    def cut(self) -> bool:
        """Whether there may be more rows than can be paged through."""
        return bool(self.result_count >= BOUND)

    @property
    def calendar(self) -> dict[str, Any]:
        """The context of ``admin/date_hierarchy.html``."""
        given = (self.params.get(name, "") for name in self._names)
        chosen = tuple(int(str(part)) for part in takewhile(bool, given))
        # Two queries, for SQLite reads all rows to find both at once.
        dates = self.root_queryset.order_by().values_list("created_at", flat=True)
        first, last = dates.order_by("created_at").first(), dates.order_by("-created_at").first()
        if first is None or last is None:
            return {"show": False}
        inside = _inside(chosen, _local(first), _local(last)) if len(chosen) < 3 else []
        return {
            "show": True,
            "field_name": _("date"),
            "back": {"link": self._link(chosen[:-1]), "title": _title(chosen[:-1])} if chosen else None,
            "choices": [{"link": self._link(part), "title": _title(part)} for part in inside]
            or [{"title": _title(chosen)}],
        }

    @property
    def _names(self) -> list[str]:
        return [f"{self.date_hierarchy}__{part}" for part in ("year", "month", "day")]

    def _link(self, part: tuple[int, ...]) -> str:
        return self.get_query_string(dict(zip(self._names, part, strict=False)), self._names)


def _local(moment: Any) -> date:
    return timezone.localtime(moment).date() if timezone.is_aware(moment) else moment.date()


def _inside(chosen: tuple[int, ...], first: date, last: date) -> list[tuple[int, ...]]:
    """The years, the months of a year, or the days of a month, between two dates."""
    ranges = [range(first.year, last.year + 1), range(1, 13)]
    numbers = ranges[len(chosen)] if len(chosen) < 2 else range(1, monthrange(chosen[0], chosen[1])[1] + 1)
    depth = len(chosen) + 1
    low, high = first.timetuple()[:depth], last.timetuple()[:depth]
    return [part for n in numbers if low <= (part := (*chosen, n)) <= high]


def _title(part: tuple[int, ...]) -> str:
    if len(part) < 2:
        return str(part[0]) if part else _("All dates")
    day = date(part[0], part[1], part[2] if len(part) > 2 else 1)
    return capfirst(formats.date_format(day, "MONTH_DAY_FORMAT" if len(part) > 2 else "YEAR_MONTH_FORMAT"))


def column(field: str, label: Any) -> Callable[[Any], Any]:
    """A column of a list, for a field whose name is no heading; ``label`` is one, translated."""

    @admin.display(description=label, ordering=field)
    def shown(row: Any) -> Any:
        return getattr(row, field)

    return shown


class WordsFilter(admin.SimpleListFilter):
    """By a typed word, told in the words of the list."""

    words: Mapping[Any, Any]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [(str(value), word) for value, word in self.words.items()]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        value = self.value()
        return queryset.filter(**{str(self.parameter_name): value}) if value in self.words else queryset


class StatusFilter(admin.SimpleListFilter):
    """By status, each but ``sent`` in a way that a partial index of the email serves (``models.email``)."""

    title = gettext_lazy("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [(str(status), word) for status, word in STATUSES.items()]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Email]") -> "QuerySet[Email]":
        value = self.value()
        if value is None:
            return queryset
        # What follows from the status, by a constraint, but not by itself in the mind of a planner.
        implied = {status: {"due_at__isnull": False} for status in WAITING}
        implied[Status.SENDING] = {"lease_until__isnull": False}
        return queryset.filter(status=value, **implied.get(value, {}))  # type: ignore[call-overload]


class LaneFilter(admin.SimpleListFilter):
    title = gettext_lazy("lane")
    parameter_name = "priority"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [(str(int(priority)), word) for priority, word in LANES.items()]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Email]") -> "QuerySet[Email]":
        value = self.value()
        return queryset.filter(priority=int(value)) if value in {str(int(p)) for p in LANES} else queryset


class StreamFilter(admin.SimpleListFilter):
    """The streams of the settings: to ask the rows for theirs is to read them all."""

    title = gettext_lazy("stream")
    parameter_name = "stream"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [(name, name) for name in conf.get().streams]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Email]") -> "QuerySet[Email]":
        value = self.value()
        return queryset.filter(stream=value) if value is not None else queryset
