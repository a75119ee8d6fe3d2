"""Limits of all workers together, in the project's database: a row for each bucket, locked while it counts.

The clock is the worker's (NTP is assumed): a second of difference makes a worker's mail come a second early
or late once, and does not change how much of it there is. A call takes two queries, or one where nothing is
to be counted.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields

from django.db import connections, router, transaction
from django.db.models import F, QuerySet

from celery_mailer.deliver.buckets import rules
from celery_mailer.deliver.buckets.contract import Level, moment
from celery_mailer.deliver.buckets.process import ProcessBuckets
from celery_mailer.deliver.buckets.rules import State
from celery_mailer.models import Bucket

LONGEST = 255  # of a key


class DatabaseBuckets(ProcessBuckets):
    """``Buckets`` in rows. Raises ``django.db.DatabaseError``.

    Not for use inside a transaction: the rows, and with them all other workers, would wait until it ends.
    """

    @contextmanager
    def open(
        self, keys: Collection[str], quiet: Collection[str] = frozenset()
    ) -> Iterator[Mapping[str, State]]:
        names = {key: _name(key) for key in keys}
        loud = [names[key] for key in keys if key not in quiet]
        using = router.db_for_write(Bucket)
        if not loud:
            states = _read(Bucket.objects.using(using).filter(pk__in=names.values()))
            if not any(state.pace_at(self.clock()) < 1 for state in states.values()):
                yield {key: states.get(name) or State() for key, name in names.items()}
                return
        with transaction.atomic(using=using):
            before = _lock(names.values(), loud, using)
            states = {name: State(**asdict(before.get(name, State()))) for name in names.values()}
            yield {key: states[name] for key, name in names.items()}
            _write({name: s for name, s in states.items() if s != before.get(name, State())}, using)

    def look(self, keys: Collection[str]) -> tuple[int, dict[str, Level]] | None:
        states = _read(Bucket.objects.filter(pk__in=[_name(key) for key in keys]))
        now = self.clock()
        return now, {key: rules.level(states.get(_name(key)) or State(), now) for key in keys}


def _name(key: str) -> str:
    """``key`` as it fits into its column."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return key if len(key) <= LONGEST else key[: LONGEST - len(digest)] + digest


def _read(rows: QuerySet[Bucket]) -> dict[str, State]:
    return {row.pk: State(**row.state) for row in rows}


def _lock(names: Collection[str], loud: Collection[str], using: str) -> dict[str, State]:
    """The states of ``names``, locked; of those that have no row yet, only the ``loud`` ones get one."""
    rows = Bucket.objects.using(using).filter(pk__in=names)
    if connections[using].features.has_select_for_update:
        rows = rows.select_for_update().order_by("pk")  # in the same order everywhere: no deadlock
    else:
        rows.update(expires_at=F("expires_at"))  # SQLite: whoever writes first is alone from then on
    states = _read(rows)
    missing = [Bucket(key=name, expires_at=moment(0)) for name in loud if name not in states]
    if not missing:
        return states
    # What is not there cannot be locked. Somebody else may be making it too.
    Bucket.objects.using(using).bulk_create(missing, ignore_conflicts=True)
    return _read(rows.all())


def _write(states: Mapping[str, State], using: str) -> None:
    rows = [Bucket(key=n, state=_short(s), expires_at=moment(s.useful_until())) for n, s in states.items()]
    if rows:
        Bucket.objects.using(using).bulk_update(rows, ["state", "expires_at"])


def _short(state: State) -> dict[str, object]:
    fresh = State()
    values = ((f.name, getattr(state, f.name)) for f in fields(State))
    return {name: value for name, value in values if value != getattr(fresh, name)}
